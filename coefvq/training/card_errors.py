"""What it means when a card fails in the middle of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from coefvq.errors import TrainingError
from coefvq.training.ranks import rank


@contextmanager
def card_errors() -> Iterator[None]:
    """A card that is full or lost ends the training in one line.

    Raises:
        TrainingError: either.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"rank {rank()}: the card is full ({str(error).splitlines()[0]}); halve per_device_train_batch_size and "
            "double gradient_accumulation_steps, or set activation_checkpointing: true"
        ) from error
    except torch.AcceleratorError as error:
        raise TrainingError(
            f"rank {rank()}: the card failed ({str(error).splitlines()[0]}); run the same command again, on a machine "
            "whose cards work: it goes on from the newest checkpoint"
        ) from error
