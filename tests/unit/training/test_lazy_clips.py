"""Clips that loader processes decode while a training reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import DataError
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import VideoDataset
from coefvq.models.model_config import ModelConfig
from coefvq.records import VideoInput
from coefvq.training.loop import FitData, FitPlan, fit, seed_everything
from tests.settings import training_settings
from tests.unit.counting_store import MEDIA
from tests.unit.media_files import Track, write_tracks

COUNT = 6


def model() -> Classifier:
    seed_everything(3)
    config = ModelConfig(issues=("icd",), kind="base", preset="tiny", architecture="frames", media=MEDIA)
    return build(config, None)


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoInput]:
    colours = [(40 * n, 255 - 40 * n, 90) for n in range(COUNT)]
    return [
        VideoInput(f"v{n}", write_tracks(tmp_path / f"{n}.mp4", Track("mpeg4", colour, range(0, 500, 100))))
        for n, colour in enumerate(colours)
    ]


def trained(
    videos: list[VideoInput], cache: Path, loaders: int, share: float | None
) -> tuple[dict[str, torch.Tensor], ClipStore]:
    store, classifier = ClipStore(cache, MEDIA, DEFAULT_LIMITS), model()
    labels = [n % 2 for n in range(len(videos))]
    val = VideoDataset(videos[:2], store, labels[:2])
    store.fill(videos[:2], 1)
    plan = FitPlan(training_settings(num_train_epochs=2.0), 3, loaders=loaders, max_bad_share=share)
    collator = replace(classifier.collator, raw=True)
    fit(classifier, FitData(VideoDataset(videos, store, labels), val, collator=collator), plan)
    return classifier.network.state_dict(), store


def test_the_weights_are_those_of_clips_that_were_decoded_before(videos: list[VideoInput], tmp_path: Path) -> None:
    whole, _ = trained(videos, tmp_path / "whole", 0, None)
    lazy, store = trained(videos, tmp_path / "lazy", 2, 0.2)
    assert all(torch.equal(lazy[name], tensor) for name, tensor in whole.items())
    assert all(store.holds(store.hashed(video)) for video in videos)


def test_a_row_that_can_be_read_stands_in_for_one_that_cannot(videos: list[VideoInput], tmp_path: Path) -> None:
    videos[3].path.write_bytes(b"no video at all")
    lazy, store = trained(videos, tmp_path / "lazy", 1, 0.2)
    again, _ = trained(videos, tmp_path / "again", 0, 0.2)
    assert all(torch.equal(lazy[name], tensor) for name, tensor in again.items())
    assert [store.holds(store.hashed(video)) for video in videos] == [n != 3 for n in range(COUNT)]


def test_too_many_bad_clips_end_the_training_in_one_line(videos: list[VideoInput], tmp_path: Path) -> None:
    videos[3].path.write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"^1 of 6 clips cannot be read, the last: .*3\.mp4.*max_bad_share \(0\.1\)"):
        trained(videos, tmp_path / "lazy", 1, 0.1)
