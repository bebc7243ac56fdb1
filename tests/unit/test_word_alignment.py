"""Projectors towards words, on the miniature of `starter`."""

from __future__ import annotations

import pytest
import torch

from coefvq.data.text import TextEncoder
from coefvq.errors import ModelError
from coefvq.models.assembly import freeze_module
from coefvq.models.mllm import MultimodalLLM
from coefvq.training.warmup import Batch
from coefvq.training.word_alignment import align_projectors, description_words
from tests.described_clips import DESCRIPTIONS, WORDS, batch, feed, network, text

__all__ = ["batch", "text"]


def aligned(made: MultimodalLLM, text: TextEncoder, batch: Batch, epochs: int = 100) -> list[dict[str, float]]:
    return align_projectors(made, feed(batch), description_words(text, DESCRIPTIONS), epochs, 1e-2, 0)


def test_words_are_those_of_any_of_the_descriptions(text: TextEncoder) -> None:
    found = description_words(text, [(WORDS[0], WORDS[1]), (WORDS[0],), ()])
    wanted = [set(text.tokenizer.encode(words, add_special_tokens=False).ids) for words in WORDS]
    rows = [{int(i) for i in found.ids[row]} for row in found.told]
    assert rows == [wanted[0] | wanted[1], wanted[0], set()]
    assert found.ids.tolist() == sorted(wanted[0] | wanted[1])


def test_tokens_come_to_point_at_their_words(text: TextEncoder, batch: Batch) -> None:
    made = network(text)
    curve = aligned(made, text, batch)
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    words = description_words(text, DESCRIPTIONS)
    table = made.language.decoder.get_input_embeddings().weight[words.ids]
    made.eval()
    with torch.inference_mode():
        visual, sound = made.tokens(**batch)
    assert sound is not None
    evidence = (visual.mean(dim=1) + sound) @ table.T
    red, blue = words.told[0] & ~words.told[1], words.told[1] & ~words.told[0]
    towards_red = evidence[:, red].mean(dim=1) - evidence[:, blue].mean(dim=1)
    assert towards_red[::2].min() > towards_red[1::2].max()


def test_only_the_projectors_move_and_the_same_seed_gives_the_same_bits(text: TextEncoder, batch: Batch) -> None:
    one, other, before = network(text), network(text), network(text)
    for made in (one, other):
        aligned(made, text, batch, epochs=2)
    moved = set()
    for (name, mine), theirs, old in zip(one.named_parameters(), other.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        if not torch.equal(mine, old):
            moved.add(name.split(".")[0])
    assert moved == {"vision", "audio_projector"}


def test_a_row_without_words_and_frozen_projectors_are_left_alone(text: TextEncoder, batch: Batch) -> None:
    seen: list[int] = []

    def watched(rows: list[int]) -> Batch:
        seen.extend(rows)
        return {k: v[rows] for k, v in batch.items()}

    some = [row if at != 3 else () for at, row in enumerate(DESCRIPTIONS)]
    align_projectors(network(text), watched, description_words(text, some), 1, 1e-2, 0)  # type: ignore[arg-type]
    assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7]
    made = network(text)
    freeze_module(made.vision)
    assert made.audio_projector is not None
    freeze_module(made.audio_projector)
    assert aligned(made, text, batch) == []


def test_a_loss_that_is_not_finite_stops_and_names_the_rows(text: TextEncoder, batch: Batch) -> None:
    broken = {**batch, "pixel_values": torch.full_like(batch["pixel_values"], float("nan"))}
    with pytest.raises(ModelError, match=r"not finite at rows \["):
        align_projectors(network(text), feed(broken), description_words(text, DESCRIPTIONS), 1, 1e-2, 0)
