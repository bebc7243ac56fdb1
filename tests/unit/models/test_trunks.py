"""MLLMs that differ behind H alone: held once, H computed once per video, each with its own answer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from coefvq.config import Lora, MediaSpec, MLLMParams
from coefvq.data.media.decode import Clip
from coefvq.errors import ModelError
from coefvq.inference import load_for_scoring
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import Example
from coefvq.models.language import LanguageBranch
from coefvq.models.model_config import mllm_config
from coefvq.models.shared import TowerPool
from coefvq.models.text import train_text_encoder
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
TITLES = ["what a day", "a title that is longer than what the others have", "", "otro"]
Fusion = Literal["late", "early", "none"]


def mllm(issue: str, fusion: Fusion = "early") -> Classifier:
    """Adapters as they are after some training; the head is the issue's."""
    params = MLLMParams(
        preset="tiny",
        fusion=fusion,
        text=True,
        audio=True,
        motion=False,
        lora=Lora(rank=4, alpha=8, dropout=0.0),
        training=training_settings(),
    )
    torch.manual_seed(0)
    made = build(mllm_config(issue, params, MEDIA), train_text_encoder(["what a day", "otro"] * 9, 2048, 16))
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    torch.manual_seed(len(issue) + ord(issue[0]))
    torch.nn.init.normal_(made.network.head.weight)
    torch.nn.init.normal_(made.network.norm.bias)
    return made


def logits(model: Classifier, chosen: list[int]) -> torch.Tensor:
    """Of four videos with titles of different lengths, so that padding differs between batches."""
    examples = []
    for number, title in enumerate(TITLES):
        random = np.random.default_rng(number)
        frames = random.integers(0, 255, (2, 3, 64, 64)).astype(np.uint8)
        sound = random.integers(-900, 900, 16_000).astype(np.int16)
        examples.append(Example(Clip(frames, sound), title, None))
    with torch.inference_mode():
        answer: torch.Tensor = model.network(**model.collator([examples[number] for number in chosen]))
    return answer


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many videos a language model has read."""
    counter, forward = Counter[str](), LanguageBranch.forward

    def counted(self: LanguageBranch, visual: torch.Tensor, *given: Any) -> torch.Tensor:
        counter["read"] += len(visual)
        return forward(self, visual, *given)

    monkeypatch.setattr(LanguageBranch, "forward", counted)
    return counter


@pytest.mark.parametrize("fusion", ["late", "early", "none"])
def test_one_trunk_serves_two_issues(fusion: Fusion, tmp_path: Path, rows: Counter[str]) -> None:
    for issue in ("icd", "ucc"):
        mllm(issue, fusion).save(tmp_path / issue)
    icd, ucc = (logits(load_for_scoring(tmp_path / issue), [0, 1, 2, 3]) for issue in ("icd", "ucc"))
    assert (icd - ucc).abs().max() > 0.1
    pool = TowerPool()
    first, second = (load_for_scoring(tmp_path / issue, towers=pool) for issue in ("icd", "ucc"))
    assert (first.config.issues, second.config.issues) == (("icd",), ("ucc",))
    assert first.network.language is second.network.language
    rows.clear()
    with pool.memo.group():
        assert torch.allclose(logits(first, [0, 1]), icd[[0, 1]], atol=1e-5)
        assert rows["read"] == 2
        assert torch.allclose(logits(second, [3, 2, 1, 0]), ucc[[3, 2, 1, 0]], atol=1e-5)
        assert rows["read"] == 4
        assert torch.allclose(logits(first, [2, 3]), icd[[2, 3]], atol=1e-5)
        assert rows["read"] == 4
    assert torch.allclose(logits(second, [1]), ucc[[1]], atol=1e-5)
    assert rows["read"] == 5, "outside of a group nothing is kept"


def test_the_same_pixels_under_another_title_are_another_video(tmp_path: Path, rows: Counter[str]) -> None:
    for issue in ("icd", "ucc"):
        mllm(issue).save(tmp_path / issue)
    pool = TowerPool()
    model, _ = (load_for_scoring(tmp_path / issue, towers=pool) for issue in ("icd", "ucc"))
    clip = Clip(np.full((2, 3, 64, 64), 7, np.uint8), np.zeros(16_000, np.int16))
    loud = Clip(clip.frames, np.full(16_000, 900, np.int16))
    shown = [Example(clip, "one", None), Example(clip, "two", None), Example(loud, "one", None)]
    rows.clear()
    with torch.inference_mode(), pool.memo.group():
        model.network(**model.collator([*shown, shown[0]]))
    assert rows["read"] == 3


def test_other_adapters_are_another_trunk(tmp_path: Path) -> None:
    for issue in ("icd", "ucc"):
        mllm(issue).save(tmp_path / issue)
    path = tmp_path / "ucc" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "lora_B" in name)
    save_file({**weights, name: weights[name] * 1.01}, path)
    alone = logits(load_for_scoring(tmp_path / "ucc"), [0, 1])
    pool = TowerPool()
    first, second = (load_for_scoring(tmp_path / issue, towers=pool) for issue in ("icd", "ucc"))
    assert first.network.language is not second.network.language
    with pool.memo.group():
        logits(first, [0, 1])
        assert torch.allclose(logits(second, [0, 1]), alone, atol=1e-5)


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for issue in ("icd", "ucc"):
        mllm(issue).save(tmp_path / issue)
    path = tmp_path / "ucc" / "model.safetensors"
    weights = load_file(path)
    pool = TowerPool()
    load_for_scoring(tmp_path / "icd", towers=pool)
    for wrong in ({"head.weight": torch.zeros(3, 5)}, {"head.weight": None}):
        save_file({name: value for name, value in {**weights, **wrong}.items() if value is not None}, path)
        told = r"model\.safetensors: does not fit config\.json .*head.*train it again"
        for towers in (pool, None):  # on the trunk that is held, and as a whole
            with pytest.raises(ModelError, match=told):
                load_for_scoring(tmp_path / "ucc", towers=towers)
