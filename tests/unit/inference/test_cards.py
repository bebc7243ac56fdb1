"""Several GPUs: each process sees its own, and what they score is what one would have scored."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from coefvq.compute.cards import card_pool, visible_cards
from coefvq.config import Predict
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import ModelError
from coefvq.inference import NOTHING, load_for_scoring, score_batches
from coefvq.inference.cards import score_on_cards
from coefvq.models.classifier import build
from coefvq.models.model_config import ModelConfig
from coefvq.models.text import train_text_encoder
from coefvq.records import VideoInput
from tests.unit.counting_store import MEDIA
from tests.unit.media_files import Track, write_tracks

PREDICT = Predict(batch_size=2, dtype="float32", savings="exact", approximate=NOTHING)


def own_card(_: int) -> tuple[int, str]:
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_process_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7f,5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cards = visible_cards()
    assert cards == ("2", "GPU-7f", "5")
    with card_pool(cards[:2]) as pool:
        answers = set(pool.map(own_card, range(20)))
    assert len(dict(answers)) == len(answers) <= 2  # a process never changes its card
    assert {card for _, card in answers} <= {"2", "GPU-7f"}
    monkeypatch.setenv("LOCAL_RANK", "1")  # a rank leaves the others' cards alone
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert visible_cards() == ("1",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        issues=("icd", "ucc"), kind="mllm", preset="tiny", architecture="mllm", media=MEDIA, text=True,
        lora_rank=2, lora_alpha=4,
    )  # fmt: skip
    build(config, train_text_encoder(["a lovely day"] * 20, 512, 64)).save(tmp_path / "mllm")
    return tmp_path / "mllm"


@pytest.mark.long
def test_scores_of_two_cards_are_those_of_one(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    videos = [
        VideoInput(f"v{n}", write_tracks(tmp_path / f"{n}.mp4", Track("mpeg4", (40 * n, 90, 9))), "a lovely " * (n % 3))
        for n in range(5)
    ]
    counted: list[int] = []
    with_bad = [*videos, VideoInput("bad", tmp_path / "none.mp4", "a day")]
    found, failed = score_on_cards(("0", "1"), folder, with_bad, PREDICT, DEFAULT_LIMITS, 1, counted.append)
    model, store = load_for_scoring(folder, PREDICT), ClipStore(tmp_path / "cache", MEDIA, DEFAULT_LIMITS)
    local = [score_batches(model, videos, store, 2, issue=issue) for issue in ("icd", "ucc")]
    assert pytest.approx(np.array(local), abs=1e-6) == found[:5].T
    assert list(failed) == [5]
    assert np.isnan(found[5]).all()
    assert sum(counted) == 6
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"model\.safetensors: does not fit"):
        score_on_cards(("0", "1"), folder, videos, PREDICT, DEFAULT_LIMITS, 0)
