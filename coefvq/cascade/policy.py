"""The cascade's policy: who is escalated to the MLLM, and what is decided (paper, section 2.2).

One class serves evaluation, bulk scoring and streaming, so a video is treated alike in all three.
Every comparison is ``>=``: a score equal to its threshold passes.

A video that is filtered out counts as negative and its final score is 0. Because the decision threshold
is greater than 0 by construction, a filtered video can never be decided positive, and neither can one
whose MLLM score is exactly 0: ``decide`` and ``final_score >= decision_threshold`` are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coefvq.cascade.curves import FloatArray
from coefvq.config import Fraction, IssueName, Percent
from coefvq.errors import ConfigError, DataError

BoolArray = NDArray[np.bool_]


class CascadePolicy(BaseModel):
    """Frozen thresholds of one issue's cascade.

    ``base_threshold`` and ``decision_threshold`` are probabilities; ``p_base`` is the precision in percent
    that the base model had to reach on validation (None: no base threshold was sought);
    ``views_trigger``: a video with at least that many views is escalated whatever its base score;
    ``filtered``: what a video below the base threshold means, which in the paper is a negative.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    issue: IssueName
    base_threshold: Fraction
    decision_threshold: Annotated[float, Field(gt=0.0, le=1.0)]
    p_base: Percent | None
    views_trigger: Annotated[int, Field(ge=0)] | None
    filtered: Literal["negative"] = "negative"
    schema_version: Literal[1] = 1

    def escalates(self, base: ArrayLike, views: ArrayLike | None = None) -> BoolArray:
        """Which videos go on to the MLLM, [n].

        Args:
            base: [n] base scores in [0, 1].
            views: [n] view counts, None or NaN where unknown (which never triggers).

        Raises:
            DataError: a base score is NaN or outside [0, 1], or lengths differ.
        """
        return escalation_mask(base, views, self.base_threshold, self.views_trigger)

    def final_score(self, base: ArrayLike, mllm: ArrayLike, views: ArrayLike | None = None) -> FloatArray:
        """The MLLM's score where it was asked, 0 where the video was filtered out, [n].

        ``mllm`` may be NaN for a filtered video: the MLLM is not called for it.

        Raises:
            DataError: a score that counts is NaN or outside [0, 1], or lengths differ.
        """
        return zero_filtered(mllm, self.escalates(base, views))

    def ranking_score(self, base: ArrayLike, mllm: ArrayLike, views: ArrayLike | None = None) -> FloatArray:
        """:meth:`final_score` for curves: −inf (withheld, see ``curves``) in the place of every 0, [n].

        Raises:
            DataError: as :meth:`final_score`.
        """
        return withhold_zeros(self.final_score(base, mllm, views))

    def decide(self, base: ArrayLike, mllm: ArrayLike, views: ArrayLike | None = None) -> BoolArray:
        """Which videos are positive, [n].

        Raises:
            DataError: as :meth:`final_score`.
        """
        return self.final_score(base, mllm, views) >= self.decision_threshold

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return self.model_dump()

    def to_json(self) -> str:
        """All fields as canonical JSON: sorted keys, floats that read back to the same bits."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, raw: Any, source: str = "policy") -> Self:
        """Check a parsed mapping; ``source`` is named in errors.

        Raises:
            ConfigError: a key is unknown, missing or ill-typed.
        """
        try:
            return cls.model_validate(dict(raw) if isinstance(raw, Mapping) else raw)
        except ValidationError as error:
            raise ConfigError(f"{source}: " + "; ".join(map(_explain, error.errors()[:3]))) from error

    @classmethod
    def from_json(cls, text: str, source: str = "policy") -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfigError: not JSON, or a key is unknown, missing or ill-typed.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{source}: not JSON ({error}); run the thresholds stage again") from error
        return cls.from_dict(raw, source)


def escalation_mask(
    base: ArrayLike, views: ArrayLike | None, base_threshold: float, views_trigger: int | None
) -> BoolArray:
    """Which videos reach the base threshold or the views trigger, [n].

    Raises:
        DataError: a base score is NaN or outside [0, 1], or lengths differ.
    """
    scores = np.asarray(base, dtype=np.float64)
    _check_length(scores, scores, "base")
    _check_probabilities(scores, np.ones(scores.shape, dtype=bool), "base")
    escalated: BoolArray = scores >= base_threshold
    if views_trigger is None or views is None:
        return escalated
    counts = np.asarray(views, dtype=np.float64)
    _check_length(counts, scores, "views")
    return escalated | (counts >= views_trigger)


def zero_filtered(mllm: ArrayLike, escalated: BoolArray) -> FloatArray:
    """The final score, [n]: the MLLM's where escalated, else 0.

    Raises:
        DataError: an escalated video's score is NaN or outside [0, 1], or lengths differ.
    """
    scores = np.asarray(mllm, dtype=np.float64)
    _check_length(scores, escalated, "MLLM")
    _check_probabilities(scores, escalated, "MLLM")
    return np.where(escalated, scores, 0.0)


def withhold_zeros(final: FloatArray) -> FloatArray:
    """Replace final scores of 0, which are never positive, by −inf, [n]."""
    return np.where(final > 0.0, final, -np.inf)


def _check_probabilities(scores: FloatArray, counts: BoolArray, name: str) -> None:
    bad = counts & ~((scores >= 0.0) & (scores <= 1.0))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{name} score of row {row} is {scores[row]}: expected a probability in [0, 1]; run predict again"
        )


def _check_length(values: NDArray[Any], like: NDArray[Any], name: str) -> None:
    if like.ndim != 1 or values.shape != like.shape:
        raise DataError(f"{name} has shape {values.shape}, base has {like.shape}: expected two columns of one length")


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; known here: {', '.join(CascadePolicy.model_fields)}"
    if item["type"] == "missing":
        return f"{key}: missing key; run the thresholds stage again"
    return f"{key} = {str(item['input'])[:60]}: {item['msg'].lower()}"
