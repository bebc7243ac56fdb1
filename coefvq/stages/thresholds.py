"""scores.parquet -> policy and calibration, made on validation; the policy is measured on test and traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from coefvq.cascade.call_share import CallShare
from coefvq.cascade.modes import Objective
from coefvq.cascade.objectives import Prices
from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Thresholds
from coefvq.data.manifest import read_table
from coefvq.evaluation.detail import DetailSettings, against_models, calibration_report, detail_report
from coefvq.evaluation.labelled import labelled_split
from coefvq.evaluation.report import cascade_report
from coefvq.files import write_json
from coefvq.records import REQUIRED_SCORE_COLUMNS
from coefvq.reporting.plots import frontier_rows, pr_curve_rows, validation_frontier, write_result_figure
from coefvq.stages.common import detail_settings, evaluated_rows
from coefvq.stages.inputs import ThresholdsInputs
from coefvq.terminal import say


def run(inputs: ThresholdsInputs) -> None:
    """Search P_base, choose one and write its policy."""
    settings, issue, paths = inputs.thresholds, inputs.issue, inputs.paths
    scores = read_table(paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    report = search_policies(scores, issue, settings, inputs.evaluate.precision_targets, inputs.evaluate.metrics)
    policy = CascadePolicy.from_dict(report["policy"])
    manifest = evaluated_rows(paths, inputs.evaluate)
    wanted = detail_settings(inputs.evaluate, inputs.seed)
    report["detail"] = _detail(scores, manifest, policy, wanted)
    report["against_models"] = against_models(scores, manifest, policy, wanted)
    write_json(paths.report(issue, "thresholds.json"), report)
    write_json(paths.report(issue, "policy.json"), report["policy"])
    write_json(paths.report(issue, "calibration.json"), calibration_report(scores))
    frontier = validation_frontier(scores, report)
    write_json(paths.report(issue, "frontier.json"), frontier_rows(scores, report, frontier))
    write_json(paths.report(issue, "pr_curve.json"), pr_curve_rows(scores, report))
    write_result_figure(scores, report, paths.report(issue, "result.png"), frontier)
    say(f"[{issue}] {report['reason']}")


def search_policies(
    scores: pd.DataFrame,
    issue: str,
    settings: Thresholds,
    precision_targets: Sequence[float],
    own: Sequence[str] = (),
) -> dict[str, Any]:
    """``cascade_report`` by the rule of the settings.

    Raises:
        DataError: a column is unusable, or a split lacks rows or a class.
        InfeasibleError: no pair of thresholds meets the objective.
        ConfigError: a setting does not fit a policy.
    """
    report = cascade_report(
        scores,
        issue,
        settings.p_base,
        settings.max_f1_loss or 0.0,
        settings.views_trigger,
        precision_targets,
        _objective(settings),
        own,
    )
    for entry in (report, *report["policies"]):
        if entry["policy"] is not None:
            entry["policy"] |= {"mllm_down": settings.mllm_down}
    return report


def _objective(settings: Thresholds) -> Objective | CallShare | None:
    """What the mode wants, percents as shares; None: the paper's way."""
    if settings.mode == "paper":
        return None
    if settings.mode == "qps":
        return CallShare(settings.max_qps_ratio or 100.0, settings.min_kept_f1 or 0.0, settings.policy)
    prices = settings.prices
    return Objective(
        mode=settings.mode,
        precision=settings.precision / 100.0 if settings.precision is not None else 0.8,
        qps=settings.max_qps_ratio or 100.0,
        max_recall_loss=settings.max_recall_loss or 0.0,
        prices=None if prices is None else Prices(prices.call, prices.false_positive, prices.miss),
        accept_threshold=settings.accept_threshold,
    )


def _detail(
    scores: pd.DataFrame, manifest: pd.DataFrame, policy: CascadePolicy, settings: DetailSettings
) -> dict[str, Any]:
    """Intervals and slices of the chosen cascade on test."""
    test = labelled_split(scores, "test")
    score = policy.ranking_score(test.base, test.mllm, test.views)
    models = {"cascade": (score, policy.decision_threshold)}
    judged = policy.judges(test.base, test.views)
    return detail_report(scores, manifest, models, settings, judged)
