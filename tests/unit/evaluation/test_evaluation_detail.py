"""The evaluate and thresholds stages end to end on a scores table: modes, intervals, slices, calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coefvq.cascade.calibration import Calibrator
from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Params, load_recipe, parse_params
from coefvq.data.manifest import write_table
from coefvq.errors import ConfigError, DataError, InfeasibleError
from coefvq.evaluation.table import against_models_text, result_rows
from coefvq.records import MANIFEST_COLUMNS
from coefvq.stages import evaluate, thresholds
from coefvq.stages.inputs import EvaluateInputs, ThresholdsInputs
from tests.unit.scored_world import scores_table

PAPER = {"p_base": [20, 30, 40], "max_f1_loss": 0.03}
ROOT = Path(__file__).resolve().parents[3]


def manifest_of(scores: pd.DataFrame) -> pd.DataFrame:
    rng, n = np.random.default_rng(5), len(scores)
    return pd.DataFrame(
        dict.fromkeys(MANIFEST_COLUMNS)
        | {
            "video_id": scores["video_id"],
            "title": rng.choice(["my dinner", "мой ужин"], n),
            "creator_id": [f"c{number}" for number in rng.integers(0, 200, n)],
            "views": scores["views"],
            "weight": 1.0,
            "duration_s": rng.uniform(1, 90, n),
            "has_audio": rng.random(n) < 0.7,
        }
    ).sample(frac=1.0, random_state=2)


@pytest.fixture
def workspace(tmp_path: Path):
    scores = scores_table(n=600)
    manifest = manifest_of(scores)
    write_table(manifest, tmp_path / "manifest.parquet")
    splits = scores[["video_id", "split"]].assign(weight=1.0)
    write_table(splits, tmp_path / "splits.parquet")
    write_table(scores, tmp_path / "reports" / "icd" / "scores.parquet")

    def params(**thresholds_of_icd: Any) -> Params:
        raw = yaml.safe_load((ROOT / "params.yaml").read_text())
        raw["paths"] |= {
            "manifest": str(tmp_path / "manifest.parquet"),
            "splits": str(tmp_path / "splits.parquet"),
            "reports": str(tmp_path / "reports"),
        }
        raw["evaluate"]["bootstrap"] = 100
        own = thresholds_of_icd if "mode" in thresholds_of_icd else PAPER | thresholds_of_icd
        raw["thresholds"]["icd"] = {"views_trigger": None} | own
        return parse_params(raw, load_recipe(ROOT / "recipe.yaml"))

    return tmp_path / "reports" / "icd", params


def run_evaluate(params: Params) -> None:
    evaluate.run(EvaluateInputs.of(params, "icd"))


def run_thresholds(params: Params) -> None:
    thresholds.run(ThresholdsInputs.of(params, "icd"))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_evaluate_writes_intervals_slices_and_the_traffics_prevalence(workspace) -> None:
    folder, params = workspace
    run_evaluate(params())
    report = read(folder, "evaluation.json")
    for model in ("base", "mllm"):
        intervals = report["detail"]["intervals"][model]
        for key in ("f1", "average_precision", "roc_auc", "precision", "recall"):
            assert intervals[key]["value"] == pytest.approx(report["test"][model][key])
            assert intervals[key]["low"] <= intervals[key]["value"] <= intervals[key]["high"]
    slices = report["detail"]["slices"]
    assert {row["column"] for row in slices} == {"language", "duration", "has_audio", "views", "creator_size"}
    for column in ("language", "has_audio"):
        assert sum(row["n"] for row in slices if row["column"] == column) == 600
    shifted = report["prevalence"]
    assert shifted["at_traffic"]["mllm"]["prevalence"] == pytest.approx(shifted["traffic_estimate"])
    assert shifted["at_traffic"]["mllm"]["roc_auc"] == pytest.approx(report["test"]["mllm"]["roc_auc"])


def test_the_papers_way_is_as_before_and_calibration_is_written(workspace) -> None:
    folder, params = workspace
    run_thresholds(params())
    report = read(folder, "thresholds.json")
    assert report["mode"] == "paper"
    chosen = next(entry for entry in report["policies"] if entry["selected"])
    assert report["detail"]["intervals"]["cascade"]["f1"]["value"] == pytest.approx(chosen["test"]["f1"])
    calibration = read(folder, "calibration.json")
    for model in ("base", "mllm"):
        assert set(calibration[model]["calibrators"]) == {"temperature", "platt", "isotonic"}
        if calibration[model]["chosen"] is not None:
            Calibrator.from_dict(calibration[model]["calibrators"][calibration[model]["chosen"]])


@pytest.mark.parametrize(
    ("settings", "holds"),
    [
        (
            {"mode": "budget", "precision": 50.0, "max_qps_ratio": 20.0},
            lambda e: e["val"]["precision"] >= 0.5 and e["qps_ratio_val"] <= 20,
        ),
        ({"mode": "recall_floor", "precision": 50.0, "max_recall_loss": 0.05}, lambda e: e["val"]["precision"] >= 0.5),
        ({"mode": "cost", "prices": {"call": 1.0, "false_positive": 3.0, "miss": 20.0}}, lambda e: e["f1"] is not None),
        (
            {"mode": "budget", "precision": 50.0, "max_qps_ratio": 20.0, "accept_threshold": 0.9, "views_trigger": 990},
            lambda e: e["val"]["precision"] >= 0.5 and e["qps_ratio_val"] <= 20,
        ),
    ],
)
def test_an_objective_replaces_the_papers_way(workspace, settings, holds) -> None:
    folder, params = workspace
    run_thresholds(params(**settings))
    report = read(folder, "thresholds.json")
    entry = report["policies"][-1]
    assert entry["selected"]
    assert report["selected"] is None
    assert holds(entry | {"f1": entry["test"]["f1"]})
    policy = CascadePolicy.from_dict(read(folder, "policy.json"))
    assert policy.to_dict() == entry["policy"]
    assert policy.accept_threshold == settings.get("accept_threshold")
    run_evaluate(params())
    names = [row.name for row in result_rows(read(folder, "evaluation.json"), report)]
    assert f"cascade, {settings['mode'].replace('_', ' ')}" in names


def test_mode_qps_offers_both_models_alone_and_measures_calls_on_traffic_it_has_not_seen(workspace) -> None:
    folder, params = workspace
    run_thresholds(params(mode="qps", max_qps_ratio=30.0, min_kept_f1=0.9))
    run_evaluate(params())
    report = read(folder, "thresholds.json")
    names = [entry["name"] for entry in report["policies"]]
    assert names == ["base alone", "cascade, 30 % of calls", "MLLM on all"]
    chosen = next(entry for entry in report["policies"] if entry["selected"])
    assert chosen["policy"] == read(folder, "policy.json")
    against = report["against_models"]
    evaluation = read(folder, "evaluation.json")
    assert against["kept_f1"]["value"] == pytest.approx(chosen["test"]["f1"] / evaluation["test"]["mllm"]["f1"])
    over = chosen["test"]["f1"] - evaluation["test"]["base"]["f1"]
    assert against["f1_over_base"]["value"] == pytest.approx(over)
    for row in against.values():
        assert row["low"] <= row["value"] <= row["high"]
    text = against_models_text(report)
    assert f"{100 * against['kept_f1']['value']:.1f} [" in text
    assert text.endswith("points of F1 over the base model.")
    assert against_models_text({"policies": []}) == ""  # a report of an earlier version
    # the half of the traffic that gave the threshold stays out of the measured share of calls
    scores = pd.read_parquet(folder / "scores.parquet")
    arriving = scores[scores["split"] == "traffic"]
    policy = CascadePolicy.from_dict(report["policies"][1]["policy"])
    whole = 100.0 * policy.escalates(arriving["base"], arriving["views"]).mean()
    assert report["policies"][1]["qps_ratio"] != pytest.approx(whole)
    rows = result_rows(evaluation, report)
    assert [row.name for row in rows if row.chosen] == [
        {"base alone": "base", "MLLM on all": "MLLM"}.get(chosen["name"], chosen["name"])
    ]
    assert [row.name for row in rows].count("base") == 1


def test_traffic_that_the_base_model_alone_scored_counts_for_the_share_of_calls_only(workspace) -> None:
    folder, params = workspace
    scores = pd.read_parquet(folder / "scores.parquet")
    arriving = scores[scores["split"] == "traffic"]
    run_thresholds(params(mode="qps", max_qps_ratio=30.0, min_kept_f1=0.9))
    before = read(folder, "thresholds.json")
    some = arriving.index[300:]
    write_table(scores.assign(mllm=scores["mllm"].drop(some)), folder / "scores.parquet")
    run_thresholds(params(mode="qps", max_qps_ratio=30.0, min_kept_f1=0.9))
    run_evaluate(params())
    assert read(folder, "thresholds.json") == before
    ends = before["policies"][1]["qps_ratio_interval"]
    assert ends["low"] < before["policies"][1]["qps_ratio"] < ends["high"]
    assert 0.0 < read(folder, "evaluation.json")["prevalence"]["traffic_estimate"] < 1.0


def test_what_a_silent_mllm_means_comes_from_the_settings(workspace) -> None:
    folder, params = workspace
    for rule in ("hold", "base_only"):
        run_thresholds(params(mllm_down=rule))
        assert read(folder, "policy.json")["mllm_down"] == rule
        assert {entry["policy"]["mllm_down"] for entry in read(folder, "thresholds.json")["policies"]} == {rule}


def test_what_cannot_be_met_is_named_by_its_key(workspace) -> None:
    _, params = workspace
    with pytest.raises(InfeasibleError, match=r"thresholds.icd: .* fails"):
        run_thresholds(params(mode="budget", precision=50.0, max_qps_ratio=0.01))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "budget", "precision": 50.0}, "mode budget needs max_qps_ratio"),
        ({"mode": "cost"}, "mode cost needs prices"),
        ({"mode": "paper"}, "mode paper needs p_base"),
        (
            {"mode": "paper", "p_base": [50], "max_f1_loss": 0.01, "policy": "base"},
            "policy: base plays no part in mode paper",
        ),
        ({"mode": "qps", "max_qps_ratio": 15.0}, "mode qps needs min_kept_f1"),
        ({"min_kept_f1": 0.9}, "min_kept_f1 plays no part in mode paper"),
        ({"precision": 50.0}, "precision plays no part in mode paper"),
        ({"mode": "best"}, "thresholds.icd.mode"),
    ],
)
def test_a_mode_and_its_settings_must_agree(workspace, settings, message) -> None:
    _, params = workspace
    with pytest.raises(ConfigError, match=message):
        params(**settings)


def test_a_video_in_val_and_test_is_refused(workspace) -> None:
    folder, params = workspace
    scores = pd.read_parquet(folder / "scores.parquet")
    scores.loc[scores["split"].eq("test").idxmax(), "video_id"] = "val-7"
    write_table(scores, folder / "scores.parquet")
    for run in (run_evaluate, run_thresholds):
        with pytest.raises(DataError, match="1 videos are in 'val' and in 'test', first val-7"):
            run(params())


def test_a_scored_video_without_a_manifest_row_is_refused(workspace) -> None:
    folder, params = workspace
    manifest = pd.read_parquet(folder.parents[1] / "manifest.parquet")
    write_table(manifest[manifest["video_id"] != "test-9"], folder.parents[1] / "manifest.parquet")
    with pytest.raises(DataError, match="test-9 is not in the manifest"):
        run_evaluate(params())
