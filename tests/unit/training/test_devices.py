"""Every tensor of a network and of its objective moves with it; nothing of a batch stays behind on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from coefvq.config import AttentionLayers, Lora, MediaSpec
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.presets import get_preset
from coefvq.training.distilling import Lesson, WithTeacher
from coefvq.training.losses import ClassificationLoss, LossSpec
from coefvq.training.objective import Monitored, WithDescriptions, WithLoss
from coefvq.training.warmup import Describing, Vocabulary
from coefvq.training.word_alignment import Words

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
IDS = TokenIds(pad=0, video=1)
#: on the CPU on purpose: of words one batch at a time goes to the device, and the sum follows the first loss
AT_HOME = ("words.occurrence", "words.ids", "loss_sum")


def make(kind: str) -> Any:
    builder = NetworkBuilder(get_preset("tiny"), MEDIA)
    if kind in ("late", "early", "none"):
        return builder.mllm(IDS, lora=Lora(rank=2, alpha=4, dropout=0.1), fusion=kind)
    if kind == "attention":
        sizes = AttentionLayers(width=8, heads=2, layers=1, dropout=0.0, feature_noise=0.0)
        return builder.attention(IDS, sizes, hears=True)
    return {"frames": builder.frames, "multitower": lambda: builder.multitower(IDS),
            "siglip": lambda: builder.siglip(IDS, hears=True)}[kind]()  # fmt: skip


def objectives(network: Any) -> Iterator[nn.Module]:
    def labelled() -> WithLoss:
        return WithLoss(network, ClassificationLoss(LossSpec("logit_adjusted", 2.0), torch.full((1, 2), 0.5)))

    yield labelled()
    yield WithTeacher(labelled(), Lesson(torch.zeros(3), 1.0))
    if hasattr(network, "language"):
        words = Words(torch.arange(4), torch.ones(3, 4, dtype=torch.bool))
        yield WithDescriptions(labelled(), words, 0.5)


def tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in an attribute, also in containers and dataclasses that are no modules."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from tensors(inner, f"{name}.{number}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}.{key}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type | nn.Module):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name), f"{name}.{field.name}")


@pytest.mark.parametrize("kind", ["late", "early", "none", "attention", "frames", "multitower", "siglip"])
def test_every_tensor_attribute_moves(kind: str) -> None:
    for objective in objectives(make(kind)):
        moved = Monitored(objective, ["a", "b", "c"]).to("meta")
        left = [
            f"{path}: {name}"
            for path, module in moved.named_modules()
            for key, value in vars(module).items()
            if key != "_modules"
            for name, tensor in tensors(value, key)
            if not tensor.is_meta and not name.endswith(AT_HOME)
        ]
        assert not left


@pytest.mark.parametrize("kind", ["late", "attention"])
def test_the_parameters_that_are_listed_once_are_those_of_the_network(kind: str) -> None:
    watched = Monitored(next(objectives(make(kind))), ["a"])
    for place in ("cpu", "meta"):
        watched.to(place)
        for _ in range(2):
            assert list(map(id, watched.parameters())) == list(map(id, nn.Module.parameters(watched)))
        assert {parameter.device.type for parameter in watched.parameters()} == {place}
    assert list(watched.parameters(recurse=False)) == []


class ReachedError(Exception):
    """The decoder was called, so everything before it was on one device."""


class Stop(nn.Module):
    """A decoder on the meta device that ends the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4, device="meta")

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, **given: torch.Tensor) -> Any:
        assert all(tensor.is_meta for tensor in given.values())
        raise ReachedError


def test_descriptions_follow_the_prompt_to_its_device() -> None:
    decoder = Describing(Stop(), Vocabulary(torch.arange(10)))
    decoder.targets = torch.zeros(2, 3, dtype=torch.long)  # as the tokenizer makes them: on the CPU
    prompt = torch.empty(2, 5, 4, device="meta")
    with pytest.raises(ReachedError):
        decoder(inputs_embeds=prompt, attention_mask=torch.ones(2, 5, dtype=torch.long, device="meta"))


def test_words_of_descriptions_do_not_fill_the_device() -> None:
    words = Words(torch.arange(64), torch.ones(1000, 64, dtype=torch.bool))
    network = make("none")
    objective = WithDescriptions(WithLoss(network, ClassificationLoss(LossSpec(), torch.full((1, 2), 0.5))), words, 0.5)
    on_device = [*objective.reader.parameters(), *objective.reader.buffers()]
    assert sum(tensor.nbytes for tensor in on_device) < 1000 * 64
