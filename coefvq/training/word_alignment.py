"""Descriptions as sets of words: what projectors and H are taught to tell, without a language-model loss.

A decoder reads a token by where it lies among its word embeddings. So new projectors are first trained alone: the mean
of a video's visual tokens, and its sound token with early fusion, should lie in the direction of the words of its
description. That is a linear read-out by the decoder's own embedding, without the decoder: seconds instead of minutes.
Then H itself is asked for all of the words at once, by a linear map that is thrown away afterwards. A sentence asks H
for its first word only, and adds its tokens to every row. The layers of an attention base learn the words likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from coefvq.errors import DataError, ModelError
from coefvq.models.aligned import trained_parts
from coefvq.models.attention_base import CLASSES, AttentionClassifier, AttentionHead
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.text import TextEncoder
from coefvq.training.descent import Report, descend
from coefvq.training.warmup import Inputs

_PROJECTOR_BATCH = 64
_BASE_BATCH = 32
_PROJECTORS = ("vision.", "audio_projector.")


@dataclass(frozen=True)
class Words:
    """``occurrence`` bool [N,V] is True where token ``ids`` [V] (int64, sorted) occurs in a description of the row."""

    ids: torch.Tensor
    occurrence: torch.Tensor

    @property
    def described(self) -> list[int]:
        """Rows with any words."""
        rows: list[int] = torch.nonzero(self.occurrence.any(dim=1)).flatten().tolist()
        return rows

    @property
    def log_odds(self) -> torch.Tensor:
        """Of each word by its frequency in the described rows, float32 [V]."""
        frequency = self.occurrence[self.described].float().mean(dim=0)
        return torch.logit(frequency.clamp(1e-3, 1.0 - 1e-3))


def description_words(text: TextEncoder, descriptions: Sequence[Sequence[str]]) -> Words:
    """The tokens of all of a row's descriptions, without their order.

    Raises:
        DataError: no row has a description.
    """
    if not any(option for row in descriptions for option in row):
        raise DataError(
            "no video has a description; add a column `caption`, or set alignment to null and description_weight to 0"
        )
    rows = [
        {i for item in text.tokenizer.encode_batch(list(row), add_special_tokens=False) for i in item.ids}
        for row in descriptions
    ]
    ids = torch.tensor(sorted(set().union(*rows)), dtype=torch.long)
    occurrence = torch.stack([torch.isin(ids, torch.tensor(sorted(row), dtype=torch.long)) for row in rows])
    return Words(ids, occurrence)


class WordEvidence(nn.Module):
    """Log-odds of each word: token times embedding, scaled, plus what its frequency says."""

    def __init__(self, embedding: torch.Tensor, log_odds: torch.Tensor) -> None:
        super().__init__()
        self.embedding: torch.Tensor
        self.register_buffer("embedding", embedding)
        self.bias = nn.Parameter(log_odds.clone())
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, visual: torch.Tensor, sound: torch.Tensor | None) -> torch.Tensor:
        """visual [B,T,D], sound [B,D] -> log-odds [B,V]."""
        evidence = visual.mean(dim=1) if sound is None else visual.mean(dim=1) + sound
        return nn.functional.linear(evidence, self.embedding) * self.scale + self.bias


def align_projectors(
    network: MultimodalLLM,
    inputs: Inputs,
    words: Words,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_epoch: Report = lambda _: None,
) -> list[dict[str, float]]:
    """Train the projectors in place; rows (epoch, loss), the loss in nats per row and word of the vocabulary.

    Rows without words are skipped. Frozen projectors stay as they are.

    Raises:
        ModelError: a loss is not finite.
    """
    trained = [p for name, p in network.named_parameters() if p.requires_grad and name.startswith(_PROJECTORS)]
    if not trained:
        return []
    table: torch.Tensor = network.language.decoder.get_input_embeddings().weight
    ids = words.ids.to(table.device)
    evidence = WordEvidence(table[ids].detach().float(), words.log_odds.to(table.device)).to(table.device)

    def loss(rows: list[int], _: np.random.Generator) -> torch.Tensor:
        truth = words.occurrence[rows].to(table.device).float()
        return binary_cross_entropy_with_logits(evidence(*network.tokens(**inputs(rows))), truth)

    network.train()
    parameters = [*trained, *evidence.parameters()]
    return descend(loss, parameters, words.described, epochs, _PROJECTOR_BATCH, learning_rate, seed, on_epoch)


def teach_state(
    network: MultimodalLLM,
    inputs: Inputs,
    words: Words,
    epochs: int,
    size: int,
    learning_rate: float,
    seed: int,
    on_epoch: Report = lambda _: None,
    bf16: bool = False,
) -> list[dict[str, float]]:
    """Train projectors and adapters in place until H tells the words; rows (epoch, loss), in nats per described word.

    Raises:
        ModelError: nothing of the network can train, or a loss is not finite.
    """
    trained = list(trained_parts(network).values())
    if not trained:
        raise ModelError("alignment warm-up: projector and language model are frozen; set alignment.epochs to 0")
    device = trained[0].device
    reader = WordReader(network.language.output_size, words).to(device)

    def loss(rows: list[int], _: np.random.Generator) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            network(**inputs(rows))
        return reader.loss(states[-1], torch.tensor(rows))

    network.train()
    with watched_state(network) as states:
        parameters = [*trained, *reader.parameters()]
        return descend(loss, parameters, words.described, epochs, size, learning_rate, seed, on_epoch)


def teach_base(
    network: AttentionClassifier,
    inputs: Inputs,
    words: Words,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_epoch: Report = lambda _: None,
) -> list[dict[str, float]]:
    """Train the first head in place until the states of its queries tell the words; rows as of ``teach_state``.

    Raises:
        ModelError: a loss is not finite.
    """
    head = cast(AttentionHead, network.heads[0])
    trained = list(trained_parts(network).values())
    reader = WordReader(CLASSES * head.query.shape[1], words).to(head.query.device)

    def loss(rows: list[int], _: np.random.Generator) -> torch.Tensor:
        return reader.loss(head.states(network.vectors(inputs(rows))).flatten(1), torch.tensor(rows))

    network.train()
    parameters = [*trained, *reader.parameters()]
    return descend(loss, parameters, words.described, epochs, _BASE_BATCH, learning_rate, seed, on_epoch)


class RunningStandard(nn.Module):
    """Zero mean and unit deviation by what was seen so far while training; no gradient through the statistics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.steps: torch.Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,D] -> [B,D]."""
        if self.training:
            with torch.no_grad():
                self.steps += 1
                share = (1.0 / self.steps).clamp(min=0.01)
                self.mean.lerp_(x.mean(dim=0), share)
                self.variance.lerp_((x - self.mean).square().mean(dim=0), share)
        return (x - self.mean) / (self.variance.sqrt() + 1e-4)


class WordReader(nn.Module):
    """Log-odds of a description's words by a linear map of a state; not part of any model."""

    def __init__(self, width: int, words: Words) -> None:
        super().__init__()
        self.level, self.map = RunningStandard(width), nn.Linear(width, len(words.ids))
        with torch.no_grad():
            nn.init.zeros_(self.map.weight)
            self.map.bias.copy_(words.log_odds)
        # bool on the CPU, a batch of it goes to the device: a float table of a million videos would fill a card
        self.words = words
        self.per_row = float(words.occurrence[words.described].sum(dim=1).float().mean())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B,D] -> [B,V]."""
        logits: torch.Tensor = self.map(self.level(states.float()).to(self.map.weight.dtype))
        return logits

    def loss(self, states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats per described word; ``rows`` int64 [B] are the states' rows of the words."""
        occurrence = self.words.occurrence[rows.cpu()].to(states.device).float()
        described = occurrence.any(dim=1)
        total = binary_cross_entropy_with_logits(self(states)[described], occurrence[described], reduction="sum")
        return total / (self.per_row * len(rows))


@contextmanager
def watched_state(network: MultimodalLLM) -> Iterator[list[torch.Tensor]]:
    """Within the block, the list holds H (after its norm) of the network's last forward pass."""
    states: list[torch.Tensor] = []

    def keep(_module: nn.Module, _given: object, state: torch.Tensor) -> None:
        states[:] = [state]

    hook = network.norm.register_forward_hook(keep)
    try:
        yield states
    finally:
        hook.remove()
