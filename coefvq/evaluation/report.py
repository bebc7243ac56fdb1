"""From the scores table to the two JSON reports: the models alone, and the cascade made of them.

Thresholds come from validation with drawn labels and are applied unchanged to test; the QPS ratio comes
from the traffic split. Where the world is synthetic every test row carries its known posterior, and each
figure exists twice: against the drawn label, and (``test_posterior``) against the posterior, which removes
label noise and adds the Bayes bounds. Beside the models stand yardsticks: what the container facts alone
reach, and the bounds. Shares are in [0, 1].

evaluation.json::

    issue, precision_targets
    val | test | test_posterior:      # the last is null unless every test row has a posterior
      n, positives
      base | mllm | shortcut | bayes_vision | bayes_vision_text | bayes:   # null where unknown
        n, positives, prevalence, decision_threshold, f1, precision, recall,
        f1_fixed, average_precision, roc_auc, expected_calibration_error, r_at_p60, ...
    detail: confidence, group_by, intervals (model -> figure -> value, low, high), slices
    prevalence: test, traffic_estimate, at_traffic (base, mllm)

thresholds.json::

    issue, precision_targets, mode, selected (P_base or null), reason, policy, mllm_only_f1_val
    detail: as above, of the chosen cascade
    policies: p_base, reachable, selected, policy (null when unreachable)
      base_precision_val, base_recall_val, base_positives_val, base_recall_test
      val | test | test_posterior:    # as above, of the final score
      qps_ratio (percent, traffic; null without traffic), qps_ratio_interval, qps_ratio_val
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.call_share import CallShare, choose_for_share
from coefvq.cascade.curves import at_threshold, best_f1_threshold
from coefvq.cascade.modes import Objective, choose
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import (
    CascadeCandidate,
    Selection,
    escalate_all,
    search,
    select,
)
from coefvq.evaluation.labelled import BOUNDS, SHORTCUT, LabelledSplit, labelled_split, split_rows
from coefvq.evaluation.metrics import Summary, classification_summary, expected_calibration_error
from coefvq.evaluation.own_metrics import own_metrics
from coefvq.evaluation.score_files import Columns, check_disjoint
from coefvq.evaluation.traffic import measured_share, share_caution, traffic_columns

if TYPE_CHECKING:
    import pandas as pd


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
    listed last, with ``p_base`` None. With a ``CallShare`` the base threshold is read off the traffic, and each half
    of the traffic is measured at the threshold that the other half gives.

    Raises:
        DataError: as :func:`evaluation_report`.
        InfeasibleError: no pair of thresholds meets the objective.
        ConfigError: a threshold setting does not fit a policy.
    """
    check_disjoint(scores, Columns(), "val", "test")
    val = labelled_split(scores, "val").scored()
    candidates = search(issue, val, p_base_list, views_trigger)
    everything = escalate_all(issue, val)
    arriving = split_rows(scores, "traffic")
    # percent of calls for which a base threshold was read off the traffic
    asked: float | None = None
    if isinstance(objective, CallShare):
        added, choice = choose_for_share(issue, val, traffic_columns(arriving), objective, views_trigger)
        choice = replace(choice, reason=choice.reason + share_caution(choice.policy, objective.qps, len(arriving)))
        asked = objective.qps
    elif objective is not None:
        best, reason = choose(issue, val, objective, views_trigger)
        added, choice = (best,), Selection(cast(CascadePolicy, best.policy), None, reason)
    else:
        choice = select(candidates, everything, max_f1_loss)
        added = () if choice.p_base is not None else (everything,)
    listed = (*((item, None) for item in candidates), *((item, asked) for item in added))
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
                **_measured(scores, arriving, candidate, asked, precision_targets, own),
                "selected": candidate.policy == choice.policy,
            }
            for candidate, asked in listed
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
    asked: float | None,
    precision_targets: Sequence[float],
    own: Sequence[str],
) -> dict[str, Any]:
    """One candidate's validation figures and, if it has a policy, those on test and on the ``arriving`` traffic.

    ``asked``: percent of calls for which its base threshold was read off that traffic.
    """
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
        **measured_share(arriving, policy, asked),
        "base_recall_test": at_threshold(test.label, test.base, policy.base_threshold, test.weight).recall,
    }


def _evaluated(policy: CascadePolicy, split: LabelledSplit, targets: Sequence[float], own: Sequence[str]) -> Summary:
    return evaluate_policy(policy, split.label, split.base, split.mllm, split.views, split.weight, targets, own)
