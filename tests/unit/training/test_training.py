"""The loop learns what can be learned, keeps its best epoch, and repeats bit by bit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coefvq.cascade.audit_sample import AuditSample
from coefvq.cascade.policy import CascadePolicy
from coefvq.config import BaseModelParams, MediaSpec, Training
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.errors import MLLMUnavailableError, TrainingError
from coefvq.inference import MultiIssueScorer, PairScorer, recorded, score_batches, scores
from coefvq.models.classifier import Classifier, build, load
from coefvq.models.dataset import Example, VideoDataset
from coefvq.models.model_config import base_config
from coefvq.records import VideoInput
from coefvq.training.arguments import use_bf16
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.loop import FitData, FitPlan, FitResult, fit, seed_everything
from coefvq.training.parameters import part_of
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)


def training(**changes: Any) -> Training:
    values = {"num_train_epochs": 4.0, "per_device_train_batch_size": 8, "learning_rate": 3e-3}
    return training_settings(**values | changes)


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
    return BrightAndDark(tmp_path, MEDIA, DEFAULT_LIMITS)


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
        model,
        FitData(VideoDataset(train, store, train_labels), VideoDataset(val, store, val_labels)),
        FitPlan(settings, seed),
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, FitResult]:
    """A whole training in fp32; do not change it."""
    return trained(BrightAndDark(tmp_path_factory.mktemp("learned"), MEDIA, DEFAULT_LIMITS), training())


def test_it_learns_and_scores_new_clips(store: ClipStore, learned: tuple[Classifier, FitResult]) -> None:
    model, result = learned
    new, labels = videos(200, 230)
    scores = score_batches(model, new, store, batch_size=7)
    assert result.best_average_precision > 0.95
    assert scores[np.array(labels) == 1].min() > scores[np.array(labels) == 0].max()


def test_same_seed_same_weights_bit_by_bit(store: ClipStore) -> None:
    models = [trained(store, training(num_train_epochs=1.0), seed)[0] for seed in (1, 1, 2)]
    weights = [model.network.state_dict() for model in models]
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


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one epoch, for tests that only score with it; do not change it."""
    folder = tmp_path_factory.mktemp("quick")
    trained(BrightAndDark(folder, MEDIA, DEFAULT_LIMITS), training(num_train_epochs=1.0))[0].save(folder / "m")
    return folder / "m"


def pair(model: Path, base_threshold: float, cache: Path) -> PairScorer:
    policy = CascadePolicy(
        issue="icd", base_threshold=base_threshold, decision_threshold=0.5, p_base=None, views_trigger=1000
    )
    return PairScorer.from_folders(model, model, policy.to_dict(), "icd", "1-abc", recorded({}), cache)


def test_what_is_known_of_a_clip_is_not_computed_again(
    quick: Path, tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cache for `score` and both stages of the stream, whatever the policy; another text is another question."""
    inputs = [VideoInput(path.stem, path, "a title") for path in sorted((clips / "videos").glob("*.mp4"))[:3]]
    scorer = pair(quick, 0.0, tmp_path / "cache")
    before = scorer.score(inputs)
    ran: list[int] = []
    whole = scores.score_dataset

    def counted(model: Any, dataset: VideoDataset, *rest: Any, **named: Any) -> Any:
        ran.append(len(dataset))
        return whole(model, dataset, *rest, **named)

    monkeypatch.setattr(scores, "score_dataset", counted)
    stricter = replace(scorer, policy=scorer.policy.model_copy(update={"decision_threshold": 0.9}))
    assert [row.mllm_score for row in stricter.score(inputs)] == [row.mllm_score for row in before]
    stream = MultiIssueScorer((scorer,))
    assert [row.base_score for row in stream.base(inputs)] == [row.base_score for row in before]
    assert stream.ask({"icd": inputs})["icd"].scores.tolist() == [row.mllm_score for row in before]
    assert sum(ran) == 0
    assert scorer.score([replace(inputs[0], title="another")])[0].error is None
    assert sum(ran) == 1  # base and MLLM are one folder here


def test_a_bad_clip_costs_one_row(quick: Path, tmp_path: Path, clips: Path) -> None:
    good = sorted((clips / "videos").glob("*.mp4"))[:2]
    (tmp_path / "bad.mp4").write_text("x")
    inputs = [
        VideoInput("a", good[0]),
        VideoInput("bad", tmp_path / "bad.mp4"),
        VideoInput("b", good[1], views=5),
        VideoInput("gone", tmp_path / "gone.mp4"),
    ]
    rows = pair(quick, 0.0, tmp_path / "cache").score(inputs)
    assert [row.video_id for row in rows] == ["a", "bad", "b", "gone"]
    assert [row.error is None for row in rows] == [True, False, True, False]
    assert rows[0].decided_by == "mllm"
    assert rows[0].base_score == rows[0].mllm_score
    assert rows[1].positive is None


def test_filtered_videos_are_not_sent_on_unless_they_are_watched(quick: Path, tmp_path: Path, clips: Path) -> None:
    path = next((clips / "videos").glob("*.mp4"))
    rows = pair(quick, 1.0, tmp_path / "cache").score(
        [VideoInput("quiet", path, views=999), VideoInput("viral", path, views=1000)]
    )
    assert [(row.decided_by, row.mllm_score is None) for row in rows] == [("base", True), ("mllm", False)]
    assert rows[0].positive is False


@pytest.mark.parametrize(
    ("rule", "decided_by", "positive"), [("hold", "none", None), ("base_only", "base", True), ("ignore", "none", False)]
)
def test_the_mllm_may_be_down(
    quick: Path, tmp_path: Path, clips: Path, rule: str, decided_by: str, positive: bool | None
) -> None:
    scorer = pair(quick, 0.0, tmp_path / "cache")
    changes = {"mllm_down": rule, "decision_threshold": 1e-9}
    scorer = replace(scorer, mllm=load(quick), policy=scorer.policy.model_copy(update=changes), known=None)

    def silent(*_: object) -> None:
        raise MLLMUnavailableError("connection refused")

    scorer.mllm.network.register_forward_pre_hook(silent)
    (row,) = scorer.score([VideoInput("v", next((clips / "videos").glob("*.mp4")))])
    assert (row.decided_by, row.positive, row.mllm_score) == (decided_by, positive, None)
    assert (row.error == "held until the MLLM answers: connection refused") == (rule == "hold")


def test_an_audit_escalates_what_it_draws_and_logs_the_probability(quick: Path, tmp_path: Path, clips: Path) -> None:
    path = next((clips / "videos").glob("*.mp4"))
    ids = [f"v{i}" for i in range(8)]
    audit = AuditSample(rate=0.5, seed=3)
    drawn = audit.selected(ids)
    assert 0 < drawn.sum() < 8
    scorer = replace(pair(quick, 1.0, tmp_path / "cache"), audit=audit, mllm=load(quick), known=None)
    rows = scorer.score([VideoInput(name, path) for name in ids] + [VideoInput("viral", path, views=5000)])
    assert [row.mllm_score is not None for row in rows] == [*drawn, True]
    assert [row.decided_by for row in rows] == [*("mllm" if one else "base" for one in drawn), "mllm"]
    assert [row.audit_probability for row in rows] == [*[0.5] * 8, None]

    def silent(*_: object) -> None:
        raise MLLMUnavailableError("connection refused")

    scorer.mllm.network.register_forward_pre_hook(silent)
    rows = scorer.score([VideoInput(name, path) for name in ids])
    # nobody could be audited: the base model's answers stand, and no probability is claimed
    assert [(row.decided_by, row.error, row.audit_probability) for row in rows] == [("base", None, None)] * 8


def test_no_videos_no_rows(quick: Path, tmp_path: Path) -> None:
    assert pair(quick, 0.0, tmp_path / "cache").score([]) == []


def fresh(settings: Training, seed: int = 1) -> Classifier:
    seed_everything(seed)
    params = BaseModelParams(
        preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=settings
    )
    return build(base_config("icd", params, MEDIA), None)


def poison(classifier: Classifier, number: str = "3") -> Any:
    def collate(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        batch = classifier.collator(examples)
        for row, example in enumerate(examples):
            if example.text == number:
                batch["pixel_values"][row] = torch.nan
        return batch

    return collate


def titled(start: int, stop: int, store: ClipStore) -> VideoDataset:
    videos = [VideoInput(str(i), Path(str(i)), title=str(i)) for i in range(start, stop)]
    return VideoDataset(videos, store, [i % 2 for i in range(start, stop)])


def test_a_loss_that_is_not_finite_names_the_videos_and_keeps_the_last_checkpoint(
    store: ClipStore, tmp_path: Path
) -> None:
    settings = training(num_train_epochs=2.0)
    folder = CheckpointFolder(tmp_path / "kept", {"preset": "tiny"}, steps=1)
    model = fresh(settings)
    with pytest.raises(TrainingError, match=r"training loss is nan on videos .*\b3\b") as caught:
        fit(
            model,
            FitData(titled(0, 16, store), titled(100, 108, store), collator=poison(model)),
            FitPlan(settings, 1, checkpoints=folder),
        )
    named = str(caught.value).split("videos ")[1].split(";")[0].split(", ")
    assert len(named) == 8
    assert set(named) <= {str(i) for i in range(16)}
    found = folder.newest()
    assert found is None or all(t.isfinite().all() for t in load_file(found.path / "model.safetensors").values())


def test_a_validation_score_that_is_not_finite_names_the_video(store: ClipStore) -> None:
    settings = training(num_train_epochs=1.0)
    model = fresh(settings)
    with pytest.raises(TrainingError, match="no finite score for videos 103;"):
        fit(
            model,
            FitData(titled(0, 16, store), titled(100, 108, store), collator=poison(model, "103")),
            FitPlan(settings, 1),
        )


def test_early_stopping_ends_after_patience(store: ClipStore) -> None:
    # nothing gets better than an average precision of 1
    _, result = trained(store, training(num_train_epochs=9.0, early_stopping_patience=2))
    assert result.best_epoch + 2 == len(result.curve) < 9


def test_the_criterion_decides_which_epoch_is_kept(store: ClipStore) -> None:
    _, by_loss = trained(store, training(num_train_epochs=4.0, learning_rate=0.03, metric_for_best_model="loss"))
    best = min(by_loss.curve, key=lambda row: row["val_loss"])
    assert (by_loss.best_epoch, by_loss.best_criterion) == (best["epoch"], best["val_loss"])
    _, by_recall = trained(store, training(num_train_epochs=2.0, metric_for_best_model="r_at_p90"))
    assert by_recall.best_criterion == max(row["val_r_at_p90"] for row in by_recall.curve)


def test_head_and_projector_learn_at_their_own_rates(store: ClipStore) -> None:
    settings = training(num_train_epochs=1.0, head_learning_rate=1e-12, weight_decay=0.1)
    before = fresh(settings).network.state_dict()
    model = fresh(settings)
    fit(model, FitData(titled(0, 16, store), titled(100, 108, store)), FitPlan(settings, 1))
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.network.named_parameters()}
    assert max(value for name, value in moved.items() if name.startswith("head")) < 1e-7
    assert max(value for name, value in moved.items() if not name.startswith("head")) > 1e-4


def test_what_has_the_rate_0_stays_and_is_saved_as_what_trained(store: ClipStore, tmp_path: Path) -> None:
    settings = training(num_train_epochs=2.0, learning_rate=0.0, head_learning_rate=1e-2, weight_decay=0.1)
    before = fresh(settings).network.state_dict()
    model = fresh(settings)
    trains = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    result = fit(model, FitData(titled(0, 16, store), titled(100, 108, store)), FitPlan(settings, 1))
    parameters = dict(model.network.named_parameters())
    moved = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in trains if part_of(name) == "head"} < trains
    assert result.trainable_parameters == sum(parameters[name].numel() for name in moved)
    assert {name for name in trains if parameters[name].requires_grad} == trains, "held for the training only"
    assert all(parameters[name].grad is None for name in trains - moved)
    model.save(tmp_path)
    assert trains <= set(load_file(tmp_path / "model.safetensors"))


def test_something_must_train() -> None:
    with pytest.raises(ValueError, match="head_learning_rate must be above 0"):
        training(learning_rate=0.0)


def test_parts_by_name() -> None:
    names = {
        "objective.network.head.weight": "head",
        "objective.network.norm.bias": "head",
        "objective.network.vision.projector.linear_1.weight": "projector",
        "objective.network.audio_projector.weight": "projector",
        "objective.network.language.decoder.base_model.model.layers.0.self_attn.q_proj.lora_A.default.weight": "rest",
        "objective.network.vision.encoder.layer_norm.weight": "rest",
    }
    assert {name: part_of(name) for name in names} == names


def test_accumulated_batches_are_stepped_over_once(store: ClipStore) -> None:
    """Two batches of 4 without class weights have the gradient of one of 8."""

    def keep_still(module: torch.nn.Module, _: Any) -> None:
        module.eval()  # batch statistics would differ

    results = []
    for size, steps in ((8, 1), (4, 2)):
        settings = training(num_train_epochs=2.0, per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        model = fresh(settings)
        model.network.apply(lambda module: module.register_forward_pre_hook(keep_still) and None)
        fit(model, FitData(titled(0, 16, store), titled(100, 108, store)), FitPlan(settings, 1))
        results.append(model.network.state_dict()["head.weight"])
    assert torch.allclose(results[0], results[1], atol=1e-5)


def test_deepspeed_is_not_imported_where_it_does_not_train(store: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)  # another test may have imported it
    settings = training(num_train_epochs=1.0)
    model = fresh(settings)
    fit(model, FitData(titled(0, 16, store), titled(100, 108, store)), FitPlan(settings, 1))
    assert "deepspeed" not in sys.modules


def test_bf16_is_on_where_asked_for() -> None:
    assert use_bf16(True)
    assert not use_bf16(False)
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    assert use_bf16("auto") == (torch.cuda.is_available() or native)


def test_a_run_in_bf16_learns_on_a_cpu_too(store: ClipStore, learned: tuple[Classifier, FitResult]) -> None:
    """Autocast: other weights than in fp32, kept in fp32, and what was to be learnt is learnt."""
    model, result = trained(store, training(bf16=True))
    weights, others = model.network.state_dict(), learned[0].network.state_dict()
    assert result.best_average_precision > 0.95
    assert all(value.dtype != torch.bfloat16 for value in weights.values())
    assert not torch.equal(weights["head.weight"], others["head.weight"])


class StopHereError(Exception):
    """Ends a training in the middle."""


def test_a_resumed_run_ends_as_the_whole_one_though_the_best_epoch_was_before(store: ClipStore, tmp_path: Path) -> None:
    """Batch statistics, a best epoch from before the stop, and its listener hears of all epochs."""
    settings = training(num_train_epochs=5.0, learning_rate=0.08)
    whole = fresh(settings)
    expected = fit(whole, FitData(titled(0, 24, store), titled(100, 112, store)), FitPlan(settings, 1))
    assert expected.best_epoch < 5.0

    folder = CheckpointFolder(tmp_path / "kept", {"preset": "tiny"}, steps=2)
    stopped, heard = fresh(settings), []

    def stop_after_four(row: dict[str, float]) -> None:
        if row["epoch"] == 4.0:
            raise StopHereError

    with pytest.raises(StopHereError):
        fit(
            stopped,
            FitData(titled(0, 24, store), titled(100, 112, store)),
            FitPlan(settings, 1, stop_after_four, checkpoints=folder),
        )
    resumed = fresh(settings)
    found = fit(
        resumed,
        FitData(titled(0, 24, store), titled(100, 112, store)),
        FitPlan(settings, 1, heard.append, checkpoints=folder),
    )
    assert found.curve == expected.curve == tuple(heard)
    assert found.best_epoch == expected.best_epoch
    weights = whole.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in resumed.network.state_dict().items())


def test_a_finished_run_is_not_trained_again(store: ClipStore, tmp_path: Path) -> None:
    """Killed after the last epoch, before the model was saved."""
    settings = training(num_train_epochs=1.5)
    folder = CheckpointFolder(tmp_path / "kept", {"preset": "tiny"})
    first, second = fresh(settings), fresh(settings)
    result = fit(
        first, FitData(titled(0, 16, store), titled(100, 108, store)), FitPlan(settings, 1, checkpoints=folder)
    )

    def no_batch(_: Sequence[Example]) -> dict[str, torch.Tensor]:
        raise AssertionError("it trains")

    again = fit(
        second,
        FitData(titled(0, 16, store), titled(100, 108, store), collator=no_batch),
        FitPlan(settings, 1, checkpoints=folder),
    )
    assert again.curve == result.curve
    weights = first.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in second.network.state_dict().items())
    assert not second.network.training


def test_weights_that_are_not_finite_are_never_a_checkpoint(store: ClipStore, tmp_path: Path) -> None:
    settings = training(num_train_epochs=1.0, learning_rate=1e38, max_grad_norm=0.0)
    folder = CheckpointFolder(tmp_path / "kept", {"preset": "tiny"}, steps=1)
    model = fresh(settings)
    with pytest.raises(TrainingError, match=r"not finite|loss is"):
        fit(model, FitData(titled(0, 24, store), titled(100, 108, store)), FitPlan(settings, 1, checkpoints=folder))
    found = folder.newest()
    assert found is None or all(t.isfinite().all() for t in load_file(found.path / "model.safetensors").values())
    assert not list(folder.root.glob(".step-*"))
