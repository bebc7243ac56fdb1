"""From the scores table to the two JSON reports: the models alone, and the cascade made of them.

Thresholds come from validation with drawn labels and are applied unchanged to test; the QPS ratio comes
from the traffic split. Where the world is synthetic every test row carries its known posterior, and each
figure exists twice: against the drawn label, and (``test_posterior``) against the posterior, which removes
label noise and adds the Bayes bounds. Beside the models stand yardsticks: what the container facts alone
reach, and the bounds. The structures are described in docs/cascade.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.call_share import CallShare, choose_for_share
from coefvq.cascade.curves import FloatArray, at_threshold, best_f1_threshold
from coefvq.cascade.modes import Objective, choose
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import (
    CascadeCandidate,
    ScoredSplit,
    Selection,
    escalate_all,
    search,
    select,
)
from coefvq.errors import DataError
from coefvq.evaluation.metrics import Summary, classification_summary, expected_calibration_error
from coefvq.evaluation.own_metrics import own_metrics
from coefvq.evaluation.score_files import Columns, check_disjoint, float_column
from coefvq.evaluation.traffic import chooses_threshold, measured_share, share_caution, traffic_columns
from coefvq.records import REQUIRED_SCORE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

#: rows of the report beside base and MLLM, and their columns in scores.parquet
SHORTCUT = "shortcut"
BOUNDS = {"bayes_vision": "posterior_vision", "bayes_vision_text": "posterior_vision_text", "bayes": "posterior"}


@dataclass(frozen=True)
class LabelledSplit:
    """Columns of one labelled split, each float64 [n]; ``posterior`` is None unless every row has one.

    ``yardsticks`` holds the scores of :data:`SHORTCUT` and :data:`BOUNDS` that every row has.
    """

    label: FloatArray
    posterior: FloatArray | None
    base: FloatArray
    mllm: FloatArray
    views: FloatArray
    weight: FloatArray
    yardsticks: Mapping[str, FloatArray]

    def scored(self) -> ScoredSplit:
        """The columns the threshold search takes."""
        return ScoredSplit(self.label, self.base, self.mllm, self.views, self.weight)

    def against_posterior(self) -> LabelledSplit | None:
        """The same rows with the posterior as soft label; None without one."""
        return None if self.posterior is None else replace(self, label=self.posterior)


def evaluation_report(
    scores: pd.DataFrame, issue: str, precision_targets: Sequence[float], own: Sequence[str] = ()
) -> dict[str, Any]:
    """Base, MLLM and (where known) the yardsticks alone, on ``val``, ``test`` and ``test_posterior``.

    Args:
        scores: a table with ``records.REQUIRED_SCORE_COLUMNS``, the optional ones where known.
        issue: name put into the report.
        precision_targets: P of R@P, in percent.
        own: names of metrics that packages register.

    Raises:
        DataError: a column is missing, a score is unusable, or val or test lacks rows or a class.
    """
    check_disjoint(scores, Columns(), "val", "test")
    val, test = labelled_split(scores, "val"), labelled_split(scores, "test")
    thresholds = _thresholds(val, known=test.yardsticks.keys() if test.posterior is not None else {SHORTCUT})
    soft = test.against_posterior()
    return {
        "issue": issue,
        "precision_targets": list(precision_targets),
        "metrics": list(own),
        "val": _models_alone(val, thresholds, precision_targets, own),
        "test": _models_alone(test, thresholds, precision_targets, own),
        "test_posterior": None if soft is None else _models_alone(soft, thresholds, precision_targets, own),
    }


def cascade_report(
    scores: pd.DataFrame,
    issue: str,
    p_base_list: Iterable[float],
    max_f1_loss: float,
    views_trigger: int | None,
    precision_targets: Sequence[float],
    objective: Objective | CallShare | None = None,
    own: Sequence[str] = (),
) -> dict[str, Any]:
    """Search on val, choose, and measure every candidate on test and traffic with its thresholds frozen.

    ``selected`` is the chosen P_base; None says that none was reachable and the report's ``policy``
    escalates everything, or that an ``objective`` was given, whose policy is the chosen one. Either is then
    listed last, with ``p_base`` None. With a ``CallShare`` the base threshold is read off one half of the traffic
    and the QPS ratio of every policy is measured on the other half.

    Raises:
        DataError: as :func:`evaluation_report`.
        InfeasibleError: no pair of thresholds meets the objective.
        ConfigError: a threshold setting does not fit a policy.
    """
    check_disjoint(scores, Columns(), "val", "test")
    val = labelled_split(scores, "val").scored()
    candidates = search(issue, val, p_base_list, views_trigger)
    everything = escalate_all(issue, val)
    arriving = _rows(scores, "traffic")
    if isinstance(objective, CallShare):
        seen = chooses_threshold(arriving)
        found, choice = choose_for_share(issue, val, traffic_columns(arriving[seen]), objective, views_trigger)
        choice = replace(choice, reason=choice.reason + share_caution(choice.policy, objective.qps, len(arriving)))
        listed, arriving = (*candidates, *found), arriving[~seen]
    elif objective is not None:
        best, reason = choose(issue, val, objective, views_trigger)
        choice = Selection(cast(CascadePolicy, best.policy), None, reason)
        listed = (*candidates, best)
    else:
        choice = select(candidates, everything, max_f1_loss)
        listed = candidates if choice.p_base is not None else (*candidates, everything)
    return {
        "issue": issue,
        "precision_targets": list(precision_targets),
        "mode": "paper" if objective is None else objective.mode,
        "selected": choice.p_base,
        "reason": choice.reason,
        "policy": choice.policy.to_dict(),
        "mllm_only_f1_val": everything.f1,
        "traffic_measured": len(arriving),
        "policies": [
            {
                **_measured(scores, arriving, candidate, precision_targets, own),
                "selected": candidate.policy == choice.policy,
            }
            for candidate in listed
        ],
    }


def evaluate_policy(
    policy: CascadePolicy,
    label: ArrayLike,
    base: ArrayLike,
    mllm: ArrayLike,
    views: ArrayLike | None,
    weight: ArrayLike | None,
    precision_targets: Iterable[float],
    own: Sequence[str] = (),
) -> Summary:
    """The cascade as one score: F1 at its frozen thresholds, R@P along its final score.

    What a filtered-out video counts as is the policy's to say. As negatives (the paper) they are never
    retrieved, so no recall exceeds the base model's at the base threshold (without a views trigger); excluded
    ones are in no figure.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    score = policy.ranking_score(base, mllm, views)
    weights = np.ones(len(score)) if weight is None else np.asarray(weight, dtype=np.float64)
    judged = policy.judges(base, views)
    labels = np.asarray(label, dtype=np.float64)[judged]
    kept, rows = score[judged], weights[judged]
    summary = classification_summary(labels, kept, rows, policy.decision_threshold, precision_targets)
    return summary | own_metrics(own, labels, kept, rows)


def labelled_split(scores: pd.DataFrame, split: str) -> LabelledSplit:
    """The labelled rows of ``split`` as columns.

    Raises:
        DataError: a column is missing, there is no labelled row, or a score is missing.
    """
    rows = _rows(scores, split)
    rows = rows[rows["label"].notna()]
    if not len(rows):
        raise DataError(f"scores: no labelled row in split '{split}'; label more videos or change split.fractions")
    for column in ("base", "mllm", "weight"):
        missing = rows[column].isna()
        if missing.any():
            video = rows.loc[missing, "video_id"].iloc[0]
            raise DataError(f"scores: {column} of video {video} ({split}) is missing; run predict again")
    yardsticks = _yardsticks(rows)
    return LabelledSplit(
        label=float_column(rows, "label"),
        posterior=yardsticks.get("bayes"),
        base=float_column(rows, "base"),
        mllm=float_column(rows, "mllm"),
        views=float_column(rows, "views"),
        weight=float_column(rows, "weight"),
        yardsticks=yardsticks,
    )


def _yardsticks(rows: pd.DataFrame) -> dict[str, FloatArray]:
    """Yardsticks that every row has; a table written before one existed lacks its column."""
    columns = {SHORTCUT: SHORTCUT, **BOUNDS}
    found = {name: float_column(rows, column) for name, column in columns.items() if column in rows.columns}
    return {name: score for name, score in found.items() if not np.isnan(score).any()}


def _thresholds(val: LabelledSplit, known: Collection[str]) -> dict[str, float]:
    """Best F1 on val per score; ``known`` are the yardsticks that test has too.

    A bound should not suffer from noise in its threshold, so it is chosen on the posterior itself.
    """
    chosen = {"base": (val.label, val.base), "mllm": (val.label, val.mllm)}
    for name, score in val.yardsticks.items():
        if name in known and name == SHORTCUT:
            chosen[name] = (val.label, score)
        elif name in known and val.posterior is not None:
            chosen[name] = (val.posterior, score)
    return {name: best_f1_threshold(label, score, val.weight).threshold for name, (label, score) in chosen.items()}


def _models_alone(
    split: LabelledSplit, thresholds: dict[str, float], precision_targets: Sequence[float], own: Sequence[str]
) -> dict[str, Any]:
    score_of = {"base": split.base, "mllm": split.mllm, **dict.fromkeys((SHORTCUT, *BOUNDS)), **split.yardsticks}
    report: dict[str, Any] = {"n": len(split.label), "positives": float(split.label.sum())}
    for name, score in score_of.items():
        if score is None or name not in thresholds:
            report[name] = None
            continue
        report[name] = {
            **classification_summary(split.label, score, split.weight, thresholds[name], precision_targets),
            "expected_calibration_error": expected_calibration_error(split.label, score, split.weight),
            **own_metrics(own, split.label, score, split.weight),
        }
    return report


def _measured(
    scores: pd.DataFrame,
    arriving: pd.DataFrame,
    candidate: CascadeCandidate,
    precision_targets: Sequence[float],
    own: Sequence[str],
) -> dict[str, Any]:
    """One candidate's validation figures and, if it has a policy, those on test and on the ``arriving`` traffic."""
    entry: dict[str, Any] = {
        "name": candidate.name,
        "p_base": candidate.p_base,
        "reachable": candidate.reachable,
        "base_precision_val": candidate.base_precision,
        "base_recall_val": candidate.base_recall,
        "base_positives_val": candidate.support,
        "qps_ratio_val": candidate.qps_ratio,
        "policy": None,
        "val": None,
        "test": None,
        "test_posterior": None,
        "qps_ratio": None,
        "qps_ratio_interval": None,
        "base_recall_test": None,
    }
    policy = candidate.policy
    if policy is None:
        return entry
    test = labelled_split(scores, "test")
    soft = test.against_posterior()
    return entry | {
        "policy": policy.to_dict(),
        "val": _evaluated(policy, labelled_split(scores, "val"), precision_targets, own),
        "test": _evaluated(policy, test, precision_targets, own),
        "test_posterior": None if soft is None else _evaluated(policy, soft, precision_targets, own),
        **measured_share(arriving, policy),
        "base_recall_test": at_threshold(test.label, test.base, policy.base_threshold, test.weight).recall,
    }


def _evaluated(policy: CascadePolicy, split: LabelledSplit, targets: Sequence[float], own: Sequence[str]) -> Summary:
    return evaluate_policy(policy, split.label, split.base, split.mllm, split.views, split.weight, targets, own)


def _rows(scores: pd.DataFrame, split: str) -> pd.DataFrame:
    missing = [column for column in REQUIRED_SCORE_COLUMNS if column not in scores.columns]
    if missing:
        raise DataError(f"scores: column '{missing[0]}' is missing; run predict again")
    return scores[scores["split"] == split]
