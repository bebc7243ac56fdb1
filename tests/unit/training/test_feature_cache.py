"""The cache of frozen towers: exact, shared, bounded, and nothing half-written is ever read."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import StorageError
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import Example, VideoDataset, text_of
from coefvq.records import VideoInput
from coefvq.training.features.build import Built, FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.features.reader import KeptEntries, feature_collator, kept_bytes, reader
from coefvq.training.features.shards import entries_of, read_entry
from coefvq.training.features.store import FeatureStore
from coefvq.training.loop import FitData, FitPlan, FitResult, fit, seed_everything
from tests.unit.frozen_models import KINDS, frozen_model, stored_clips, training

GIB = 2**30


def build_all(
    root: Path, model: Classifier, videos: list[VideoInput], clips: ClipStore, max_bytes: int = GIB
) -> tuple[Built, FeatureStore]:
    store = FeatureStore(root, max_bytes)
    with store.lease() as lease:
        return FeatureBuilder(cached_model(model), store, clips, lease, workers=1).build(videos), store


@pytest.mark.parametrize("kind", KINDS)
def test_same_logits_and_loss_with_and_without(kind: str, tmp_path: Path) -> None:
    model = frozen_model(kind)
    videos, clips = stored_clips(tmp_path / "clips", 6)
    built, _ = build_all(tmp_path / "features", model, videos, clips)
    cached = cached_model(model)
    found, there = reader(cached, built.index, videos)
    assert built.computed == 6
    assert all(there)
    assert not cached.reads_clips
    plain = model.collator([Example(clips.get(v), text_of(v), None) for v in videos])
    given = feature_collator(cached)([Example(None, text_of(v), None, found(v)) for v in videos])
    assert not {"pixel_values", "log_mel"} & given.keys()
    model.network.eval()
    with torch.no_grad():
        expected, got = model.network(**plain), model.network(**given)
    assert (expected - got).abs().max() <= 1e-6
    labels = torch.tensor([0, 1] * 3)
    loss = nn.functional.cross_entropy
    assert abs(loss(expected, labels) - loss(got, labels)) <= 1e-6
    # a test that could not fail: another video must give other logits
    assert (expected[0] - expected[1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["mllm", "multitower", "cnn-mllm"])
def test_training_is_the_same_with_and_without(kind: str, tmp_path: Path) -> None:
    videos, clips = stored_clips(tmp_path / "clips", 12)
    plain = fitted(frozen_model(kind), videos, clips, None)
    cached = fitted(frozen_model(kind), videos, clips, tmp_path / "features")
    for one, other in zip(plain.curve, cached.curve, strict=True):
        assert abs(one["loss"] - other["loss"]) <= 1e-6
        assert abs(one["val_loss"] - other["val_loss"]) <= 1e-6
    assert plain.curve[0]["loss"] != plain.curve[1]["loss"]


def fitted(model: Classifier, videos: list[VideoInput], clips: ClipStore, root: Path | None) -> FitResult:
    seed_everything(3)
    lookup, collator = None, None
    if root is not None:
        built, _ = build_all(root, model, videos, clips)
        cached = cached_model(model)
        lookup, collator = reader(cached, built.index, videos)[0], feature_collator(cached)
    labels = [number % 2 for number in range(len(videos))]
    train = VideoDataset(videos[:8], clips, labels[:8], lookup, reads_clips=lookup is None)
    val = VideoDataset(videos[8:], clips, labels[8:], lookup, reads_clips=lookup is None)
    return fit(model, FitData(train, val, collator=collator), FitPlan(training(), 3))


def tower_of(model: Classifier) -> nn.Module:
    network: Any = model.network
    tower: nn.Module = network.vision.tower if hasattr(network, "vision") else network.frames.encoder
    return tower


@pytest.mark.parametrize("kind", ["frames", "attention", "cnn-mllm"])
def test_frames_alone_are_the_beginning_of_frames_with_motion(kind: str, tmp_path: Path) -> None:
    both, frames = frozen_model(kind), frozen_model(kind, motion=False)
    tower_of(frames).load_state_dict(tower_of(both).state_dict())
    videos, clips = stored_clips(tmp_path / "clips", 6)
    assert build_all(tmp_path / "features", both, videos[:4], clips)[0].computed == 4
    built, _ = build_all(tmp_path / "features", frames, videos, clips)
    assert (built.found, built.computed) == (4, 2)
    cached = cached_model(frames)
    found = reader(cached, built.index, videos)[0]
    plain = frames.collator([Example(clips.get(v), text_of(v), None) for v in videos])
    given = feature_collator(cached)([Example(None, text_of(v), None, found(v)) for v in videos])
    frames.network.eval()
    with torch.no_grad():
        assert (frames.network(**plain) - frames.network(**given)).abs().max() <= 1e-6
    # what saw frames alone is not enough for motion, nor is another tower's
    assert build_all(tmp_path / "features", both, videos, clips)[0].found == 4
    assert build_all(tmp_path / "features", frozen_model(kind, 1, motion=False), videos, clips)[0].found == 0


def test_a_part_that_trains_reads_its_own_input(tmp_path: Path) -> None:
    model = frozen_model("mllm")
    model.network.audio.requires_grad_(True)
    videos, clips = stored_clips(tmp_path / "clips", 3)
    built, _ = build_all(tmp_path / "features", model, videos, clips)
    cached = cached_model(model)
    assert [part.name for part in cached.parts] == ["projected_features"]
    assert cached.reads_clips
    dataset = VideoDataset(videos, clips, None, reader(cached, built.index, videos)[0], cached.reads_clips)
    batch = feature_collator(cached)([dataset[0], dataset[1]])
    assert {"log_mel", "has_audio", "projected_features"} <= batch.keys()
    plain = model.collator([Example(clips.get(v), text_of(v), None) for v in videos[:2]])
    model.network.eval()
    with torch.no_grad():
        assert torch.allclose(model.network(**plain), model.network(**batch), atol=1e-6)


def test_nothing_frozen_nothing_kept() -> None:
    model = frozen_model("frames")
    model.network.requires_grad_(True)
    assert cached_model(model).parts == ()


def test_the_smaller_side_of_the_projector_is_kept() -> None:
    vision = frozen_model("mllm").network.vision
    pixels = torch.rand(2, 4, 3, 64, 64)
    part = vision.frozen_part()
    assert part.name == "projected_features"  # 4 x 4 tokens of 64 in place of 16 x 4 x 64
    assert torch.equal(part.compute(pixels), vision(pixels))
    vision.onevision.config.text_config.hidden_size *= 8
    assert vision.frozen_part().name == "vision_features"
    assert torch.allclose(vision.project(vision.encode(pixels)), vision(pixels), atol=1e-6)


def test_keys_follow_what_decides_the_features() -> None:
    def digests(model: Classifier) -> dict[str, str]:
        return {name: key.digest for name, key in cached_model(model).keys.items()}

    first = digests(frozen_model("multitower"))
    assert first == digests(frozen_model("multitower"))
    other = frozen_model("multitower")
    with torch.no_grad():
        next(other.network.audio.parameters()).view(-1)[0] += 1e-3
    changed = digests(other)
    assert [name for name in first if first[name] != changed[name]] == ["audio_features"]
    media = other.config.media.model_copy(update={"frames": 8})
    frames = digests(replace(frozen_model("multitower"), config=other.config.model_copy(update={"media": media})))
    assert [name for name in first if first[name] != frames[name]] == ["vision_features"]


def test_features_do_not_depend_on_the_other_videos(tmp_path: Path) -> None:
    model = frozen_model("mllm")
    videos, clips = stored_clips(tmp_path / "clips", 5)
    together, _ = build_all(tmp_path / "a", model, videos, clips)
    alone, _ = build_all(tmp_path / "b", model, videos[3:4], clips)
    cached = cached_model(model)
    one, other = (reader(cached, built.index, videos)[0](videos[3]) for built in (together, alone))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    model = frozen_model("multitower")
    videos, clips = stored_clips(tmp_path / "clips", 4)
    build_all(tmp_path / "features", model, videos, clips)
    built, _ = build_all(tmp_path / "features", model, videos, clips)
    assert (built.computed, built.found) == (0, 4)


def test_new_titles_need_no_new_frames(tmp_path: Path) -> None:
    model = frozen_model("multitower")
    videos, clips = stored_clips(tmp_path / "clips", 2)
    first, _ = build_all(tmp_path / "features", model, videos, clips)
    renamed = [replace(video, title="another title") for video in videos]
    (tmp_path / "clips").rename(tmp_path / "gone")  # no clip can be read any more
    built, _ = build_all(tmp_path / "features", model, renamed, clips)
    assert not built.skipped
    assert built.index["vision_features"] == first.index["vision_features"]


def test_a_truncated_shard_is_computed_again(tmp_path: Path) -> None:
    model = frozen_model("frames")
    videos, clips = stored_clips(tmp_path / "clips", 3)
    first, store = build_all(tmp_path / "features", model, videos, clips)
    (shard,) = store.all_shards()
    before = read_entry(shard, videos[0].sha256 or "").clone()
    shard.write_bytes(shard.read_bytes()[:-7])
    built, _ = build_all(tmp_path / "features", model, videos, clips)
    assert built.computed == 3
    assert torch.equal(before, read_entry(shard, videos[0].sha256 or ""))
    assert first.index == built.index


def test_entries_are_read_once_and_the_latest_are_kept(tmp_path: Path) -> None:
    model = frozen_model("frames")
    videos, clips = stored_clips(tmp_path / "clips", 3)
    _, store = build_all(tmp_path / "features", model, videos, clips)
    (shard,) = store.all_shards()
    names = [video.sha256 or "" for video in videos]
    expected = [read_entry(shard, name).clone() for name in names]
    two, none = KeptEntries(2 * expected[0].nbytes), KeptEntries(0)
    for kept in (two, none):
        assert all(torch.equal(kept.read(shard, name), value) for name, value in zip(names, expected, strict=True))
    shard.unlink()
    assert torch.equal(two.read(shard, names[2]), expected[2])
    for kept, gone in ((two, names[0]), (none, names[2])):
        with pytest.raises(StorageError, match="deleted or damaged while in use"):
            kept.read(shard, gone)


@pytest.mark.parametrize(("free", "kept"), [(GIB // 2, GIB // 4), (4 * GIB, GIB // 2), (64 * GIB, GIB)])
def test_an_eighth_of_the_free_memory_keeps_entries(free: int, kept: int) -> None:
    assert kept_bytes(free) == kept


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    model = frozen_model("frames")
    videos, clips = stored_clips(tmp_path / "clips", 3)
    _, store = build_all(tmp_path / "features", model, videos, clips)
    assert store.verify() == []
    (shard,) = store.all_shards()
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert store.verify() == [shard]


def shard_of(store: FeatureStore, size: int, fill: int, age: float) -> Path:
    key = cached_model(frozen_model("frames")).keys["vision_features"]
    with store.lease() as lease:
        path = store.write(key, {f"{fill:064x}": torch.full((size,), fill, dtype=torch.uint8)}, lease)
    os.utime(path, (age, age))
    return path


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 3000)
    now = time.time()
    old, older = shard_of(store, 1000, 1, now - 10), shard_of(store, 1000, 2, now - 20)
    new = shard_of(store, 1000, 3, now)
    assert old.is_file()
    assert not older.is_file()
    assert new.is_file()
    assert store.size() <= 3000


def test_shards_in_use_are_not_evicted(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 2500)
    key = cached_model(frozen_model("frames")).keys["vision_features"]
    used = shard_of(store, 1000, 1, 5.0)
    with store.lease() as lease:
        assert store.lookup(key, [f"{1:064x}"], lease)
        os.utime(used, (5.0, 5.0))  # the oldest of all, and yet in use
        shard_of(store, 1000, 2, 9.0)
        assert used.is_file()
        with pytest.raises(StorageError, match=r"features_gib"):
            shard_of(store, 2000, 3, 9.0)
        assert store.prune(max_bytes=0)[0] == 1
        assert used.is_file()
    assert store.prune(max_bytes=0)[0] == 1
    assert not used.is_file()


def test_prune_removes_left_overs_of_a_killed_writer(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, GIB)
    shard = shard_of(store, 10, 1, 1.0)
    left_over = shard.with_name(f".{shard.name}.abc.tmp")
    left_over.write_bytes(b"half")
    assert entries_of(shard) == [f"{1:064x}"]
    store.prune()
    assert not left_over.exists()
    assert shard.is_file()


def test_a_bad_clip_is_skipped_and_named(tmp_path: Path, clips: Path) -> None:
    good = sorted((clips / "videos").glob("*.mp4"))[:2]
    (tmp_path / "bad.mp4").write_text("x")
    from coefvq.files import sha256_file

    paths = [good[0], tmp_path / "bad.mp4", good[1]]
    videos = [VideoInput(f"v{n}", path, sha256=sha256_file(path)) for n, path in enumerate(paths)]
    model = frozen_model("frames")
    built, _ = build_all(
        tmp_path / "features", model, videos, ClipStore(tmp_path / "c", model.config.media, DEFAULT_LIMITS)
    )
    assert list(built.skipped) == ["v1"]
    assert "bad.mp4" in str(built.skipped["v1"])
    assert built.computed == 2
    assert reader(cached_model(model), built.index, videos)[1] == [True, False, True]
