"""The policies of a deployment over stored scores: a new decision without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from coefvq.cascade.policy import CascadePolicy
from coefvq.inference import stages
from coefvq.inference.decisions import Answers
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

    Where the MLLM is needed and never answered, the row says so in ``awaits``.

    Returns:
        None where the base model has to be asked too: the score failed, or a rule stood in for the MLLM.
    """
    base, mllm = stored.get("base_score"), stored.get("mllm_score")
    if base is None or stored.get("error") is not None or stored.get("degraded") or stored.get("awaits"):
        return None
    probability = stored.get("audit_probability")
    first = ScoredVideo(
        "", policy.issue, base, None, None, "none", bundle_version, audit_probability=probability,
        metadata=dict(stored.get("metadata", {})),
    )  # fmt: skip
    if mllm is None and stages.escalates(policy, first, views):
        return replace(first, awaits="mllm")
    answers = Answers(np.array([np.nan if mllm is None else mllm], np.float64), {})
    return stages.verdict(policy, first, views, answers, audited=probability is not None and mllm is not None)
