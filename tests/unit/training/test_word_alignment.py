"""Projectors towards words, on the miniature of `starter`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coefvq.config import PARAMS_FILE, Alignment, load_params
from coefvq.errors import DataError, ModelError
from coefvq.models.aligned import trained_parts
from coefvq.models.assembly import freeze_module
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.classifier import build
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import mllm_config
from coefvq.models.text import TextEncoder, train_text_encoder
from coefvq.records import VideoInput
from coefvq.training.alignment import warm_up_facts
from coefvq.training.losses import ClassificationLoss, LossSpec
from coefvq.training.noise import FeatureNoise
from coefvq.training.objective import WithDescriptions, WithLoss
from coefvq.training.warmup import Batch
from coefvq.training.word_alignment import align_projectors, description_words, teach_base, teach_state, watched_state
from tests.described_clips import DESCRIPTIONS, MEDIA, WORDS, batch, feed, network, text
from tests.unit.frozen_models import frozen_model

__all__ = ["batch", "text"]


def aligned(made: MultimodalLLM, text: TextEncoder, batch: Batch, epochs: int = 100) -> list[dict[str, float]]:
    return align_projectors(made, feed(batch), description_words(text, DESCRIPTIONS), epochs, 1e-2, 0)


def test_words_are_those_of_any_of_the_descriptions(text: TextEncoder) -> None:
    found = description_words(text, [(WORDS[0], WORDS[1]), (WORDS[0],), ()])
    wanted = [set(text.tokenizer.encode(words, add_special_tokens=False).ids) for words in WORDS]
    rows = [{int(i) for i in found.ids[row]} for row in found.occurrence]
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
    red, blue = words.occurrence[0] & ~words.occurrence[1], words.occurrence[1] & ~words.occurrence[0]
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


def test_h_comes_to_tell_the_words_and_the_head_waits(text: TextEncoder, batch: Batch) -> None:
    words = description_words(text, DESCRIPTIONS)
    one, other, before = network(text), network(text), network(text)
    curves = [teach_state(made, feed(batch), words, 40, 4, 1e-2, 0) for made in (one, other)]
    assert curves[0] == curves[1]
    assert curves[0][-1]["loss"] < 0.5 * curves[0][0]["loss"]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(one.head.weight, before.head.weight)
    assert not one.norm._forward_hooks


def test_a_network_that_is_frozen_cannot_be_taught(text: TextEncoder, batch: Batch) -> None:
    made = network(text).requires_grad_(False)
    with pytest.raises(ModelError, match=r"alignment\.epochs to 0"):
        teach_state(made, feed(batch), description_words(text, DESCRIPTIONS), 1, 4, 1e-2, 0)


def test_without_any_description_it_is_said(text: TextEncoder) -> None:
    with pytest.raises(DataError, match="no video has a description"):
        description_words(text, [(), ("",)])


def test_descriptions_weigh_in_training_only(text: TextEncoder, batch: Batch) -> None:
    made = network(text)
    labelled = WithLoss(made, ClassificationLoss(LossSpec(), torch.full((1, 2), 0.5)))
    both = WithDescriptions(labelled, description_words(text, DESCRIPTIONS), 2.0)
    labels, index = torch.tensor([0, 1] * 4), torch.arange(8)
    made.norm.eval()
    both.reader.level.eval()  # its statistics would move between the two calls
    both.training = True
    with watched_state(made) as seen, torch.no_grad():
        plain = labelled(labels, **batch)["loss"]
        told = both.reader.loss(seen[-1], index)
        assert both(labels, index, **batch)["loss"].item() == pytest.approx((plain + 2.0 * told).item(), rel=1e-5)
        both.eval()
        assert both(labels, index, **batch)["loss"].item() == pytest.approx(labelled(labels, **batch)["loss"].item())


def test_issues_with_equal_settings_share_a_warm_up() -> None:
    params = load_params(Path(PARAMS_FILE))
    settings = Alignment(epochs=1, per_device_train_batch_size=4, learning_rate=1e-3, max_tokens=8)
    found = []
    for issue in ("icd", "ucc"):
        chosen = params.mllm["ucc"].model_copy(update={"alignment": settings})
        made = build(mllm_config(issue, chosen, MEDIA), train_text_encoder(["a b"], 512, 8))
        found.append(
            warm_up_facts(made, settings, 7, False, FeatureNoise(), [VideoInput("v", Path("v"), sha256="0")], [("a",)])
        )
    assert found[0] == found[1]


def test_the_layers_of_a_base_come_to_tell_the_words(text: TextEncoder) -> None:
    made, other = frozen_model("attention").network, frozen_model("attention").network
    assert isinstance(made, AttentionClassifier)
    assert isinstance(other, AttentionClassifier)
    generator = torch.Generator().manual_seed(0)
    rows = {
        "vision_features": torch.randn(8, 5, made.frames.vector_size, generator=generator),
        "text_features": torch.randn(8, made.text.output_size, generator=generator),
        "audio_features": torch.randn(8, made.audio.output_size, generator=generator),  # type: ignore[union-attr]
    }
    rows["audio_features"][::2] += 3.0  # heard alone
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    words = description_words(text, DESCRIPTIONS)
    curves = []
    for one in (made, other):
        torch.manual_seed(3)  # of noise and dropout; the command seeds before it builds
        curves.append(teach_base(one, feed(rows), words, 60, 1e-2, 0))
    curve, again = curves
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert curve == again
    after = made.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in other.state_dict().items())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {f"heads.0.{name}" for name in trained_parts(made)}
