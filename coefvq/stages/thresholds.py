"""scores.parquet -> the cascade's policy, picked on validation data and reported on test and traffic."""

from __future__ import annotations

from coefvq.config import Params
from coefvq.data.manifest import read_table
from coefvq.evaluation.plots import frontier_rows, pr_curve_rows, write_result_figure
from coefvq.evaluation.report import cascade_report
from coefvq.files import write_json
from coefvq.stages.common import say


def run(params: Params, issue: str) -> None:
    """Search P_base, choose one and write its policy."""
    settings = params.thresholds[issue]
    scores = read_table(params.paths.report(issue, "scores.parquet"))
    report = cascade_report(
        scores,
        issue,
        settings.p_base,
        settings.max_f1_loss,
        settings.views_trigger,
        params.evaluate.precision_targets,
    )
    write_json(params.paths.report(issue, "thresholds.json"), report)
    write_json(params.paths.report(issue, "policy.json"), report["policy"])
    write_json(params.paths.report(issue, "frontier.json"), frontier_rows(scores, report))
    write_json(params.paths.report(issue, "pr_curve.json"), pr_curve_rows(scores, report))
    write_result_figure(scores, report, params.paths.report(issue, "result.png"))
    say(f"[{issue}] {report['reason']}")
