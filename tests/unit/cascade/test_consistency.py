"""Figures of a cascade fit each other: rules of cost, ceiling and order, on made scores and the paper's tables."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from coefvq.cascade.consistency import audit_issue, expected_qps_ratio, implied_prevalence, recalls
from coefvq.cascade.paper_audit import audit_paper, prevalence_range
from coefvq.cascade.paper_tables import PAPER
from coefvq.evaluation.report import cascade_report, evaluation_report


@pytest.fixture(scope="module")
def reports():
    rng = np.random.default_rng(3)
    n = 3000
    label = (rng.random(n) < 0.15).astype(float)
    base = 1 / (1 + np.exp(-(2.0 * label + rng.normal(size=n) - 1.5)))
    mllm = 1 / (1 + np.exp(-(3.5 * label + rng.normal(size=n) - 2.0)))
    split = np.repeat(["val", "test", "traffic"], n // 3)
    scores = pd.DataFrame(
        {
            "video_id": [f"v{i}" for i in range(n)],
            "split": split,
            "label": np.where(split == "traffic", np.nan, label),
            "weight": rng.choice([1.0, 2.0], n),
            "views": np.nan,
            "posterior": np.nan,
            "base": base,
            "mllm": mllm,
        }
    )
    targets = (60.0, 70.0, 80.0, 90.0)
    return evaluation_report(scores, "icd", targets), cascade_report(scores, "icd", [30, 40, 50], 0.03, None, targets)


def verdicts(findings, rule):
    return [finding.verdict for finding in findings if finding.rule == rule]


def test_our_own_reports_hold(reports):
    findings = audit_issue(*reports)
    assert {finding.verdict for finding in findings if "traffic" not in finding.where} == {"holds"}
    # traffic is drawn from the same world: its calls imply a prevalence near the known 15 %
    implied = [finding.found for finding in findings if finding.where.endswith("traffic") and finding.found]
    assert implied == pytest.approx([0.15] * 3, abs=0.04)
    assert {finding.rule for finding in findings} == {"cost", "ceiling", "order of R@P", "order of calls"}
    assert len(verdicts(findings, "ceiling")) == 6


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        (("qps_ratio_val",), 1.5, "cost"),
        (("test", "r_at_p60"), 0.999, "ceiling"),
        (("val", "recall"), 0.9999, "ceiling"),
        (("val", "r_at_p90"), 0.99, "order of R@P"),
        (("qps_ratio",), 99.0, "order of calls"),
    ],
)
def test_a_changed_figure_is_found(reports, path, value, rule):
    evaluation, thresholds = reports
    changed = copy.deepcopy(thresholds)
    entry = changed["policies"][-1]
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    assert "broken" in verdicts(audit_issue(evaluation, changed), rule)


@pytest.mark.parametrize(
    ("key", "value"), [("views_trigger", 1000), ("filtered", "keep_base_score"), ("accept_threshold", 0.9)]
)
def test_rules_that_do_not_apply_are_not_asked(reports, key, value):
    evaluation, thresholds = reports
    changed = copy.deepcopy(thresholds)
    for entry in changed["policies"]:
        entry["policy"][key] = value
        entry["test"]["r_at_p60"] = 0.9999
    findings = audit_issue(evaluation, changed)
    assert set(verdicts(findings, "ceiling")) == set(verdicts(findings, "cost")) == {"not asked"}
    assert not any("prevalence of" in finding.explanation for finding in findings)


def test_keys_beside_recalls_are_passed_over():
    assert recalls({"r_at_p60": 0.5, "r_at_p70": None, "r_at_p60_interval": [0.4, 0.6], "f1": 1}) == {60: 0.5, 70: None}


def test_cost_by_hand():
    # 1000 videos, 100 positives, base escalates 120 of which 60 are positives
    assert expected_qps_ratio(0.1, 0.6, 0.5) == pytest.approx(12.0)
    allowed = implied_prevalence(12.0, 0.5, 0.6)
    assert allowed.low == allowed.high == pytest.approx(0.1)


def test_ucc_prevalence_is_one_and_the_same():
    """QPS · P / R gives 8.9 % at P_base 60 and at 70; rounding leaves room for a common value."""
    for row, recall in zip(PAPER["ucc"].cascade[1:], (0.898, 0.845), strict=True):
        assert implied_prevalence(row.qps_ratio, row.p_base / 100, recall).low == pytest.approx(0.089, abs=1e-3)
    allowed = prevalence_range(PAPER["ucc"])
    assert not allowed.empty
    assert (allowed.low, allowed.high) == pytest.approx((0.0890, 0.0893), abs=2e-4)


def test_only_one_row_of_the_paper_breaks_the_ceiling():
    broken = [finding for finding in audit_paper() if finding.verdict == "broken"]
    assert [(finding.rule, finding.where) for finding in broken] == [("ceiling", "ucc, Table 2, P_base 70")]
    assert (broken[0].expected, broken[0].found) == (84.5, 88.4)
    assert "3.9 points" in broken[0].explanation


def test_command(reports, tmp_path, monkeypatch):
    from coefvq.__main__ import app

    run = CliRunner().invoke(app, ["cascade", "audit", "--paper", "--json"])
    assert run.exit_code == 0, run.output
    assert sum(finding["verdict"] == "broken" for finding in json.loads(run.stdout)) == 1
