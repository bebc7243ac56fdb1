"""scores.parquet -> evaluation.json and score histograms."""

from __future__ import annotations

from coefvq.config import Params
from coefvq.data.manifest import read_table
from coefvq.evaluation.detail import detail_report, prevalence_report
from coefvq.evaluation.report import evaluation_report, labelled_split
from coefvq.files import write_json
from coefvq.records import REQUIRED_SCORE_COLUMNS
from coefvq.reporting.plots import score_histogram_rows
from coefvq.stages.common import detail_settings, split_manifest


def run(params: Params, issue: str) -> None:
    """Report both models alone, with the metadata shortcut, and the Bayes rows where the world is synthetic.

    With intervals, slices and the figures at the traffic's prevalence.
    """
    scores = read_table(params.paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    report = evaluation_report(scores, issue, params.evaluate.precision_targets)
    thresholds = {name: report["test"][name]["decision_threshold"] for name in ("base", "mllm")}
    test = labelled_split(scores, "test")
    models = {"base": (test.base, thresholds["base"]), "mllm": (test.mllm, thresholds["mllm"])}
    report["detail"] = detail_report(scores, split_manifest(params), models, detail_settings(params))
    report["prevalence"] = prevalence_report(scores, thresholds, params.evaluate.precision_targets)
    write_json(params.paths.report(issue, "evaluation.json"), report)
    write_json(params.paths.report(issue, "histogram.json"), score_histogram_rows(scores))
