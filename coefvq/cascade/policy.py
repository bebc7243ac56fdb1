"""The cascade's policy: who is escalated to the MLLM, and what is decided (paper, section 2.2).

One class serves evaluation, bulk scoring and streaming, so a video is treated alike in all three.
Every comparison is ``>=``: a score equal to its threshold passes. A video takes one of four ways:

    views >= views_trigger            escalated, whatever its base score
    base >= accept_threshold          accepted: positive without a call, final score 1
    base >= base_threshold            escalated: the final score is the MLLM's
    else                              filtered out: ``filtered`` says what that means

``decide`` and ``final_score >= decision_threshold`` are the same thing, whichever way a video takes. The
decision threshold is greater than 0 by construction, so a filtered-out video that counts as negative (final
score 0) can never be decided positive, and neither can one whose MLLM score is exactly 0. A final score of NaN
says that there is no decision: the video is excluded, or held while the MLLM is down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coefvq.cascade.curves import FloatArray
from coefvq.cascade.escalation import (
    BoolArray,
    check_length,
    engagement_mask,
    escalation_mask,
    withhold_zeros,
    zero_filtered,
)
from coefvq.config import Fraction, IssueName, Percent
from coefvq.documents import parse_json
from coefvq.errors import ConfigError

Filtered = Literal["negative", "keep_base_score", "excluded"]
MLLMDown = Literal["hold", "base_only", "ignore"]


def threshold_text(value: float) -> str:
    """The shortest text that reads back as the same number: rounded up, it would lose the video on the threshold."""
    return repr(float(value))


class CascadePolicy(BaseModel):
    """Frozen thresholds of one issue's cascade.

    ``base_threshold``, ``decision_threshold`` and ``accept_threshold`` (None: no early acceptance) are
    probabilities; ``p_base`` is the precision in percent that the base model had to reach on validation (None:
    the base threshold was found in another way); ``views_trigger``: a video with at least that many views is
    escalated whatever its base score.

    ``filtered``: what a video below the base threshold is. ``negative`` (the paper): final score 0.
    ``keep_base_score``: its base score is its final score, which makes sense for calibrated scores only.
    ``excluded``: not judged at all, neither positive nor negative, and left out of every figure.

    ``mllm_down``: what an escalated video is while the MLLM does not answer. ``hold``: undecided, to be scored
    again. ``base_only``: its base score is its final score. ``ignore``: negative, as if filtered out.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    issue: IssueName
    base_threshold: Fraction
    decision_threshold: Annotated[float, Field(gt=0.0, le=1.0)]
    p_base: Percent | None
    views_trigger: Annotated[int, Field(ge=0)] | None
    accept_threshold: Fraction | None = None
    filtered: Filtered = "negative"
    mllm_down: MLLMDown = "hold"
    schema_version: Literal[2] = 2

    @model_validator(mode="after")
    def _acceptance_lies_above(self) -> Self:
        if self.accept_threshold is not None and self.accept_threshold < self.base_threshold:
            least = threshold_text(self.base_threshold)
            raise ValueError(f"accept_threshold must be at least base_threshold ({least})")
        return self

    @classmethod
    def base_alone(cls, issue: str, threshold: float) -> Self:
        """The policy that never asks the MLLM: the base score is the final score, decided at ``threshold``.

        Raises:
            ConfigError: the issue's name or the threshold does not fit a policy.
        """
        return cls.from_dict(
            {
                "issue": issue,
                # only a score of 1 reaches this threshold, and it is accepted there instead of escalated
                "base_threshold": 1.0,
                "accept_threshold": 1.0,
                "decision_threshold": max(threshold, np.finfo(np.float64).tiny),
                "filtered": "keep_base_score",
                "p_base": None,
                "views_trigger": None,
            },
            source=f"thresholds.{issue}",
        )

    @property
    def asks_mllm(self) -> bool:
        """Whether any video can reach the MLLM."""
        return self.views_trigger is not None or self.accept_threshold != self.base_threshold

    def base_boundaries(self) -> tuple[float, ...]:
        """Base scores at which a video's way or decision changes."""
        decides = self.filtered == "keep_base_score"
        found = (self.base_threshold, self.accept_threshold, self.decision_threshold if decides else None)
        return tuple(boundary for boundary in found if boundary is not None)

    def escalates(self, base: ArrayLike, views: ArrayLike | None = None) -> BoolArray:
        """Which videos go on to the MLLM, [n].

        Args:
            base: [n] base scores in [0, 1].
            views: [n] view counts, None or NaN where unknown (which never triggers).

        Raises:
            DataError: a base score is NaN or outside [0, 1], or lengths differ.
        """
        escalated = escalation_mask(base, views, self.base_threshold, self.views_trigger)
        return escalated & ~self.accepts(base, views)

    def accepts(self, base: ArrayLike, views: ArrayLike | None = None) -> BoolArray:
        """Which videos are positive by their base score alone, [n]; never one that the views escalate.

        Raises:
            DataError: as :meth:`escalates`.
        """
        if self.accept_threshold is None:
            return np.zeros(np.shape(base), dtype=bool)
        return escalation_mask(base, None, self.accept_threshold, None) & ~engagement_mask(
            base, views, self.views_trigger
        )

    def judges(self, base: ArrayLike, views: ArrayLike | None = None) -> BoolArray:
        """Which videos the cascade answers for, [n]: all, unless filtered-out ones are ``excluded``.

        Raises:
            DataError: as :meth:`escalates`.
        """
        if self.filtered != "excluded":
            return np.ones(np.shape(base), dtype=bool)
        return self.escalates(base, views) | self.accepts(base, views)

    def final_score(
        self, base: ArrayLike, mllm: ArrayLike, views: ArrayLike | None = None, down: ArrayLike | None = None
    ) -> FloatArray:
        """One score per video that ``decision_threshold`` decides, NaN where there is no decision, [n].

        ``mllm`` may be NaN for a video that is not escalated, for which the MLLM is not called, and where
        ``down`` ([n] bool) says that it gave no answer.

        Raises:
            DataError: a score that counts is NaN or outside [0, 1], or lengths differ.
        """
        escalated = self.escalates(base, views)
        scores = np.asarray(base, dtype=np.float64)
        silent = np.zeros(scores.shape, dtype=bool) if down is None else np.asarray(down, dtype=bool) & escalated
        check_length(silent, scores, "down")
        final = zero_filtered(mllm, escalated & ~silent)
        unanswered: dict[str, FloatArray | float] = {"hold": np.nan, "base_only": scores, "ignore": 0.0}
        final = np.where(silent, unanswered[self.mllm_down], final)
        accepted = self.accepts(base, views)
        meaning: dict[str, FloatArray | float] = {"negative": 0.0, "keep_base_score": scores, "excluded": np.nan}
        final = np.where(escalated | accepted, final, meaning[self.filtered])
        return np.where(accepted, 1.0, final)

    def ranking_score(self, base: ArrayLike, mllm: ArrayLike, views: ArrayLike | None = None) -> FloatArray:
        """:meth:`final_score` for curves: −inf (withheld, see ``curves``) in the place of every 0 and NaN, [n].

        Rows that :meth:`judges` leaves out have to be dropped before a figure is made of it.

        Raises:
            DataError: as :meth:`final_score`.
        """
        return withhold_zeros(self.final_score(base, mllm, views))

    def decide(
        self, base: ArrayLike, mllm: ArrayLike, views: ArrayLike | None = None, down: ArrayLike | None = None
    ) -> BoolArray:
        """Which videos are positive, [n].

        Raises:
            DataError: as :meth:`final_score`.
        """
        decided: BoolArray = self.final_score(base, mllm, views, down) >= self.decision_threshold
        return decided

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return self.model_dump()

    def to_json(self) -> str:
        """All fields as canonical JSON: sorted keys, floats that read back to the same bits."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, raw: Any, source: str = "policy") -> Self:
        """Check a parsed mapping of schema version 2 or 1; ``source`` is named in errors.

        Raises:
            ConfigError: a key is unknown, missing or ill-typed.
        """
        try:
            return cls.model_validate(_upgraded(raw, source) if isinstance(raw, Mapping) else raw)
        except ValidationError as error:
            raise ConfigError(f"{source}: " + "; ".join(map(_explain, error.errors()[:3]))) from error

    @classmethod
    def from_json(cls, text: str, source: str = "policy") -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfigError: not JSON, or a key is unknown, missing or ill-typed.
        """
        return cls.from_dict(parse_json(text, source, "run the thresholds stage again", ConfigError), source)


# what version 1 said, and what it meant where it could not say it
_VERSION_1 = frozenset(
    {"issue", "base_threshold", "decision_threshold", "p_base", "views_trigger", "filtered", "schema_version"}
)


def _upgraded(raw: Mapping[Any, Any], source: str) -> dict[Any, Any]:
    """A version 1 policy as version 2: no early acceptance, held while the MLLM is down."""
    fields = dict(raw)
    if fields.get("schema_version") != 1:
        return fields
    for key in fields:
        if key not in _VERSION_1:
            raise ConfigError(
                f"{source}: {key}: unknown key in schema_version 1; known here: {', '.join(sorted(_VERSION_1))}"
            )
    if fields.get("filtered", "negative") != "negative":
        raise ConfigError(f"{source}: filtered = {fields['filtered']}: schema_version 1 knows 'negative' only")
    return {**fields, "schema_version": 2}


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; known here: {', '.join(CascadePolicy.model_fields)}"
    if item["type"] == "missing":
        return f"{key}: missing key; run the thresholds stage again"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    return f"{key} = {str(item['input'])[:60]}: {item['msg'].lower()}"
