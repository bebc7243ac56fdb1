"""What the best possible scorer of each view reaches on the whole population of the synthetic world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coefvq.simulation.synthetic.world import VIEWS, Array, check_prevalence, view_masses

_ROUNDING = 1e-12

#: {issue: {view: {figure: value in [0, 1]}}}
BayesTable = dict[str, dict[str, dict[str, float]]]


def bayes_table(prevalence: Mapping[str, float], precision_targets: Sequence[float]) -> BayesTable:
    """Exact figures of the posterior of each view, used as a score.

    ``precision_targets`` in percent. Figures are ``f1`` (best threshold), ``recall_at_p<target>`` (highest
    recall at that precision or better, 0 where none reaches it) and ``auc`` (ROC), all in [0, 1].

    Raises:
        DataError: ``prevalence`` does not fit (see ``check_prevalence``).
    """
    return {
        issue: {view: _figures(*view_masses(issue, value, view), precision_targets) for view in VIEWS}
        for issue, value in check_prevalence(prevalence).items()
    }


def _figures(positives: Array, mass: Array, targets: Sequence[float]) -> dict[str, float]:
    # cells of equal score fall on the same side of any threshold, also where rounding tells them apart
    _, group = np.unique(-np.round(positives / mass / _ROUNDING).ravel(), return_inverse=True)
    found = np.bincount(group, positives.ravel())
    false = np.bincount(group, (mass - positives).ravel())
    true_positives, false_positives = np.cumsum(found), np.cumsum(false)
    recall = true_positives / true_positives[-1]
    precision = true_positives / (true_positives + false_positives)
    ranked_above = true_positives - found / 2  # ties count half

    def reached(target: float) -> NDArray[np.bool_]:
        return precision >= target / 100 - _ROUNDING

    return {
        "f1": float((2 * precision * recall / (precision + recall)).max()),
        **{f"recall_at_p{t:g}": float(recall[reached(t)].max(initial=0.0)) for t in targets},
        "auc": float((false * ranked_above).sum() / (true_positives[-1] * false_positives[-1])),
    }
