"""Several issues in one MLLM: a head each, labels that may be missing, folders that hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForVideoClassification

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.errors import CoefVQError, ModelError
from coefvq.inference import EXACT, Scores, head_scores, load_for_scoring, score_batches
from coefvq.models.classifier import Classifier, build, load
from coefvq.models.dataset import Example
from coefvq.models.heads import MISSING_LABEL, head_of, probabilities_of
from coefvq.models.hub import CoefVQConfig, CoefVQForVideoClassification, register
from coefvq.models.memo import Memo
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.shared import TowerPool
from coefvq.models.text import train_text_encoder
from coefvq.records import VideoInput
from coefvq.training.losses import ClassificationLoss, LossSpec
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
ISSUES = ("icd", "ucc")
TRAINING = training_settings()


def classifier(issues: str | tuple[str, ...] = ISSUES) -> Classifier:
    params = MLLMParams(
        preset="tiny",
        fusion="late",
        text=True,
        audio=True,
        motion=False,
        lora=Lora(rank=4, alpha=8, dropout=0.0),
        training=TRAINING,
    )
    torch.manual_seed(0)
    made = build(mllm_config(issues, params, MEDIA), train_text_encoder(["what a day", "otro"] * 9, 2048, 16))
    made.network.eval()
    return made


def batch(model: Classifier, size: int = 3) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (2, 3, 64, 64)).astype(np.uint8) for _ in range(size)]
    return model.collator([Example(Clip(f, np.zeros(0, np.int16)), "what a day", None) for f in frames])


def test_every_issue_has_its_own_head_and_survives_a_folder(tmp_path: Path) -> None:
    model = classifier()
    with torch.inference_mode():
        logits = model.network(**batch(model))
        assert logits.shape == (3, 2, 2)
        model.save(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["issues"] == ["icd", "ucc"]
        again = load(tmp_path)
        assert again.config == model.config
        assert torch.equal(again.network(**batch(again)), logits)
    found = again.probabilities(logits)
    assert found.dtype == torch.float64
    for number, issue in enumerate(ISSUES):
        assert head_of(ISSUES, issue) == number
        assert torch.equal(found[:, number], logits[:, number].double().softmax(1)[:, 1])
    with pytest.raises(ModelError, match="answers for icd, ucc"):
        head_of(ISSUES, None)
    with pytest.raises(ModelError, match="'spam'"):
        head_of(ISSUES, "spam")


def test_one_issue_keeps_its_shape() -> None:
    model = classifier("icd")
    with torch.inference_mode():
        logits = model.network(**batch(model))
    assert logits.shape == (3, 2)
    assert head_of(("icd",), None) == 0
    assert torch.equal(model.probabilities(logits), logits.double().softmax(1)[:, 1:])
    with pytest.raises(ModelError, match="head"):
        probabilities_of(logits, ISSUES)


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return ClassificationLoss(LossSpec(), torch.full((2, 2), 0.5))(logits, labels)


def test_a_missing_label_moves_no_head_and_keeps_every_gradient() -> None:
    model = classifier()
    network = model.network
    loss_of(network(**batch(model)), torch.tensor([[1, MISSING_LABEL]] * 3)).backward()
    assert network.head.weight.grad[:2].any()
    assert not network.head.weight.grad[2:].any()
    network.zero_grad()
    loss = loss_of(network(**batch(model)), torch.full((3, 2), MISSING_LABEL))
    loss.backward()
    assert loss.item() == 0.0
    gradients = [p.grad for p in network.parameters() if p.requires_grad and p is not None]
    assert all(g is None or not g.any() for g in gradients)
    assert network.head.weight.grad is not None


def test_folders_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    # their sound and their new tokens were scaled in another way
    model = classifier("ucc")
    model.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(ModelError, match=r"format_version.*train the model again"):
        load(tmp_path)


@pytest.mark.parametrize("issues", [(), ("icd", "icd"), ("",)])
def test_issues_without_sense_are_refused(issues: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="expected at least one name"):
        classifier(issues)


def test_a_base_model_has_one_issue() -> None:
    params = BaseModelParams(
        preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=TRAINING
    )
    with pytest.raises(ValidationError, match="a base model has one issue"):
        base_config("icd", params, MEDIA).model_validate(
            {**base_config("icd", params, MEDIA).model_dump(), "issues": ISSUES}
        )


def test_transformers_sees_both_heads(tmp_path: Path) -> None:
    register()
    made = classifier()
    model = CoefVQForVideoClassification(CoefVQConfig(**made.config.model_dump()), made)
    model.save_pretrained(tmp_path)
    assert "issues `icd` and `ucc`, a head for each" in (tmp_path / "README.md").read_text()
    again = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert again.config.classifier["issues"] == ISSUES
    labels = torch.tensor([[1, MISSING_LABEL], [0, 1], [MISSING_LABEL, 0]])
    with torch.inference_mode():
        answer = again(**batch(made), labels=labels)
        expected = made.network(**batch(made))
    assert torch.equal(answer.logits, expected)
    assert answer.loss.item() == pytest.approx(loss_of(expected, labels).item())


class _Grey(ClipStore):
    def get(self, video: VideoInput) -> Clip:
        return Clip(np.full((2, 3, 64, 64), int(video.video_id), np.uint8), np.zeros(0, np.int16))


def test_scoring_takes_the_head_of_the_issue(tmp_path: Path) -> None:
    model, store = classifier(), _Grey(tmp_path, MEDIA, DEFAULT_LIMITS)
    videos = [VideoInput(str(number), Path(str(number))) for number in (10, 200)]
    scores = {issue: score_batches(model, videos, store, issue=issue) for issue in ISSUES}
    assert not np.allclose(scores["icd"], scores["ucc"])
    with pytest.raises(ModelError, match="name one of these"):
        score_batches(model, videos, store)


def test_a_video_that_two_issues_ask_about_runs_once_in_a_group(clips: Path, tmp_path: Path) -> None:
    model, store, memo = classifier(), ClipStore(tmp_path, MEDIA, DEFAULT_LIMITS), Memo()
    paths = sorted((clips / "videos").glob("*.mp4"))[:4]
    videos = [store.hashed(VideoInput(path.stem, path, title=path.stem)) for path in paths]
    videos += [replace(videos[0], video_id="same clip, other text", title="another title")]
    ran: list[int] = []
    model.network.register_forward_hook(lambda _, __, logits: ran.append(len(logits)))
    errors: dict[int, CoefVQError] = {}

    def ask(issue: str, chosen: list[VideoInput], kept: Memo | None = memo) -> Scores:
        head = head_of(ISSUES, issue)
        return head_scores(model, chosen, store, errors.__setitem__, memo=kept)[:, head]

    alone = {issue: ask(issue, videos, None) for issue in ISSUES}
    assert ran == [5, 5]
    with memo.group():
        assert np.allclose(ask("icd", videos[:3]), alone["icd"][:3], atol=1e-6)
        assert np.allclose(ask("ucc", videos), alone["ucc"], atol=1e-6)
        assert np.array_equal(ask("icd", videos[:3]), ask("icd", videos)[:3])
        assert ran[2:] == [3, 2]
    assert not memo.answers
    ask("icd", videos[:1])
    assert ran[4:] == [1]
    assert not errors


def test_a_pool_holds_an_mllm_of_several_issues_once(tmp_path: Path) -> None:
    model, pool = classifier(), TowerPool()
    for name in ("a", "b"):
        model.save(tmp_path / name)
    held = load_for_scoring(tmp_path / "a", towers=pool)
    assert load_for_scoring(tmp_path / "b", towers=pool) is held
    assert load_for_scoring(tmp_path / "b", EXACT.model_copy(update={"savings": "none"}), pool) is not held
    assert load_for_scoring(tmp_path / "b") is not held
    torch.nn.init.zeros_(model.network.head.weight)
    model.save(tmp_path / "b")
    assert load_for_scoring(tmp_path / "b", towers=pool) is not held


def test_logits_that_are_not_finite_name_the_video(tmp_path: Path) -> None:
    model, store = classifier("icd"), _Grey(tmp_path, MEDIA, DEFAULT_LIMITS)
    videos = [VideoInput(str(number), Path(str(number))) for number in (10, 200, 30)]
    score_batches(model, videos, store)

    def spoil(_: torch.nn.Module, __: object, features: torch.Tensor) -> torch.Tensor:
        features = features.clone()
        features[1, 0, 0] = torch.nan
        return features

    model.network.vision.register_forward_hook(spoil)
    with pytest.raises(ModelError, match=r"video 200: .* not finite \(1 of 3 videos") as caught:
        score_batches(model, videos, store)
    assert "\n" not in str(caught.value)
