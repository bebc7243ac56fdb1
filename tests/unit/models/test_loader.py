"""Batches made by loader processes: the same values, errors in one line, and clips decoded when first read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.audio import log_mel_spectrogram

from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import Clip
from coefvq.errors import DataError, StorageError
from coefvq.inference import score_dataset
from coefvq.models.dataset import Collator, Example, VideoDataset, ready
from coefvq.models.loader import load_batches, plain_errors
from coefvq.records import VideoInput
from tests.unit.frozen_models import frozen_model, stored_clips
from tests.unit.media_files import Track, write_tracks

SOUND = Collator(text=None, visual_tokens=0, audio_seconds=1.0, raw=True)


def clip(seed: int, samples: int) -> Clip:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    return Clip(frames, random.integers(-20_000, 20_000, samples).astype(np.int16))


def test_values_made_on_the_device_are_those_that_were_made_before() -> None:
    clips = [clip(seed, samples) for seed, samples in enumerate((16_000, 9_000, 0, 20_000))]
    raw = SOUND([Example(one, "", None) for one in clips])
    assert {name: tensor.dtype for name, tensor in raw.items()} == {
        "frames": torch.uint8, "waveform": torch.int16, "has_audio": torch.bool
    }  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a training in bf16 calls it
        given = ready(raw)
    assert torch.equal(given["pixel_values"][1], torch.from_numpy(clips[1].frames).float() / 127.5 - 1.0)
    wave = torch.zeros(16_000)
    wave[:9_000] = torch.from_numpy(clips[1].waveform).float() / 32768.0
    assert torch.equal(given["log_mel"][1], log_mel_spectrogram(wave))
    assert given["has_audio"].tolist() == [True, True, False, True]
    assert all(torch.equal(ready(given)[name], tensor) for name, tensor in given.items())


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_the_same_with_loader_processes(tmp_path: Path, workers: int) -> None:
    videos, store = stored_clips(tmp_path, 11)
    classifier = frozen_model("mllm")
    raw = Collator(**{**vars(classifier.collator), "raw": True})
    expected = score_dataset(classifier, VideoDataset(videos, store), classifier.collator, batch_size=4)
    assert np.array_equal(score_dataset(classifier, VideoDataset(videos, store), raw, 4, loaders=workers), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_process_decodes_what_the_store_lacks(tmp_path: Path, workers: int) -> None:
    _, stored = stored_clips(tmp_path / "other", 1)
    good = [VideoInput(f"v{n}", write_tracks(tmp_path / f"{n}.mp4", Track("mpeg4"))) for n in range(2)]
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    store = ClipStore(tmp_path / "cache", stored.spec, stored.limits)
    dataset = VideoDataset([good[0], VideoInput("bad", tmp_path / "bad.mp4"), good[1]], store)
    [batch] = load_batches(dataset, [[0, 1, 2]], SOUND, workers)
    assert batch.rows == [0, 2]
    assert batch.inputs["frames"].shape[:2] == (2, stored.spec.frames)
    [(row, reason, message)] = batch.unread
    assert (row, reason) == (1, "undecodable")
    assert "bad.mp4" in message


class _Full(VideoDataset):
    def __getitem__(self, index: int) -> Example:
        raise StorageError("/cache: no space left on device; free some space")


class _Killed(VideoDataset):
    def __getitem__(self, index: int) -> Example:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (_Full, StorageError, r"^/cache: no space left on device; free some space$"),
        (_Killed, DataError, r"^a loader process was ended \(DataLoader worker .*set runtime.loader_workers lower$"),
    ],
)
def test_an_error_of_a_loader_process_is_one_line(
    tmp_path: Path, kind: type[VideoDataset], error: type[Exception], message: str
) -> None:
    videos, store = stored_clips(tmp_path, 2)
    with pytest.raises(error, match=message):
        list(load_batches(kind(videos, store), [[0, 1]], SOUND, 1))


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="of the model"), plain_errors(2):
        raise RuntimeError("of the model")
