"""The cost model decides as its arithmetic says, and loading skips what is bad up to the limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coefvq.config import load_params
from coefvq.errors import DataError
from coefvq.files import sha256_file
from coefvq.models.dataset import VideoDataset, ready
from coefvq.records import VideoInput
from coefvq.training import loading
from coefvq.training.features.cost import CachePlan, VideoCost, choose, free_bytes, measure
from coefvq.training.features.keys import cached_model
from coefvq.training.loading import clip_store, opened
from coefvq.training.sampling import LengthGrouped
from coefvq.training.settings import ReadingSettings
from tests.unit.frozen_models import frozen_model, stored_clips

COST = VideoCost(prepare=0.01, compute=0.09, write=0.01, read=0.001, bytes=1000)
PLAN = CachePlan(videos=100, missing=100, passes=3.0, cost=COST, free_bytes=10**6)


def test_three_passes_pay_and_one_does_not() -> None:
    assert PLAN.build_seconds == pytest.approx(11.0)
    assert PLAN.saved_seconds == pytest.approx(30.0 - 11.0 - 0.3)
    assert PLAN.break_even == pytest.approx(11.0 / 9.9)
    assert PLAN.decide("auto")[0]
    assert not replace(PLAN, passes=1.0).decide("auto")[0]
    # unless most of it is there already
    assert replace(PLAN, passes=1.0, missing=10).decide("auto")[0]


def test_slow_disks_and_small_ones_keep_it_off() -> None:
    assert not replace(PLAN, cost=replace(COST, read=0.2)).decide("auto")[0]
    assert replace(PLAN, cost=replace(COST, read=0.2)).break_even == float("inf")
    on, why = replace(PLAN, free_bytes=99_999).decide("auto")
    assert not on
    assert "free" in why
    assert "\n" not in why


def test_on_and_off_are_obeyed() -> None:
    assert replace(PLAN, passes=1.0).decide("on")[0]
    assert not PLAN.decide("off")[0]


def test_free_bytes_is_the_smaller_of_disk_and_limit(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there", 1000, 0) == 1000
    assert 0 <= free_bytes(tmp_path, 2**62, 0) < 2**62


def test_measured_costs_are_those_of_this_model(tmp_path: Path) -> None:
    model = cached_model(frozen_model("mllm"))
    videos, clips = stored_clips(tmp_path, 4)
    costs = measure(model, videos, clips, tmp_path)
    assert costs is not None
    tokens = 4 * 2 * 2 + 1  # four frames of 2 x 2 and the newline
    assert {name: cost.bytes for name, cost in costs.items()} == {
        "projected_features": 4 * tokens * 64,
        "audio_features": 4 * 48,
    }
    assert all(cost.compute > 0 for cost in costs.values())


def test_each_part_is_decided_for_itself_and_the_cheapest_seconds_have_the_disk_first() -> None:
    sound = replace(PLAN, cost=replace(COST, bytes=3_000), free_bytes=400_000)
    sight = replace(PLAN, cost=replace(COST, compute=0.5, bytes=11_000_000), free_bytes=400_000)
    chosen, why = choose({"vision_features": sight, "audio_features": sound}, "auto")
    assert chosen == {"audio_features"}
    assert why.startswith("vision_features off, ")
    assert "; audio_features on: " in why
    both = {"whole": replace(PLAN, free_bytes=150_000), "rest": replace(sound, free_bytes=150_000, missing=40)}
    assert choose(both, "auto")[0] == {"rest"}  # no room for the other, which saves fewer seconds per byte
    assert choose(both, "on")[0] == {"whole", "rest"}
    assert choose(both, "off")[0] == frozenset()


def test_only_the_parts_that_pay_are_taken_from_the_cache(
    settings: ReadingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, _ = stored_clips(tmp_path / "cache", 3)
    model = frozen_model("mllm")
    monkeypatch.setattr(loading, "decide", lambda *_: (frozenset({"audio_features"}), "sound alone"))
    with opened(settings, model, videos, 2, "icd mllm") as inputs:
        batch = ready(inputs.collator([inputs.dataset(videos)[at] for at in range(3)]))
    assert {"audio_features", "pixel_values"} <= batch.keys()
    assert not {"log_mel", "projected_features"} & batch.keys()
    plain = model.collator([VideoDataset(videos, clip_store(settings, model))[at] for at in range(3)])
    with torch.inference_mode():
        expected = model.network.eval()(**plain)
        assert torch.allclose(model.network(**batch), expected, atol=1e-6)


@pytest.fixture
def settings(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadingSettings:
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    return ReadingSettings.of(load_params(repository / "params.yaml"))


def with_one_bad(clips: Path, folder: Path) -> list[VideoInput]:
    good = sorted((clips / "videos").glob("*.mp4"))[:3]
    (folder / "bad.mp4").write_text("x")
    paths = [good[0], folder / "bad.mp4", *good[1:]]
    return [VideoInput(f"v{at}", path, sha256=sha256_file(path)) for at, path in enumerate(paths)]


@pytest.mark.parametrize("features", ["on", "off"])
def test_bad_clips_are_skipped_up_to_the_limit(
    settings: ReadingSettings, clips: Path, tmp_path: Path, features: str, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = with_one_bad(clips, tmp_path)
    model = frozen_model("frames")
    runtime = settings.runtime.model_copy(update={"features": features, "workers": 1})
    lenient = settings.model_copy(
        update={"runtime": runtime, "loading": settings.loading.model_copy(update={"max_bad_share": 0.25})}
    )
    with opened(lenient, model, videos, 2, "icd base") as inputs:
        dataset = inputs.dataset(videos, [0, 1, 0, 1])
        assert inputs.readable(videos) == [0, 2, 3]
        assert dataset.labels == [0, 0, 1]
        batch = inputs.collator([dataset[0], dataset[2]])
        assert ("vision_features" in batch) == (features == "on")
        assert torch.equal(batch["labels"], torch.tensor([0, 1]))
    told = capsys.readouterr().err
    assert "skipped [icd base]: 1 of 4 clips cannot be read" in told
    assert "bad.mp4" in told
    strict = lenient.model_copy(update={"loading": settings.loading})
    with pytest.raises(DataError, match=r"bad\.mp4.*loading\.max_bad_share"), opened(strict, model, videos, 2, "x"):
        pass


def test_nothing_frozen_is_said(
    settings: ReadingSettings, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = frozen_model("frames")
    model.network.requires_grad_(True)
    videos = with_one_bad(clips, tmp_path)[2:]
    with opened(settings, model, videos, 2, "icd base") as inputs:
        assert inputs.features is None
    assert "features [icd base]: off, nothing in this model is frozen" in capsys.readouterr().err


def padding_share(lengths: list[int], order: list[int], batch_size: int) -> float:
    batches = [[lengths[i] for i in order[at : at + batch_size]] for at in range(0, len(order), batch_size)]
    return 1.0 - sum(map(sum, batches)) / sum(max(batch) * len(batch) for batch in batches)


def test_rows_of_like_length_share_a_batch() -> None:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(9, 64, (400,), generator=random).tolist()
    sampler = LengthGrouped(lengths, 8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(400))
    assert first == list(sampler)  # the same epoch again, as a resumed run asks for it
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    assert first != list(LengthGrouped(lengths, 8, seed=4))
    shuffled = torch.randperm(400, generator=random).tolist()
    assert padding_share(lengths, first, 8) < 0.1 < 0.25 < padding_share(lengths, shuffled, 8)
