"""A card that is too small, ranks that do not fit together, and a card that fails: one line each."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from coefvq.config import Lora, MediaSpec, MLLMParams
from coefvq.errors import ModelError, TrainingError
from coefvq.models.model_config import mllm_config
from coefvq.training import ranks, room
from coefvq.training.card_errors import card_errors
from coefvq.training.job import TrainingJob
from coefvq.training.loop import seed_everything
from coefvq.training.room import check_room
from tests.settings import training_settings

MEDIA = MediaSpec(frames=8, frame_size=384, audio_seconds=30.0)


def job(batch: int, checkpointing: bool) -> TrainingJob:
    training = training_settings(per_device_train_batch_size=batch, activation_checkpointing=checkpointing)
    params = MLLMParams(
        preset="onevision-0.5b", fusion="late", text=True, audio=True, motion=False,
        lora=Lora(rank=32, alpha=64, dropout=0.0), training=training,
    )  # fmt: skip
    return TrainingJob(mllm_config("ucc", params, MEDIA), training, 0.0, {})


def test_a_card_that_is_too_small_is_refused_before_anything_is_loaded() -> None:
    check_room(job(4, True), 24.0, 1)
    with pytest.raises(ModelError, match=r"^mllm of ucc: preset onevision-0\.5b with 4096 videos per rank needs \d+"):
        check_room(job(4096, True), 24.0, 1)
    with pytest.raises(ModelError, match=r"per_device_train_batch_size lower or activation_checkpointing: true$"):
        check_room(job(8, False), 12.0, 1)
    with pytest.raises(ModelError, match=r"this card has 1\.0, .*take a larger card, or recipe onevision-0\.5b$"):
        check_room(job(1, True), 1.0, 1)


def test_the_memory_of_the_rank_s_own_card_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[TrainingJob, float, int]] = []
    monkeypatch.setattr(room, "check_room", lambda *given: compared.append(given))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    cards = {0: 80 * 2**30, 1: 6 * 2**30}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at: SimpleNamespace(total_memory=cards[at]))
    monkeypatch.setenv("WORLD_SIZE", "2")
    wanted = job(64, True)
    room.check_card(wanted)
    assert compared == [(wanted, 6.0, 2)]


@pytest.fixture
def _second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_second_of_two")
def test_a_machine_that_lost_a_card_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match=r"^rank 1 on \S+ is number 1 there, and 1 GPUs answer; start fewer ranks"):
        ranks.connect()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ranks, "_has_cards", lambda _: True)
    with pytest.raises(TrainingError, match=r"^rank 1 on \S+: its GPUs do not answer; see nvidia-smi there"):
        ranks.connect()
    monkeypatch.undo()
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert ranks._has_cards(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not ranks._has_cards(tmp_path)


@pytest.mark.usefixtures("_second_of_two")
def test_ranks_with_other_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_text_of_first", lambda *_: "python=3.11.7 torch=2.12.0")
    ranks.check_versions({"python": "3.11.7", "torch": "2.12.0"}, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"^rank 1 on \S+ has torch=2\.13\.0 \(rank 0: torch=2\.12\.0\); install"):
        ranks.check_versions({"python": "3.11.7", "torch": "2.13.0"}, torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            r"^rank 0: the card is full \(CUDA out.*halve per_device",
        ),
        (
            torch.AcceleratorError("CUDA error: lost\nmore"),
            r"^rank 0: the card failed \(CUDA error: lost\).*checkpoint$",
        ),
    ],
)
def test_a_card_that_fails_ends_the_training_in_one_line(error: Exception, message: str) -> None:
    with pytest.raises(TrainingError, match=message), card_errors():
        raise error


def test_repeatable_products_are_asked_of_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seed_everything(1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
