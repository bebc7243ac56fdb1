"""The base that attends to tower vectors: what may not change its answer, what must, and what is saved of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coefvq.config import AttentionLayers, BaseModelParams
from coefvq.inference.settings import ready_for_scoring
from coefvq.models.attention_base import AttentionClassifier, AttentionHead, VectorTokens
from coefvq.models.baselines import FrameClassifier
from coefvq.models.classifier import Classifier, build, load, published_names
from coefvq.models.dataset import VideoDataset
from coefvq.models.model_config import base_config
from coefvq.models.parts import LitePart
from coefvq.models.presets import get_preset
from coefvq.models.shared import TowerPool
from coefvq.models.towers import FrameTower
from coefvq.models.vision import CnnBranch, frame_count, motion_count
from coefvq.training.features.keys import cached_model
from tests.unit.frozen_models import ATTENTION, MEDIA, frozen_model, stored_clips, text_encoder, training

IMAGES = MEDIA.frames + motion_count(MEDIA.frames)


def network_of(classifier: Classifier) -> AttentionClassifier:
    network = classifier.network
    assert isinstance(network, AttentionClassifier)
    return network.eval()


def head_of(network: AttentionClassifier) -> AttentionHead:
    (head,) = network.heads
    assert isinstance(head, AttentionHead)
    return head


def features(network: AttentionClassifier, count: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"vision_features": (IMAGES, network.frames.vector_size), "text_features": (network.text.output_size,)}
    if network.audio is not None:
        sizes["audio_features"] = (network.audio.output_size,)
    return {name: torch.randn(count, *size, generator=generator) for name, size in sizes.items()}


def test_rows_do_not_know_each_other() -> None:
    network = network_of(frozen_model("attention"))
    batch = features(network)
    together = network(**batch)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(network(**{k: v[order] for k, v in batch.items()}), together[order])
    torch.testing.assert_close(network(**{k: v[2:3] for k, v in batch.items()}), together[2:3])


def test_images_are_a_set_of_vectors_with_places() -> None:
    network = network_of(frozen_model("attention"))
    batch = features(network)
    before = network(**batch)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(1))
    moved = batch | {"vision_features": batch["vision_features"][:, order]}
    assert not torch.allclose(network(**moved), before, atol=1e-6)  # a frame's place in time counts
    tokens = head_of(network).tokens["images"]
    assert isinstance(tokens, VectorTokens)
    with torch.no_grad():
        tokens.place.copy_(tokens.place[order])
    torch.testing.assert_close(network(**moved), before)


def test_padding_of_the_text_changes_nothing() -> None:
    network = network_of(frozen_model("attention"))
    batch = features(network, count=2)
    del batch["text_features"]
    encoder = text_encoder()
    short, long = "what a lovely day", "a much longer title, with many words"
    padded = encoder.batch([short, long], 0)
    alone = encoder.batch([short], 0)
    assert alone["input_ids"].shape[1] < padded["input_ids"].shape[1]
    torch.testing.assert_close(
        network(**{k: v[:1] for k, v in batch.items()}, **alone), network(**batch, **padded)[:1], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["vision_features", "text_features", "audio_features"])
def test_each_vector_counts(name: str) -> None:
    network = network_of(frozen_model("attention"))
    batch = features(network)
    changed = batch | {name: batch[name] + 1.0}
    assert not torch.allclose(network(**changed), network(**batch), atol=1e-6)


def test_noise_and_dropout_act_in_training_only() -> None:
    network = network_of(frozen_model("attention"))
    batch = features(network)
    assert torch.equal(network(**batch), network(**batch))
    network.train()
    assert not torch.allclose(network(**batch), network(**batch))
    for part in network.modules():
        if isinstance(part, VectorTokens):
            part.noise = 0.0
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    assert torch.equal(network(**batch), network(**batch))


def test_vectors_are_standardised() -> None:
    network = network_of(frozen_model("attention"))
    batch = features(network)
    before = network(**batch)
    size = network.text.output_size
    network.standardise("text", torch.full((size,), 0.5), torch.full((size,), 2.0))
    moved = batch | {"text_features": 0.5 + 2.0001 * batch["text_features"]}
    torch.testing.assert_close(network(**moved), before, atol=1e-4, rtol=1e-4)


def test_the_score_of_several_heads_is_their_mean_probability() -> None:
    network = network_of(frozen_model("attention", members=3))
    batch = features(network)
    vectors = network.vectors(batch)
    with torch.no_grad():
        each = torch.stack([head(vectors).softmax(dim=-1) for head in network.heads])
        assert not torch.allclose(each[0], each[1], atol=1e-4)
        torch.testing.assert_close(network(**batch).softmax(dim=-1), each.mean(dim=0))
        assert network.train()(**batch).shape == (3 * 5, 2)


def test_a_base_without_sound_has_no_ear() -> None:
    params = BaseModelParams(
        preset="tiny",
        architecture="attention",
        audio=False,
        motion=False,
        freeze_towers=True,
        attention=ATTENTION,
        training=training(),
    )
    made = build(base_config("icd", params, MEDIA), text_encoder())
    assert network_of(made).audio is None
    assert not made.config.hears
    assert set(head_of(network_of(made)).tokens) == {"images", "text"}


@pytest.mark.parametrize("members", [1, 2])
def test_it_is_saved_and_scores_as_before(tmp_path: Path, members: int) -> None:
    videos, store = stored_clips(tmp_path / "clips", 4)
    made = frozen_model("attention", members=members)
    network = network_of(made)
    size = network.frames.vector_size
    network.standardise("images", torch.full((size,), 0.1), torch.full((size,), 0.5))
    batch = made.collator([VideoDataset(videos, store)[at] for at in range(4)])
    before = network(**batch)
    made.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.config == made.config
    assert torch.equal(again.network(**batch), before)
    packed = ready_for_scoring(again)
    torch.testing.assert_close(packed.network(**batch), before, atol=1e-5, rtol=1e-5)


def starter_like() -> Classifier:
    """With the published parts' shapes, on the meta device."""
    params = BaseModelParams(
        preset="starter",
        architecture="attention",
        audio=True,
        motion=True,
        freeze_towers=True,
        attention=ATTENTION,
        training=training(),
    )
    with torch.device("meta"):
        return build(base_config("icd", params, MEDIA), text_encoder(), weights=False)


def test_its_published_towers_are_held_once_for_all_models() -> None:
    pool = TowerPool()
    assert pool.adopt(starter_like()) == 0
    assert len(pool.towers) == 3
    assert pool.adopt(starter_like()) == 3


def test_what_it_learned_is_saved_beside_published_towers() -> None:
    made = starter_like()
    left_out, state = published_names(made), made.network.state_dict()
    kept = {name.removeprefix("heads.0.").partition(".")[0] for name in state if name not in left_out}
    assert kept == {"tokens", "query", "layers", "norm", "out", "bias"}
    assert {"heads.0.tokens.sound.mean", "heads.0.tokens.sound.std"} <= state.keys() - left_out
    assert {name.partition(".")[0] for name in left_out} == {"frames", "text", "audio"}


def test_with_the_same_tower_base_and_mllm_share_cached_images() -> None:
    preset = get_preset("starter")
    assert isinstance(preset.vision, LitePart)
    torch.manual_seed(0)
    tower = FrameTower(preset.tower_frames, 64, motion=True).eval()
    branch = CnnBranch(preset.vision, 8, motion=True).eval()
    branch.tower.load_state_dict(tower.encoder.state_dict())
    for module in (tower, branch.tower):
        module.requires_grad_(False)
    mine, theirs = tower.frozen_part(), branch.frozen_part()
    assert mine is not None
    assert theirs is not None
    assert (mine.name, mine.reads, mine.settings) == (theirs.name, theirs.reads, theirs.settings)
    pixels = torch.rand(2, 4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        vectors = theirs.compute(pixels)
        assert torch.equal(mine.compute(pixels), vectors)
        # the other base models take the means of the same vectors: of four frames, of one motion image
        means = torch.cat([vectors[:, :4].mean(dim=1), vectors[:, 4:].mean(dim=1)], dim=1)
        assert torch.equal(tower(pixels), means)
        base = FrameClassifier(tower)
        assert torch.equal(base(vision_features=vectors), base(pixels))


@pytest.mark.parametrize("frames", range(1, 40))
def test_frames_are_counted_from_all_images(frames: int) -> None:
    assert frame_count(frames + motion_count(frames)) == frames


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"width = 10: expected a multiple of heads \(4\)"):
        AttentionLayers(width=10, heads=4, layers=1, dropout=0.0, feature_noise=0.0)
    with pytest.raises(ValueError, match="architecture attention needs attention"):
        BaseModelParams(
            preset="tiny", architecture="attention", audio=True, motion=False, freeze_towers=True, training=training()
        )


def test_the_cache_key_of_the_images_is_the_towers() -> None:
    keys = [cached_model(frozen_model("attention", seed)).keys["vision_features"].digest for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
