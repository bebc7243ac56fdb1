"""The training loop of both steps of the alignment, which know neither labels nor validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from coefvq.errors import ModelError

Report = Callable[[dict[str, float]], None]
#: row numbers, and the generator that the order of rows is drawn from -> loss
LossOf = Callable[[list[int], np.random.Generator], torch.Tensor]


def descend(
    loss_of: LossOf,
    parameters: Sequence[nn.Parameter],
    rows: Sequence[int],
    epochs: int,
    size: int,
    learning_rate: float,
    seed: int,
    on_epoch: Report = lambda _: None,
) -> list[dict[str, float]]:
    """AdamW over shuffled batches of ``rows``: a short rise, then half a cosine; rows (epoch, mean loss).

    Raises:
        ModelError: a loss is not finite; its rows are named.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    total = max(epochs * -(-len(rows) // size), 1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=total, pct_start=0.1, cycle_momentum=False
    )
    random, curve = np.random.default_rng(seed), []
    for epoch in range(epochs):
        losses = []
        for batch in _batches(random.permutation(np.asarray(rows)).tolist(), size):
            loss = loss_of(batch, random)
            if not math.isfinite(loss.item()):
                raise ModelError(
                    f"alignment warm-up: loss is not finite at rows {batch}; lower alignment.learning_rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        curve.append({"epoch": float(epoch + 1), "loss": float(np.mean(losses))})
        on_epoch(curve[-1])
    return curve


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    """``order`` cut into rows of ``size``, the last one shorter."""
    return (order[start : start + size] for start in range(0, len(order), size))
