"""Both models, policy, data hashes and figures -> candidate.json; the headline figures -> metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Paths
from coefvq.data.splits.rows import data_hashes
from coefvq.data.validation.profile import Profile, check_profile
from coefvq.files import read_json, write_json
from coefvq.records import label_column
from coefvq.registry.bundle import ModelRef, build_candidate, model_ref
from coefvq.reporting.files import read_calibration, read_evaluation, read_stability, read_thresholds
from coefvq.stages.common import data_ref, train_profile
from coefvq.stages.inputs import CandidateInputs


def run(inputs: CandidateInputs) -> None:
    """Bind everything a release is made of."""
    issue, paths = inputs.issue, inputs.paths
    evaluation = read_evaluation(paths.report(issue, "evaluation.json"))
    thresholds = read_thresholds(paths.report(issue, "thresholds.json"))
    stability = read_stability(paths.report(issue, "stability.json"))
    candidate = build_candidate(
        issue,
        base=_model(paths, "base", issue),
        mllm=_model(paths, "mllm", issue),
        policy=_policy(paths.report(issue, "policy.json")),
        preprocessing=_preprocessing(inputs),
        data=data_ref(data_hashes(paths)).model_copy(update={"profile": _profile(inputs)}),
        params={"seed": inputs.seed},
        metrics={
            **evaluation["test"],
            "base": _base_figures(evaluation),
            "cascade": chosen_figures(thresholds),
            "against_models": thresholds.get("against_models"),
            "stability": {key: stability[key] for key in ("n", "flip_rate")},
        },
        calibration=_calibration(read_calibration(paths.report(issue, "calibration.json"))),
    )
    write_json(paths.report(issue, "candidate.json"), candidate.to_json())
    write_json(
        paths.report(issue, "metrics.json"), {issue: _headline(candidate.metrics, evaluation.get("metrics", ()))}
    )


def _preprocessing(inputs: CandidateInputs) -> dict[str, Any]:
    """Served as it was scored: thresholds hold for these settings only, and for clips within these limits."""
    scoring, limits = inputs.predict.model_dump(exclude={"batch_size"}), inputs.limits.model_dump()
    return inputs.media.model_dump() | {"scoring": scoring, "limits": limits}


def _policy(path: Path) -> dict[str, Any]:
    """The policy as its file has it, after the check that serving makes too."""
    raw: dict[str, Any] = read_json(path)
    CascadePolicy.from_dict(raw, str(path))
    return raw


def _profile(inputs: CandidateInputs) -> Profile:
    """What the rows to train on look like, without other issues' labels."""
    path, issue = inputs.paths.train_profile, inputs.issue
    if not path.is_file():  # dvc.yaml of a workspace from before the split wrote it
        return train_profile(inputs.paths, [issue])
    known = check_profile(read_json(path), str(path))
    own, labels = label_column(issue), label_column("")
    columns = known["columns"].items()
    return known | {"columns": {name: facts for name, facts in columns if name == own or not name.startswith(labels)}}


def _calibration(report: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen calibrator per model; None where none makes the scores better."""
    return {name: None if row["chosen"] is None else row["calibrators"][row["chosen"]] for name, row in report.items()}


def _model(paths: Paths, kind: Any, issue: str) -> ModelRef:
    return model_ref(paths.model_dir(kind, issue), paths.run_record(kind, issue))


def _base_figures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Of the base model on test, with the interval that the gate shows."""
    known = (evaluation.get("detail") or {"intervals": {}})["intervals"].get("base") or {}
    return {**evaluation["test"]["base"], "roc_auc_interval": known.get("roc_auc")}


def _headline(metrics: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """The figures people compare runs by, few enough for one line of `dvc metrics show`."""
    rows = {name: row for name, row in metrics.items() if name in ("base", "mllm", "cascade") and row}
    wanted = ("f1", "average_precision", "roc_auc", "qps_ratio", *own)
    return {
        name: {key: value for key, value in row.items() if key in wanted or key.startswith("r_at_p")}
        for name, row in rows.items()
    }


def chosen_figures(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """Figures on test of the policy that was chosen, with its QPS ratio on traffic (percent)."""
    entry = next(item for item in thresholds["policies"] if item["selected"])
    return {**entry["test"], **{key: entry.get(key) for key in ("qps_ratio", "qps_ratio_interval")}}
