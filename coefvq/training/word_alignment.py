"""Tokens that point at words: what a new projector learns before the decoder is asked anything.

A decoder reads a token by where it lies among its word embeddings. So the projectors are first trained alone: the mean
of a video's visual tokens, and its sound token with early fusion, should lie in the direction of the words of its
description. That is a linear read-out by the decoder's own embedding, without the decoder: seconds instead of minutes.
Words that picture and sound cannot tell are left to their frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from coefvq.data.text import TextEncoder
from coefvq.errors import ModelError
from coefvq.models.mllm import MultimodalLLM
from coefvq.training.warmup import Inputs

_BATCH = 64
_NAMES = ("vision.", "audio_projector.")


class WordEvidence(nn.Module):
    """Log-odds of each word: token times embedding, scaled, plus what its frequency says."""

    def __init__(self, embedding: torch.Tensor, frequency: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("embedding", embedding)
        self.bias = nn.Parameter(torch.logit(frequency.clamp(1e-3, 1.0 - 1e-3)))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, visual: torch.Tensor, sound: torch.Tensor | None) -> torch.Tensor:
        """visual [B,T,D], sound [B,D] -> log-odds [B,V]."""
        evidence = visual.mean(dim=1) if sound is None else visual.mean(dim=1) + sound
        found: torch.Tensor = nn.functional.linear(evidence, self.embedding) * self.scale + self.bias  # type: ignore[arg-type]
        return found


@dataclass(frozen=True)
class Words:
    """``told`` bool [N,V]: which tokens of ``ids`` int64 [V], sorted, describe each row."""

    ids: torch.Tensor
    told: torch.Tensor


def description_words(text: TextEncoder, descriptions: Sequence[Sequence[str]]) -> Words:
    """The tokens of all of a row's descriptions, without their order."""
    rows = [
        {i for item in text.tokenizer.encode_batch(list(row), add_special_tokens=False) for i in item.ids}
        for row in descriptions
    ]
    ids = torch.tensor(sorted(set().union(*rows)), dtype=torch.long)
    told = torch.stack([torch.isin(ids, torch.tensor(sorted(row), dtype=torch.long)) for row in rows])
    return Words(ids, told)


def align_words(
    network: MultimodalLLM,
    inputs: Inputs,
    words: Words,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] = lambda _: None,
) -> list[dict[str, float]]:
    """Train the projectors in place; rows (epoch, loss), the loss in nats per row and word of the vocabulary.

    A row without any words is left out. Nothing happens where the projectors are frozen.

    Raises:
        ModelError: a loss is not finite.
    """
    trained = [p for name, p in network.named_parameters() if p.requires_grad and name.startswith(_NAMES)]
    rows = torch.nonzero(words.told.any(dim=1)).flatten().numpy()
    if not trained or epochs == 0:
        return []
    table: torch.Tensor = network.language.decoder.get_input_embeddings().weight
    truth = words.told.float().to(table.device)
    evidence = WordEvidence(table[words.ids].detach().float(), truth[rows].mean(dim=0)).to(table.device)
    parameters = [*trained, *evidence.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * -(-len(rows) // _BATCH), pct_start=0.1, cycle_momentum=False
    )
    random, curve = np.random.default_rng(seed), []
    network.train()
    for epoch in range(epochs):
        losses = []
        for batch in _batches(random.permutation(rows).tolist()):
            logits = evidence(*network.tokens(**inputs(batch)))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, truth[batch])
            if not math.isfinite(loss.item()):
                raise ModelError(f"alignment warm-up: loss is not finite at rows {batch}; lower warmup.learning_rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        curve.append({"epoch": float(epoch + 1), "loss": float(np.mean(losses))})
        on_epoch(curve[-1])
    return curve


def _batches(order: list[int]) -> Iterator[list[int]]:
    return (order[start : start + _BATCH] for start in range(0, len(order), _BATCH))
