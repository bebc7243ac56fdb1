"""The policies of a deployment over stored scores: a new decision without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coefvq.cascade.policy import CascadePolicy
from coefvq.inference.decisions import Answers, decide, route
from coefvq.records import ScoredVideo
from coefvq.vmp.deployment import Redecide


def redecider(policies: Mapping[str, CascadePolicy], bundles: Mapping[str, str]) -> Redecide:
    """Apply the policies of a deployment; a stored issue that it does not score needs the models."""

    def again(issue: str, stored: Mapping[str, Any], views: int | None) -> ScoredVideo | None:
        if issue not in policies:
            return None
        return redecide(policies[issue], bundles[issue], stored, views)

    return again


def redecide(
    policy: CascadePolicy, bundle_version: str, stored: Mapping[str, Any], views: int | None
) -> ScoredVideo | None:
    """Decide by ``policy`` on the stored scores of its issue, at ``views``; the video id stays empty.

    Returns:
        None where a model has to be asked: the score failed, or the MLLM is needed and never answered.
    """
    base, mllm = stored.get("base_score"), stored.get("mllm_score")
    if base is None or stored.get("error") is not None or stored.get("degraded"):
        return None
    scores, seen = np.array([base], np.float64), np.array([np.nan if views is None else views], np.float64)
    answers = Answers(np.array([np.nan if mllm is None else mllm], np.float64), {})
    probability = stored.get("audit_probability")
    sent = route(policy, scores, seen, np.array([probability is not None and mllm is not None]))
    if sent.to_mllm and mllm is None:
        return None
    made = decide(policy, sent, scores, seen, answers)
    final = float(made.final[0])
    undecided = bool(np.isnan(final))
    return ScoredVideo(
        video_id="",
        issue=policy.issue,
        base_score=base,
        mllm_score=mllm,
        positive=None if undecided else final >= policy.decision_threshold,
        decided_by="none" if undecided else "mllm" if made.by_mllm[0] else "base",
        bundle_version=bundle_version,
        audit_probability=probability if made.drawn[0] else None,
        metadata=dict(stored.get("metadata", {})),
    )
