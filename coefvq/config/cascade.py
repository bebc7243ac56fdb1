"""Sections about the cascade: scoring, figures, thresholds, the gate, and where runs are tracked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from coefvq.config.values import Count, Fraction, KeptShare, Percent, Positive, Precision, Section
from coefvq.extensions import METRICS, registered


class Approximate(Section):
    """Savings that change the MLLM's scores; each is off by default."""

    int8: bool
    frames: Count | None
    pool_tokens: Count
    audio_seconds: Positive | None


class Scoring(Section):
    """How a model is computed, kept with a released pair; ``savings`` are exact to rounding."""

    dtype: Precision
    savings: Literal["exact", "none"]
    approximate: Approximate


class Predict(Scoring):
    """Scoring of the validation, test and traffic splits."""

    batch_size: Count


def _check_metric(name: str) -> str:
    if name in (known := registered(METRICS)):
        return name
    words = {"words": ", ".join(known) or "none is registered", "group": METRICS}
    raise PydanticCustomError("metric", "a name that a package registers in {group} ({words})", words)


MetricName = Annotated[str, AfterValidator(_check_metric)]


class Evaluate(Section):
    """Which R@P figures to report, P in percent; slices of test; the bootstrap behind the intervals."""

    precision_targets: tuple[Percent, ...]
    slices: tuple[str, ...] = ("language", "duration", "has_audio", "views", "creator_size")
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    group_by: str | None = "creator_id"
    metrics: tuple[MetricName, ...] = ()  # figures of packages (docs/extend.md)


class PriceList(Section):
    """Of one MLLM call, one false positive, one missed positive, in one unit."""

    call: Annotated[float, Field(ge=0.0)]
    false_positive: Annotated[float, Field(ge=0.0)]
    miss: Annotated[float, Field(ge=0.0)]


class Thresholds(Section):
    """P_base in percent; ``max_f1_loss`` is what a cheaper base threshold may cost on validation.

    Mode ``qps``: at most ``max_qps_ratio`` percent of the traffic reach the MLLM, and the cheapest of base alone,
    cascade and MLLM on all is taken that keeps ``min_kept_f1`` (a share) of the MLLM's F1, unless ``policy`` names
    one of the models, which then decides alone. ``budget``,
    ``recall_floor`` and ``cost`` search all pairs of thresholds for what they name: ``precision`` and
    ``max_qps_ratio`` in percent, ``max_recall_loss`` a share, ``prices`` for ``cost``. ``mllm_down`` says what an
    escalated video is while the MLLM does not answer (``CascadePolicy``); it changes no figure.
    """

    p_base: tuple[Percent, ...] = ()
    max_f1_loss: Fraction | None = None
    views_trigger: Annotated[int, Field(ge=0)] | None
    mode: Literal["paper", "qps", "budget", "cost", "recall_floor"] = "paper"
    min_kept_f1: KeptShare | None = None
    policy: Literal["cheapest", "base", "mllm"] = "cheapest"
    precision: Percent | None = None
    max_qps_ratio: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    max_recall_loss: Fraction | None = None
    prices: PriceList | None = None
    accept_threshold: Fraction | None = None
    mllm_down: Literal["hold", "base_only", "ignore"] = "hold"

    @model_validator(mode="after")
    def _mode_has_its_settings(self) -> Self:
        needed = {
            "paper": ("p_base", "max_f1_loss"),
            "qps": ("max_qps_ratio", "min_kept_f1"),
            "budget": ("precision", "max_qps_ratio"),
            "cost": ("prices",),
            "recall_floor": ("precision", "max_recall_loss"),
        }[self.mode]
        # P_base rows may stand beside any mode's own, for comparison
        allowed = {*needed, "p_base", "max_f1_loss"}
        allowed |= {"accept_threshold"} if self.mode in ("budget", "cost", "recall_floor") else set()
        allowed |= {"max_qps_ratio"} if self.mode == "cost" else set()
        settings = ("precision", "max_qps_ratio", "max_recall_loss", "prices", "accept_threshold")
        for name in (*settings, "min_kept_f1", "p_base", "max_f1_loss"):
            given = getattr(self, name) not in (None, ())
            if name in needed and not given:
                raise ValueError(f"mode {self.mode} needs {name}")
            if given and name not in allowed:
                raise ValueError(f"{name} plays no part in mode {self.mode}; remove it")
        if self.policy != "cheapest" and self.mode != "qps":
            raise ValueError(f"policy: {self.policy} plays no part in mode {self.mode}; set mode: qps, or remove it")
        return self


class Stability(Section):
    """How many videos next to a threshold are scored again in other ways."""

    videos_per_threshold: Annotated[int, Field(ge=1)]


Difference = Annotated[float, Field(ge=-1.0, le=1.0)]


class Gate(Section):
    """Conditions before a person is asked to approve."""

    min_average_precision_gain: float
    max_qps_ratio: Annotated[float, Field(gt=0.0, le=100.0)]
    min_kept_f1: Fraction = 0.97  # share of the MLLM's F1 on test that the policy keeps
    min_f1_over_base: Difference = 0.0  # the policy's F1 minus the base model's, on test
    min_base_auc: Fraction = 0.5  # ROC-AUC of the base model on test, above; 0: not asked
    min_f1_over_guess: Difference = 0.0  # the policy's F1 minus that of flagging every video, more than
    min_f1_over_shortcut: Difference = 0.0  # and minus that of the metadata shortcut, more than
    min_metrics: dict[str, float] = Field(default={})  # of evaluate.metrics: the policy's figure on test, at least
    max_f1_drop: Fraction
    max_flip_rate: Fraction


class Tracking(Section):
    """MLflow store and experiment."""

    uri: str | None
    experiment: str
