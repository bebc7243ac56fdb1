"""scores.parquet -> evaluation.json and score histograms."""

from __future__ import annotations

from coefvq.data.manifest import read_table
from coefvq.evaluation.detail import detail_report, prevalence_report
from coefvq.evaluation.labelled import labelled_split
from coefvq.evaluation.report import evaluation_report
from coefvq.files import write_json
from coefvq.records import REQUIRED_SCORE_COLUMNS
from coefvq.reporting.plots import score_histogram_rows
from coefvq.stages.common import detail_settings, evaluated_rows
from coefvq.stages.inputs import EvaluateInputs


def run(inputs: EvaluateInputs) -> None:
    """Report both models alone, with the metadata shortcut, and the Bayes rows where the world is synthetic.

    With intervals, slices and the figures at the traffic's prevalence.
    """
    issue, paths, evaluate = inputs.issue, inputs.paths, inputs.evaluate
    scores = read_table(paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    report = evaluation_report(scores, issue, evaluate.precision_targets, evaluate.metrics)
    thresholds = {name: report["test"][name]["decision_threshold"] for name in ("base", "mllm")}
    test = labelled_split(scores, "test")
    models = {"base": (test.base, thresholds["base"]), "mllm": (test.mllm, thresholds["mllm"])}
    manifest = evaluated_rows(paths, evaluate)
    report["detail"] = detail_report(scores, manifest, models, detail_settings(evaluate, inputs.seed))
    report["prevalence"] = prevalence_report(scores, thresholds, evaluate.precision_targets)
    write_json(paths.report(issue, "evaluation.json"), report)
    write_json(paths.report(issue, "histogram.json"), score_histogram_rows(scores))
