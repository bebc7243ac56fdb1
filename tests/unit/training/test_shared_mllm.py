"""An MLLM that several issues share: labels with gaps, figures per issue, and when its training is taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import EvalPrediction

from coefvq.config import MediaLimits, Params, load_params
from coefvq.data.splits.rows import labelled
from coefvq.errors import DataError, SplitError
from coefvq.evaluation.metrics import average_precision
from coefvq.models.heads import MISSING_LABEL
from coefvq.records import MANIFEST_COLUMNS
from coefvq.stages.inputs import TrainMLLMInputs
from coefvq.training.data import labelled_videos
from coefvq.training.shared_mllm import SharedTraining, TrainingOutputs, curve_of, take_over
from coefvq.training.validation import ValidationMetrics

ISSUES = ("icd", "ucc")
CURVE = [
    {"epoch": 1.0, "val_average_precision": 0.5, "val_icd_average_precision": 0.4, "val_ucc_average_precision": 0.6},
    {"epoch": 2.0, "val_average_precision": 0.6, "val_icd_average_precision": 0.9, "val_ucc_average_precision": 0.3},
]


@pytest.fixture
def params(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    made = load_params(repository / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return made


def limits(params: Params, **changes: Any) -> MediaLimits:
    return params.ingest.limits.model_copy(update=changes)


def trained(params: Params, issue: str, shared: SharedTraining, weights: str = "w") -> TrainingOutputs:
    """What the stage of an issue leaves."""
    outputs = TrainingOutputs(params.paths, "mllm", issue)
    outputs.folder.mkdir(parents=True, exist_ok=True)
    (outputs.folder / "model.safetensors").write_text(weights)
    own = curve_of(CURVE, issue)
    metrics = {"best_epoch": 2.0, "best_criterion": 0.6, "best_average_precision": own[1]["val_average_precision"]}
    outputs.write(metrics, own, {"model_id": "m-1", "run_id": "r-1", **shared.record(outputs.folder)})
    return outputs


def test_a_training_is_taken_over_with_its_record_and_the_issue_s_own_figures(params: Params) -> None:
    shared = SharedTraining.of(ISSUES, {"seed": 1}, params.ingest.limits)
    target = TrainingOutputs(params.paths, "mllm", "ucc")
    assert shared.trained_by(target, lambda _: True) is None
    source = trained(params, "icd", shared)
    assert shared.trained_by(target, lambda name: name == "m-1") == source
    (target.folder / "old").mkdir(parents=True)
    take_over(source, target)
    assert [path.name for path in target.folder.iterdir()] == ["model.safetensors"]
    assert target.run_record.read_bytes() == source.run_record.read_bytes()
    metrics, curve = (json.loads(path.read_text()) for path in (target.metrics, target.curve))
    assert metrics == {"best_epoch": 2.0, "best_criterion": 0.6, "best_average_precision": 0.3}
    assert [row["val_average_precision"] for row in curve] == [0.6, 0.3]
    assert [row["mean_val_average_precision"] for row in curve] == [0.5, 0.6]
    # in the other direction it is the same again
    assert shared.trained_by(source, lambda _: True) == target


def test_another_training_changed_bytes_or_a_lost_run_is_not_taken_over(params: Params) -> None:
    shared = SharedTraining.of(ISSUES, {"seed": 1}, params.ingest.limits)
    target, source = TrainingOutputs(params.paths, "mllm", "ucc"), trained(params, "icd", shared)
    others = [
        SharedTraining.of(ISSUES, {"seed": 2}, params.ingest.limits),
        # config.json in the folder holds the limits
        SharedTraining.of(ISSUES, {"seed": 1}, limits(params, streams=3)),
    ]
    assert [other.trained_by(target, lambda _: True) for other in others] == [None, None]
    assert shared.trained_by(target, lambda _: False) is None
    (source.folder / "model.safetensors").write_text("changed")
    assert shared.trained_by(target, lambda _: True) is None
    trained(params, "icd", shared)
    source.curve.unlink()
    assert shared.trained_by(target, lambda _: True) is None
    trained(params, "icd", shared)
    source.run_record.write_text("[")
    assert shared.trained_by(target, lambda _: True) is None


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
_FIGURES = ("average_precision", "f1", "roc_auc", "r_at_p60")


@given(st.lists(_NAMES, min_size=2, max_size=4, unique=True), st.sampled_from(_FIGURES), st.randoms())
def test_whoever_took_it_over_before_an_issue_reads_its_own_figures(
    issues: list[str], figure: str, random: Any
) -> None:
    values = {f"val_{issue}_{name}": random.random() for issue in issues for name in ("average_precision", figure)}
    row = {"epoch": 1.0, "val_average_precision": 0.25, f"val_{figure}": 0.25, **values}
    first, second = issues[:2]
    own = curve_of([row], second)
    assert curve_of(curve_of([row], first), second) == own
    assert own[0][f"val_{figure}"] == values[f"val_{second}_{figure}"]
    assert own[0][f"mean_val_{figure}"] == 0.25
    assert own[0]["epoch"] == 1.0


def test_figures_are_means_over_the_issues_and_missing_labels_count_for_none() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 2, 2)).astype(np.float32)
    labels = random.integers(0, 2, (40, 2))
    labels[:15, 0] = MISSING_LABEL
    names = [str(number) for number in range(40)]
    figures = ValidationMetrics("f1", names, ISSUES)(EvalPrediction(predictions=logits, label_ids=labels))
    assert set(figures) == {
        *("average_precision", "icd_average_precision", "ucc_average_precision"),
        *("f1", "icd_f1", "ucc_f1"),
    }
    margin = logits[:, :, 1] - logits[:, :, 0]
    expected = [average_precision(labels[15:, 0], margin[15:, 0]), average_precision(labels[:, 1], margin[:, 1])]
    assert [figures[f"{issue}_average_precision"] for issue in ISSUES] == pytest.approx(expected)
    assert figures["average_precision"] == pytest.approx(np.mean(expected))


def rows(icd: list[int | None], ucc: list[int | None]) -> pd.DataFrame:
    frame = pd.DataFrame([dict.fromkeys(MANIFEST_COLUMNS, "")] * len(icd))
    texts = {"video_id": [f"v{number}" for number in range(len(icd))], "uri": "a.mp4", "sha256": "0" * 64}
    labels = {"label_icd": pd.array(icd, "Int8"), "label_ucc": pd.array(ucc, "Int8")}
    return frame.assign(**texts, views=1, weight=1.0, stickers="[]", split="train", **labels)


def test_a_clip_of_one_label_is_a_row_whose_other_label_is_missing(params: Params) -> None:
    table, settings = rows([1, 0, None, None, 1], [None, 1, 0, None, 0]), TrainMLLMInputs.of(params, "icd").settings
    chosen = labelled(table, ISSUES, "train")
    assert list(chosen["video_id"]) == ["v0", "v1", "v2", "v4"]
    both = labelled_videos(chosen, settings, ISSUES, "train")
    assert both.labels == [(1, MISSING_LABEL), (0, 1), (MISSING_LABEL, 0), (1, 0)]
    one = labelled_videos(labelled(table, "ucc", "train"), settings, ("ucc",), "train")
    assert one.labels == [1, 0, 0]
    with pytest.raises(DataError, match="split 'val' has no row labelled for icd"):
        labelled(table, ISSUES, "val")
    with pytest.raises(SplitError, match="split 'train' has no negative for icd among 2 labelled videos"):
        labelled_videos(rows([1, 1, None], [0, 1, 1]), settings, ISSUES, "train")
