"""Alignment warm-up: teach a new projector to name what it sees, by a language-model loss on short descriptions.

LLaVA-OneVision comes with an aligned projector (Li et al. 2024, stage 1 of the LLaVA recipe); presets built from parts
that never met do not. Here the decoder continues the prompt ``[H_f; X_t]`` with the words of a description, and only
these words are scored, with the tied embedding as output layer. The classifier's own input stays as it is: H is taken
at the prompt's last token, which does not see the description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from coefvq.config import Alignment
from coefvq.errors import DataError, ModelError
from coefvq.files import atomic_path, read_json, sha256_json, write_json
from coefvq.models.aligned import trained_parts
from coefvq.models.language import positions_of
from coefvq.models.last_position import ASK
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.text import TextEncoder
from coefvq.training.descent import Report, descend

_WEIGHTS, _FACTS = "warmup.safetensors", "warmup.json"
_FORMAT = 1
_IGNORED = -100
_SPREAD = 2.0

Batch = dict[str, torch.Tensor]
#: row numbers -> the network's inputs for these rows, without labels
Inputs = Callable[[Sequence[int]], Batch]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that descriptions use, sorted int64 [V]: the softmax runs over these. ``scale`` multiplies logits.

    The states of a decoder that was cut off below its last layer do not fit the output embedding yet: with the first 12
    layers of SmolLM2 the loss starts at 35 nats per token and an epoch goes by before it tells anything apart.
    """

    ids: torch.Tensor
    scale: float = 1.0


class Describing(nn.Module):
    """A decoder that also reads descriptions: what the caller sees is the prompt's part, as without them.

    ``targets`` int64 [B,T] are set before a forward pass and used up by it; -100 fills short rows on the right.
    ``loss`` is then the mean cross-entropy over the description's tokens, ``spread`` the deviation of its logits.
    """

    def __init__(self, decoder: Any, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.decoder, self.vocabulary = decoder, vocabulary
        self.spread: torch.Tensor | None = None
        self.targets: torch.Tensor | None = None
        self.loss: torch.Tensor | None = None

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's own, which is the output layer too."""
        embedding: nn.Module = self.decoder.get_input_embeddings()
        return embedding

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        """inputs_embeds [B,L,D], left-padded attention_mask [B,L] -> the decoder's output, states [B,L,D]."""
        targets, self.targets = self.targets, None
        if targets is None:
            return self.decoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        table: Any = self.get_input_embeddings()
        targets = targets.to(inputs_embeds.device)
        said = targets != _IGNORED
        words = table(targets.clamp(min=0)).to(inputs_embeds.dtype)
        mask = torch.cat([attention_mask, said.to(attention_mask.dtype)], dim=1)
        kwargs.pop(ASK, None)  # every word's state is read, not the last one's alone
        output = self.decoder(
            inputs_embeds=torch.cat([inputs_embeds, words], dim=1),
            attention_mask=mask,
            **kwargs | {"position_ids": positions_of(mask)},
        )
        length = inputs_embeds.shape[1]
        # the state before a word predicts it; the prompt's last state predicts the first
        before = output.last_hidden_state[:, length - 1 : -1][said]
        ids = self.vocabulary.ids.to(targets.device)
        logits = nn.functional.linear(before, table.weight[ids]).float() * self.vocabulary.scale
        self.spread = logits.detach().std(dim=1).mean()
        self.loss = nn.functional.cross_entropy(logits, torch.searchsorted(ids, targets[said]))
        output.last_hidden_state = output.last_hidden_state[:, :length]
        return output


@contextmanager
def describing(network: MultimodalLLM, vocabulary: Vocabulary) -> Iterator[Describing]:
    """Let the network's decoder read descriptions within the block; afterwards the network is as it was.

    Raises:
        ModelError: the decoder's output layer is not its embedding, so there is nothing to predict words with.
    """
    plain = network.language.decoder
    if not hasattr(plain.get_input_embeddings(), "weight"):
        raise ModelError("alignment warm-up: the decoder has no token embedding; use a preset with a decoder of words")
    wrapped = Describing(plain, vocabulary)
    network.language.decoder = wrapped
    try:
        yield wrapped
    finally:
        network.language.decoder = plain


def description_targets(text: TextEncoder, descriptions: Sequence[str], max_tokens: int) -> torch.Tensor:
    """Descriptions and an end token as int64 [B,T], -100 to the right; a description without words stays out.

    Raises:
        DataError: none has any words.
    """
    encoded = text.tokenizer.encode_batch(list(descriptions), add_special_tokens=False)
    rows = [[*item.ids[:max_tokens], text.end_id] if item.ids else [] for item in encoded]
    length = max(map(len, rows), default=0)
    if length == 0:
        raise DataError("alignment warm-up: every description of a batch is empty; leave such videos out")
    return torch.tensor([row + [_IGNORED] * (length - len(row)) for row in rows])


def description_vocabulary(
    network: MultimodalLLM, text: TextEncoder, inputs: Inputs, descriptions: Sequence[Sequence[str]], max_tokens: int
) -> Vocabulary:
    """Tokens of all descriptions, and the scale at which the untrained network's logits deviate by at most 2.

    Raises:
        DataError: no row has a description.
    """
    described = _described(descriptions)
    options = [option for row in described for option in descriptions[row] if option]
    targets = description_targets(text, sorted(set(options)), max_tokens)
    plain = Vocabulary(torch.unique(targets[targets != _IGNORED]))
    rows = described[:16]
    with describing(network, plain) as decoder, torch.inference_mode():
        network.eval()
        decoder.targets = description_targets(text, [next(filter(None, descriptions[row])) for row in rows], max_tokens)
        network(**inputs(rows))
    spread = 0.0 if decoder.spread is None else float(decoder.spread)
    return Vocabulary(plain.ids, min(1.0, _SPREAD / max(spread, _SPREAD)))


def warm_up(
    network: MultimodalLLM,
    text: TextEncoder,
    inputs: Inputs,
    descriptions: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    params: Alignment,
    seed: int,
    on_epoch: Report = lambda _: None,
    bf16: bool = False,
) -> list[dict[str, float]]:
    """Train projector and adapters in place to describe; rows (epoch, loss) in nats per token.

    ``descriptions[i]`` are one or more of row i; each epoch takes one of them. Rows without any are skipped.
    ``bf16`` multiplies in bfloat16 where the hardware has it natively; weights and gradients stay fp32.

    Raises:
        DataError: no row has a description.
        ModelError: nothing of the network can train, or the loss is not finite.
    """
    described = _described(descriptions)
    trained = list(trained_parts(network).values())
    if not trained:
        raise ModelError("alignment warm-up: projector and language model are frozen; set alignment.epochs to 0")

    def loss(rows: list[int], random: np.random.Generator) -> torch.Tensor:
        chosen = [_pick(random, descriptions[row]) for row in rows]
        decoder.targets = description_targets(text, chosen, params.max_tokens)
        with torch.autocast(trained[0].device.type, dtype=torch.bfloat16, enabled=bf16):
            network(**inputs(rows))
        if decoder.loss is None:
            raise TypeError("the decoder was not asked for the description")
        return decoder.loss

    network.train()
    size, rate = params.per_device_train_batch_size, params.learning_rate
    with describing(network, vocabulary) as decoder:
        return descend(loss, trained, described, params.epochs, size, rate, seed, on_epoch)


def _described(descriptions: Sequence[Sequence[str]]) -> list[int]:
    rows = [row for row, options in enumerate(descriptions) if any(options)]
    if not rows:
        raise DataError("alignment warm-up: no video has a description; add a column `caption` or set epochs to 0")
    return rows


def _pick(random: np.random.Generator, options: Sequence[str]) -> str:
    usable = [option for option in options if option]
    return usable[int(random.integers(len(usable)))]


@dataclass(frozen=True)
class WarmUpFolder:
    """``<root>/<key>``: what a warm-up trained, and what it was trained with; the key is a hash of the latter."""

    root: Path
    facts: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return self.root / sha256_json([_FORMAT, dict(self.facts)])[:32]

    @property
    def exists(self) -> bool:
        """Whether a complete warm-up of these facts is there."""
        return (self.path / _FACTS).is_file()

    def save(self, network: MultimodalLLM, curve: Sequence[Mapping[str, float]]) -> None:
        """Write the weights, then the facts and the curve, each in one step."""
        from safetensors.torch import save_file

        self.path.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().contiguous().clone() for name, value in trained_parts(network).items()}
        with atomic_path(self.path / _WEIGHTS) as temporary:
            save_file(tensors, temporary)
        write_json(
            self.path / _FACTS, {"format": _FORMAT, "facts": dict(self.facts), "curve": [dict(r) for r in curve]}
        )

    def restore(self, network: MultimodalLLM) -> list[dict[str, float]]:
        """Put the weights into ``network``; returns the curve.

        Raises:
            ModelError: the file is missing, broken or of another network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.path / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{self.path / _WEIGHTS}: not readable ({error}); delete the folder") from error
        expected = trained_parts(network)
        wrong = sorted(set(tensors) ^ set(expected)) or [n for n in expected if expected[n].shape != tensors[n].shape]
        if wrong:
            raise ModelError(f"{self.path / _WEIGHTS}: not of this network ({wrong[0]}); delete the folder")
        with torch.no_grad():
            for name, parameter in expected.items():
                parameter.copy_(tensors[name])
        remedy = "delete the folder"
        curve = read_json(self.path / _FACTS, remedy=remedy, error=ModelError).get("curve")
        if not isinstance(curve, list):
            raise ModelError(f"{self.path / _FACTS}: curve: expected a list; {remedy}")
        return curve
