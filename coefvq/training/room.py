"""Whether a card has room for a training, said before anything is loaded."""

from __future__ import annotations

import torch

from coefvq.config import Lora
from coefvq.errors import ModelError
from coefvq.models.counting import meta_mllm
from coefvq.models.planning import training_memory
from coefvq.training.job import TrainingJob
from coefvq.training.ranks import world_size

_GIB = 1024**3


def check_card(job: TrainingJob) -> None:
    """Compare the planner's figure with this rank's card, if there is one; a base model is small and not planned.

    Raises:
        ModelError: the card is too small.
    """
    if job.config.kind == "mllm" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        check_room(job, total / _GIB, world_size())


def check_room(job: TrainingJob, card_gib: float, ranks: int) -> None:
    """As ``check_card``, of a card with ``card_gib`` and so many ranks.

    Raises:
        ModelError: the card is too small.
    """
    config, training = job.config, job.training
    lora = Lora(rank=config.lora_rank, alpha=config.lora_alpha, dropout=0.0)
    needed = training_memory(
        config.parts,
        config.media,
        lora,
        meta_mllm(config.parts, config.media, lora, config.fusion),
        gpus=ranks,
        memory_gib=card_gib,
        batch_size=training.per_device_train_batch_size,
        activation_checkpointing=training.activation_checkpointing,
    )
    if needed.fits:
        return
    fixed = needed.total - needed.activations
    if fixed > 0.9 * card_gib:
        remedy = "take a larger card, or recipe onevision-0.5b"
    else:
        remedy = "set training.per_device_train_batch_size lower"
        remedy += "" if training.activation_checkpointing else " or activation_checkpointing: true"
    raise ModelError(
        f"mllm of {config.issue}: preset {config.preset} with {training.per_device_train_batch_size} videos per rank "
        f"needs {needed.total:.1f} GiB ({needed.activations:.1f} of them for the videos), this card has "
        f"{card_gib:.1f}, of which a tenth stays free; {remedy}"
    )
