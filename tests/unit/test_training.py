"""The loop learns what can be learned, keeps its best epoch, and repeats bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coefvq.cascade.policy import CascadePolicy
from coefvq.config import BaseModelParams, MediaSpec, Training
from coefvq.data.clips import ClipStore
from coefvq.data.dataset import VideoDataset
from coefvq.data.media import Clip
from coefvq.inference import PairScorer, score_batches
from coefvq.models.classifier import Classifier, base_config, build
from coefvq.records import VideoInput
from coefvq.training.loop import FitResult, fit, seed_everything

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)


def training(**changes: float) -> Training:
    values = {"num_train_epochs": 4.0, "learning_rate": 3e-3, "positive_weight": 1.0} | changes
    return Training(
        per_device_train_batch_size=8, weight_decay=0.0, warmup_steps=0, lr_scheduler_type="constant", **values
    )


class BrightAndDark(ClipStore):
    """Clips made on the spot: positives are bright."""

    def get(self, video: VideoInput) -> Clip:
        seed = int(video.video_id)
        random = np.random.default_rng(seed)
        level = 150 if seed % 2 else 60
        frames = np.clip(random.normal(level, 25, (2, 3, 32, 32)), 0, 255).astype(np.uint8)
        return Clip(frames, np.zeros(0, np.int16))


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    return BrightAndDark(tmp_path, MEDIA)


def videos(start: int, stop: int) -> tuple[list[VideoInput], list[int]]:
    numbers = range(start, stop)
    return [VideoInput(str(i), Path(str(i))) for i in numbers], [i % 2 for i in numbers]


def trained(store: ClipStore, settings: Training, seed: int = 1) -> tuple[Classifier, FitResult]:
    seed_everything(seed)
    model = build(
        base_config(
            "icd",
            BaseModelParams(
                preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=settings
            ),
            MEDIA,
        ),
        None,
    )
    train, train_labels = videos(0, 48)
    val, val_labels = videos(100, 124)
    return model, fit(
        model, VideoDataset(train, store, train_labels), VideoDataset(val, store, val_labels), settings, seed
    )


def test_it_learns_and_scores_new_clips(store: ClipStore) -> None:
    model, result = trained(store, training())
    new, labels = videos(200, 230)
    scores = score_batches(model, new, store, batch_size=7)
    assert result.best_average_precision > 0.95
    assert scores[np.array(labels) == 1].min() > scores[np.array(labels) == 0].max()


def test_same_seed_same_weights_bit_by_bit(store: ClipStore) -> None:
    first, _ = trained(store, training(num_train_epochs=2.0))
    second, _ = trained(store, training(num_train_epochs=2.0))
    other, _ = trained(store, training(num_train_epochs=2.0), seed=2)
    weights = [model.network.state_dict() for model in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_best_epoch_is_kept_not_the_last(store: ClipStore) -> None:
    # a learning rate that wrecks the model after it has learned
    model, result = trained(store, training(num_train_epochs=6.0, learning_rate=0.08))
    best = max(result.curve, key=lambda row: row["val_average_precision"])
    assert result.best_epoch == best["epoch"]
    val, labels = videos(100, 124)
    from coefvq.evaluation.metrics import average_precision

    assert average_precision(labels, score_batches(model, val, store)) == pytest.approx(result.best_average_precision)


def pair(store: ClipStore, base_threshold: float, tmp_path: Path) -> PairScorer:
    model, _ = trained(store, training(num_train_epochs=1.0))
    model.save(tmp_path / "m")
    policy = CascadePolicy(
        issue="icd", base_threshold=base_threshold, decision_threshold=0.5, p_base=None, views_trigger=1000
    )
    return PairScorer.from_folders(tmp_path / "m", tmp_path / "m", policy.to_dict(), "icd", "1-abc", tmp_path / "cache")


def test_a_bad_clip_costs_one_row(store: ClipStore, tmp_path: Path, clips: Path) -> None:
    good = sorted((clips / "videos").glob("*.mp4"))[:2]
    (tmp_path / "bad.mp4").write_text("x")
    inputs = [
        VideoInput("a", good[0]),
        VideoInput("bad", tmp_path / "bad.mp4"),
        VideoInput("b", good[1], views=5),
        VideoInput("gone", tmp_path / "gone.mp4"),
    ]
    rows = pair(store, 0.0, tmp_path).score(inputs)
    assert [row.video_id for row in rows] == ["a", "bad", "b", "gone"]
    assert [row.error is None for row in rows] == [True, False, True, False]
    assert rows[0].decided_by == "mllm"
    assert rows[0].base_score == rows[0].mllm_score
    assert rows[1].positive is None


def test_filtered_videos_are_not_sent_on_unless_they_are_watched(store: ClipStore, tmp_path: Path, clips: Path) -> None:
    path = next((clips / "videos").glob("*.mp4"))
    rows = pair(store, 1.0, tmp_path).score(
        [VideoInput("quiet", path, views=999), VideoInput("viral", path, views=1000)]
    )
    assert [(row.decided_by, row.mllm_score is None) for row in rows] == [("base", True), ("mllm", False)]
    assert rows[0].positive is False


def test_no_videos_no_rows(store: ClipStore, tmp_path: Path) -> None:
    assert pair(store, 0.0, tmp_path).score([]) == []
