"""One MLLM for two issues through the stages: trained once, scored once, in both pairs, run once per video."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coefvq.config import load_params
from coefvq.files import sha256_tree
from coefvq.inference import MultiIssueScorer
from coefvq.models.model_config import read_config
from coefvq.records import VideoInput
from coefvq.registry import pairs, release, tracking
from coefvq.registry.bundle import read_candidate
from coefvq.registry.champions import load_scorer
from coefvq.registry.gates import GateReport
from coefvq.shipped_recipes import shipped_recipe
from coefvq.simulation.synthetic.generate import generate
from coefvq.stages import STAGES
from coefvq.training import run, scoring
from tasks.templates import template
from tasks.workspace import change_params

ISSUES = ("icd", "ucc")
PARAMS = {
    "media": {"icd": {}, "ucc": {}},
    "base": {"icd": {}, "ucc": {}},
    "mllm": {"icd": {}, "ucc": {}},
    "validate.prevalence": {"icd": [0.0, 1.0], "ucc": [0.0, 1.0]},
    "split.fractions": {"train": 0.5, "val": 0.2, "test": 0.2, "traffic": 0.1},
    # always the MLLM, so that both pairs ask it about every video
    "thresholds": {issue: {"p_base": [1], "max_f1_loss": 0.5, "views_trigger": 0} for issue in ISSUES},
    "evaluate.bootstrap": 100,
    "stability.videos_per_threshold": 2,
    "runtime.workers": 1,
}
RECIPE = {
    "media.frames": 2,
    "base.training.num_train_epochs": 1,
    "mllm.shared": list(ISSUES),
    "mllm.training.num_train_epochs": 2,
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    raw = tmp_path / "data" / "raw"
    generate(raw, 72, 3, {"icd": 0.4, "ucc": 0.4}, workers=1)
    with (raw / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):  # half of the clips lack one of the labels
        row |= {"label_icd": ""} if number % 4 == 0 else {"label_ucc": ""} if number % 4 == 1 else {}
    pd.DataFrame(rows).to_csv(raw / "metadata.csv", index=False)
    for name in ("params.yaml", "presets.yaml"):
        (tmp_path / name).write_text(template(name))
    (tmp_path / "recipe.yaml").write_text(shipped_recipe("tiny").text)
    (tmp_path / "data" / "reference.json").write_text("{}")
    change_params(tmp_path / "params.yaml", PARAMS)
    change_params(tmp_path / "recipe.yaml", RECIPE)
    return tmp_path


def counted(monkeypatch: pytest.MonkeyPatch, holder: Any, name: str) -> Counter[str]:
    """How often a function was called, which does its work all the same."""
    calls: Counter[str] = Counter()
    original = getattr(holder, name)

    def call(*arguments: Any, **options: Any) -> Any:
        calls[name] += 1
        return original(*arguments, **options)

    monkeypatch.setattr(holder, name, call)
    return calls


def repro() -> None:
    """Every stage, for each issue where it is per issue, in the order of the pipeline."""
    params = load_params()
    for stage in STAGES:
        for issue in ISSUES if stage.per_issue else (None,):
            stage.run(stage.inputs.of(params, issue))


@pytest.mark.long
def test_two_issues_share_one_mllm_from_training_to_scoring(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fits, scored = counted(monkeypatch, run, "fit"), counted(monkeypatch, scoring, "score_dataset")
    repro()
    told = capsys.readouterr().err
    assert fits["fit"] == 3  # two bases and one MLLM
    assert scored["score_dataset"] == 3
    assert "[ucc mllm] copied: the stage of icd trained icd+ucc" in told
    assert "scores [ucc mllm]: the model of icd+ucc has scored" in told

    folders = {issue: workspace / "models" / issue / "mllm" for issue in ISSUES}
    assert read_config(folders["ucc"]).issues == ISSUES
    candidates = {issue: read_candidate(workspace / f"reports/{issue}/candidate.json") for issue in ISSUES}
    icd, ucc = (candidates[issue].mllm for issue in ISSUES)
    assert icd == ucc
    assert icd.sha256 == sha256_tree(folders["icd"]) == sha256_tree(folders["ucc"])
    assert candidates["icd"].content_hash != candidates["ucc"].content_hash
    check_figures(workspace)
    check_scores(workspace)
    check_serving(workspace, candidates, icd.model_id)


def check_figures(root: Path) -> None:
    """Each issue reads its own validation figures; the epoch is the best by their mean."""
    metrics = {issue: json.loads((root / f"reports/{issue}/mllm.json").read_text()) for issue in ISSUES}
    curves = {issue: json.loads((root / f"reports/{issue}/mllm_curve.json").read_text()) for issue in ISSUES}
    assert metrics["icd"]["best_criterion"] == metrics["ucc"]["best_criterion"]
    for mine, theirs in zip(curves["icd"], curves["ucc"], strict=True):
        both = (mine["val_average_precision"], theirs["val_average_precision"])
        assert both == (mine["val_icd_average_precision"], mine["val_ucc_average_precision"])
        assert (
            mine["mean_val_average_precision"] == theirs["mean_val_average_precision"] == pytest.approx(np.mean(both))
        )
    best = max(row["mean_val_average_precision"] for row in curves["icd"])
    assert metrics["icd"]["best_criterion"] == best
    manifest = pd.read_parquet(root / "data/manifest.parquet")
    splits = pd.read_parquet(root / "data/splits.parquet").set_index("video_id")["split"]
    train = manifest[manifest["video_id"].map(splits).eq("train")]
    known = train[["label_icd", "label_ucc"]].notna()
    assert not known.all(axis=None)
    assert metrics["ucc"]["train_videos"] == known.any(axis=1).sum() > known["label_ucc"].sum()


def check_scores(root: Path) -> None:
    """Scores that were kept are those of the issue's own head."""
    tables = {issue: pd.read_parquet(root / f"reports/{issue}/scores.parquet") for issue in ISSUES}
    kept = pd.read_parquet(next((root / "cache" / "scores").glob("*.parquet")))
    for issue, table in tables.items():
        assert np.array_equal(table["mllm"], kept[f"score_{issue}"])
    assert not np.allclose(kept["score_icd"], kept["score_ucc"])


def check_serving(root: Path, candidates: dict[str, Any], model_id: str) -> None:
    """Both pairs hold one network, which sees a video once; the model alone answers for both issues."""
    import mlflow

    for issue, candidate in candidates.items():
        pairs.register_candidate(candidate, GateReport(passed=True, checks=()))
        release.approve(issue, "ana", "both heads look good")
    clips = [VideoInput(path.stem, path) for path in sorted((root / "data/raw/videos").glob("*.mp4"))[:5]]
    scorer = load_scorer(list(ISSUES))
    assert scorer.pairs[0].mllm is scorer.pairs[1].mllm
    rows: list[int] = []
    scorer.pairs[0].mllm.network.register_forward_hook(lambda _, __, logits: rows.append(len(logits)))
    together = scorer(clips)
    assert rows == [5]
    apart = [row for issue in ISSUES for row in load_scorer([issue])(clips)]
    assert [(row.issue, row.positive) for row in together] == [(row.issue, row.positive) for row in apart]
    assert np.allclose([row.mllm_score for row in together], [row.mllm_score for row in apart], atol=1e-6)
    assert isinstance(scorer, MultiIssueScorer)
    served = mlflow.pyfunc.load_model(f"models:/{model_id}")
    answer = served.predict(pd.DataFrame({"path": [str(clip.path) for clip in clips]}))
    mine = np.array([row.mllm_score for row in together]).reshape(2, -1)
    assert np.allclose(answer[["score_icd", "score_ucc"]].to_numpy().T, mine, atol=1e-5)
    assert tracking.has_model(model_id, "model")
