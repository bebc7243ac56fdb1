"""What the MLLM has answered in a stream, with the probability with which it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coefvq.vmp.audit import kind_of
from coefvq.vmp.keys import split


@dataclass(frozen=True)
class Answer:
    """``score`` is P(positive) by the MLLM of the pair ``bundle``, ``probability`` that of its having been asked."""

    video_id: str
    score: float
    probability: float
    bundle: str


def answers(scores: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Answer]:
    """Of rows as ``IndexStore.scores`` gives them, those that the MLLM has answered.

    What the base threshold escalated was asked for certain; what an audit drew, with the audit's probability.
    """
    for key, score in scores:
        if kind_of(score) is not None and (found := score.get("mllm_score")) is not None:
            drawn = score.get("audit_probability")
            probability = 1.0 if drawn is None else float(drawn)
            yield Answer(split(key)[1], float(found), probability, str(score.get("bundle_version")))
