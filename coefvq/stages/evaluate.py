"""scores.parquet -> evaluation.json and score histograms."""

from __future__ import annotations

from coefvq.config import Params
from coefvq.data.manifest import read_table
from coefvq.evaluation.plots import score_histogram_rows
from coefvq.evaluation.report import evaluation_report
from coefvq.files import write_json


def run(params: Params, issue: str) -> None:
    """Report both models alone, with the metadata shortcut, and the Bayes rows where the world is synthetic."""
    scores = read_table(params.paths.report(issue, "scores.parquet"))
    report = evaluation_report(scores, issue, params.evaluate.precision_targets)
    write_json(params.paths.report(issue, "evaluation.json"), report)
    write_json(params.paths.report(issue, "histogram.json"), score_histogram_rows(scores))
