"""The two JSON reports and the tables made of them."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import DataError
from coefvq.evaluation.metrics import average_precision, best_f1_threshold, f1_at_threshold
from coefvq.evaluation.report import cascade_report, evaluation_report
from coefvq.evaluation.table import (
    DASH,
    PRECISION_NOTE,
    SHORTCUT_NOTE,
    UNREACHABLE_NOTE,
    caption,
    footnotes,
    markdown_table,
    result_rows,
    rich_table,
)
from tests.unit.scored_world import scores_table

TARGETS = (60.0, 70.0, 80.0, 90.0)


def both(scores: pd.DataFrame, p_base=(20.0, 30.0), views_trigger=None) -> tuple[dict, dict]:
    return (
        evaluation_report(scores, "icd", TARGETS),
        cascade_report(scores, "icd", p_base, 0.03, views_trigger, TARGETS),
    )


def part(scores: pd.DataFrame, split: str) -> pd.DataFrame:
    return scores[scores["split"] == split].astype({"label": float})


def test_thresholds_come_from_val_and_figures_from_test() -> None:
    scores = scores_table()
    report = evaluation_report(scores, "icd", TARGETS)
    val, test = part(scores, "val"), part(scores, "test")
    for name in ("base", "mllm"):
        threshold = best_f1_threshold(val["label"], val[name]).threshold
        assert report["test"][name]["decision_threshold"] == threshold
        assert report["test"][name]["f1"] == f1_at_threshold(test["label"], test[name], threshold)
        assert report["val"][name]["f1"] == f1_at_threshold(val["label"], val[name], threshold)
    assert report["test"]["n"] == 400
    assert report["test"]["positives"] == test["label"].sum()


def test_against_the_posterior_nothing_beats_bayes() -> None:
    evaluation, cascade = both(scores_table())
    soft = evaluation["test_posterior"]
    assert soft["positives"] == pytest.approx(part(scores_table(), "test")["posterior"].sum())
    assert list(soft["bayes"]) == list(soft["mllm"])
    rivals = [soft["base"], soft["mllm"], *(entry["test_posterior"] for entry in cascade["policies"])]
    for rival in rivals:
        assert rival["average_precision"] < soft["bayes"]["average_precision"]
        for key in ("r_at_p60", "r_at_p70"):
            assert (rival[key] or 0.0) <= soft["bayes"][key]
    test = part(scores_table(), "test")
    assert soft["mllm"]["average_precision"] == average_precision(test["posterior"], test["mllm"])


@pytest.mark.parametrize("gap", ["all", "one row of test"])
def test_without_every_posterior_there_is_no_bayes_row(gap: str) -> None:
    scores = scores_table(posterior=gap != "all")
    if gap != "all":
        scores.loc[scores["video_id"] == "test-3", "posterior"] = np.nan
    evaluation, cascade = both(scores)
    assert evaluation["test_posterior"] is None
    assert evaluation["test"]["bayes"] is None
    assert all(entry["test_posterior"] is None for entry in cascade["policies"])
    assert [row.name for row in result_rows(evaluation, cascade)][-1].startswith("cascade")


def test_cascade_entries_hold_the_frozen_policy_and_its_cost_on_traffic() -> None:
    scores = scores_table()
    report = cascade_report(scores, "icd", (20.0, 30.0), 0.03, None, TARGETS)
    traffic = part(scores, "traffic")
    for entry in report["policies"]:
        policy = CascadePolicy.from_dict(entry["policy"])
        assert entry["qps_ratio"] == pytest.approx(100 * (traffic["base"] >= policy.base_threshold).mean())
        assert entry["test"]["recall"] <= entry["base_recall_test"]
        assert entry["base_precision_val"] >= entry["p_base"] / 100
        assert entry["base_positives_val"] == pytest.approx(
            entry["base_recall_val"] * part(scores, "val")["label"].sum()
        )
    chosen = [entry for entry in report["policies"] if entry["selected"]]
    assert [entry["p_base"] for entry in chosen] == [report["selected"]]
    assert chosen[0]["policy"] == report["policy"]


def test_views_trigger_reaches_the_policy_and_the_cost() -> None:
    scores = scores_table()
    quiet = cascade_report(scores, "icd", (30.0,), 0.03, None, TARGETS)["policies"][0]
    triggered = cascade_report(scores, "icd", (30.0,), 0.03, 500, TARGETS)["policies"][0]
    assert triggered["policy"]["views_trigger"] == 500
    assert triggered["qps_ratio"] > quiet["qps_ratio"] + 10


def test_reports_are_plain_json() -> None:
    scores = scores_table()
    scores.loc[scores.index % 3 == 0, "views"] = pd.NA
    for report in both(scores, (20.0, 99.9), views_trigger=900):
        assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_no_traffic_gives_no_cost_rather_than_a_guess() -> None:
    scores = scores_table()
    report = cascade_report(scores[scores["split"] != "traffic"], "icd", (30.0,), 0.03, None, TARGETS)
    assert report["policies"][0]["qps_ratio"] is None
    assert report["policies"][0]["qps_ratio_val"] is not None


def hopeless() -> pd.DataFrame:
    """The base model ranks backwards, so no P_base above the prevalence is reachable."""
    scores = scores_table()
    return scores.assign(base=1.0 - scores["base"])


def test_all_unreachable_falls_back_to_the_mllm_on_every_video() -> None:
    evaluation, cascade = both(hopeless(), (70.0, 80.0))
    assert cascade["selected"] is None
    assert [entry["reachable"] for entry in cascade["policies"]] == [False, False, True]
    fallback = cascade["policies"][-1]
    assert (fallback["p_base"], fallback["qps_ratio"], fallback["selected"]) == (None, 100.0, True)
    mllm = {k: v for k, v in evaluation["test"]["mllm"].items() if k != "expected_calibration_error"}
    assert fallback["test"] == mllm
    names = [row.name for row in result_rows(evaluation, cascade)]
    assert names[2:5] == ["cascade, P_base 70, unreachable", "cascade, P_base 80, unreachable", "cascade, all"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns="mllm"), "column 'mllm' is missing"),
        (lambda s: s[s["split"] != "val"], "no labelled row in split 'val'"),
        (lambda s: s.assign(mllm=s["mllm"].where(s["video_id"] != "test-7")), r"mllm of video test-7 \(test\)"),
        (lambda s: s.assign(label=pd.array([0] * len(s), dtype="Int64")), "one class only"),
    ],
)
def test_unusable_tables_are_refused(change, message) -> None:
    with pytest.raises(DataError, match=message):
        both(change(scores_table()))


def test_rows_of_the_table() -> None:
    evaluation, cascade = both(scores_table())
    rows = result_rows(evaluation, cascade)
    assert [row.name for row in rows] == [
        "base",
        "MLLM",
        "cascade, P_base 20",
        "cascade, P_base 30",
        "Bayes bound, all",
    ]
    on_traffic = [entry["qps_ratio"] for entry in cascade["policies"]]
    assert [row.qps_ratio for row in rows] == [0.0, 100.0, *on_traffic, None]
    assert on_traffic != [entry["qps_ratio_val"] for entry in cascade["policies"]]
    assert [row.chosen for row in rows].count(True) == 1
    assert rows[1].f1 == evaluation["test_posterior"]["mllm"]["f1"]
    assert list(rows[0].recalls) == ["R@P60", "R@P70", "R@P80", "R@P90"]
    assert "known posterior" in caption(evaluation)
    assert "n = 400" in caption(evaluation)


def with_yardsticks(scores: pd.DataFrame) -> pd.DataFrame:
    """Posterior given less: the known one shrunk towards its mean with noise; a shortcut that is noise."""
    rng = np.random.default_rng(1)
    logit = np.log(scores["posterior"] / (1 - scores["posterior"]))
    seen = {name: 1 / (1 + np.exp(-logit - spread * rng.normal(size=len(scores)))) for name, spread in VIEWS.items()}
    return scores.assign(**seen, shortcut=rng.random(len(scores)))


VIEWS = {"posterior_vision": 2.0, "posterior_vision_text": 0.7}


def test_yardsticks_are_measured_on_the_same_labels_as_the_models() -> None:
    scores = with_yardsticks(scores_table())
    evaluation, cascade = both(scores)
    rows = result_rows(evaluation, cascade)
    assert [row.name for row in rows] == [
        "metadata shortcut",
        "base",
        "MLLM",
        "cascade, P_base 20",
        "cascade, P_base 30",
        "Bayes bound, vision",
        "Bayes bound, vision+text",
        "Bayes bound, all",
    ]
    val, test = part(scores, "val"), part(scores, "test")
    soft = evaluation["test_posterior"]
    for name, column in (("bayes_vision", "posterior_vision"), ("bayes_vision_text", "posterior_vision_text")):
        threshold = best_f1_threshold(val["posterior"], val[column]).threshold
        assert soft[name]["decision_threshold"] == evaluation["test"][name]["decision_threshold"] == threshold
        assert soft[name]["f1"] == f1_at_threshold(test["posterior"], test[column], threshold)
        assert soft[name]["average_precision"] < soft["bayes"]["average_precision"]
    shortcut = best_f1_threshold(val["label"], val["shortcut"]).threshold
    assert soft["shortcut"]["decision_threshold"] == shortcut
    assert rows[0].f1 == f1_at_threshold(test["posterior"], test["shortcut"], shortcut)
    assert (rows[0].qps_ratio, rows[-1].qps_ratio) == (0.0, None)
    assert footnotes(rows)[0] == SHORTCUT_NOTE


@pytest.mark.parametrize("gap", ["column", "one row of val", "no posterior"])
def test_a_yardstick_that_some_row_lacks_has_no_row(gap: str) -> None:
    scores = with_yardsticks(scores_table())
    lost = ["shortcut", *VIEWS]
    if gap == "column":
        scores = scores.drop(columns=lost)  # a table of an earlier version
    elif gap == "one row of val":
        scores.loc[scores["video_id"] == "val-3", lost] = np.nan
    else:
        scores["posterior"], lost = np.nan, [*VIEWS]
    evaluation, cascade = both(scores)
    names = [row.name for row in result_rows(evaluation, cascade)]
    assert ("metadata shortcut" in names) == (gap == "no posterior")
    assert not [name for name in names if "vision" in name]
    assert (names[-1] == "Bayes bound, all") == (gap != "no posterior")
    del evaluation["test_posterior" if gap != "no posterior" else "test"]["bayes_vision"]  # an earlier report
    assert [row.name for row in result_rows(evaluation, cascade)] == names


def test_markdown_table_has_one_decimal_dashes_and_footnotes() -> None:
    evaluation, cascade = both(hopeless().assign(posterior=np.nan), (70.0,))
    rows = result_rows(evaluation, cascade)
    lines = markdown_table(rows, caption(evaluation)).splitlines()
    assert lines[0] == "| approach | F1 | R@P60 | R@P70 | R@P80 | R@P90 | AUC | QPS ratio |"
    assert lines[2] == (
        f"| base | {100 * rows[0].f1:.1f} | {DASH} | {DASH} | {DASH} | {DASH} | {100 * rows[0].roc_auc:.1f} | 0.0 |"
    )
    assert lines[4] == "| cascade, P_base 70, unreachable |" + f" {DASH} |" * 7
    assert lines[5].startswith("| cascade, all (chosen) |")
    assert lines[5].endswith("| 100.0 |")
    assert lines[6:] == ["", caption(evaluation), "", PRECISION_NOTE, "", UNREACHABLE_NOTE]
    assert "posterior" not in caption(evaluation)


def test_footnotes_only_explain_what_occurs() -> None:
    measured = result_rows(*both(scores_table()))
    assert "QPS ratio" in footnotes(measured)[-1]
    rows = [replace(row, qps_interval=None) for row in measured]
    assert footnotes([row for row in rows if None not in row.recalls.values()]) == []
    blank = dict.fromkeys(rows[0].recalls)
    assert footnotes([replace(rows[0], recalls=blank)]) == [PRECISION_NOTE]
    assert footnotes([replace(rows[0], recalls=blank, reachable=False)]) == [UNREACHABLE_NOTE]


def test_rich_table_fits_a_terminal_of_100_columns() -> None:
    evaluation, cascade = both(hopeless().assign(**with_yardsticks(scores_table())[["shortcut", *VIEWS]]))
    console = Console(width=100, record=True, force_terminal=False, file=io.StringIO())
    console.print(rich_table(result_rows(evaluation, cascade), "icd", caption(evaluation)))
    text = console.export_text()
    assert "cascade, all (chosen)" in text
    assert "…" not in text
    assert SHORTCUT_NOTE in " ".join(text.split())
    assert "Bayes bound, vision+text" in text
    assert UNREACHABLE_NOTE in " ".join(text.split())
