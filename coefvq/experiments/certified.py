"""The row of Table 2 whose thresholds keep a promise on new data (coefvq/cascade/guarantees.py)."""

from __future__ import annotations

import numpy as np

from coefvq.cascade.escalation import withhold_zeros
from coefvq.cascade.guarantees import certify
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.promises import Promise
from coefvq.cascade.search import ScoredSplit
from coefvq.experiments.grid import PromiseSpec


def certified_row(base: str, wanted: PromiseSpec) -> str:
    """Name of the row of a base: ``distilled, certified: precision 40 %, 20 % of calls``."""
    return f"{base}, certified: precision {wanted.precision:g} %, {wanted.qps:g} % of calls"


def certified_policy(issue: str, val: ScoredSplit, wanted: PromiseSpec) -> CascadePolicy:
    """The policy that validation certifies; it is proposed on one part of validation and tested on the other.

    Raises:
        InfeasibleError: none can be certified; names the labels that would probably do.
        DataError: a part of validation holds one class only, or its weights differ.
    """
    promise = Promise(precision=wanted.precision / 100.0, qps=wanted.qps, delta=wanted.delta)
    found = certify(val.label, val.base, withhold_zeros(np.asarray(val.mllm)), promise, weight=val.weight)
    return CascadePolicy(
        issue=issue,
        base_threshold=found.base_threshold,
        decision_threshold=found.decision_threshold,
        p_base=None,
        views_trigger=None,
    )
