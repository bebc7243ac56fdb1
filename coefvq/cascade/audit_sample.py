"""The audit stream: some filtered-out videos are escalated anyway, with a probability that is written down.

Without it nobody ever learns what the base model lets go, recall in production cannot be known, and the next
training set holds only what the present base model lets through. Since the probability of each video is known,
what was seen can be weighed up to what was not (Horvitz and Thompson 1952), without any model being right.

Whether a video is drawn depends on its id and the seed alone: scoring it again draws it again, a second worker
needs no shared state, and a higher rate draws all that a lower one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from coefvq.cascade.curves import FloatArray
from coefvq.cascade.escalation import BoolArray
from coefvq.errors import DataError

CONFIDENCE = 0.95


class AuditSample(BaseModel):
    """Which filtered-out videos are escalated all the same; ``rate`` is the probability of each."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    rate: Annotated[float, Field(gt=0.0, le=1.0)]
    seed: Annotated[int, Field(ge=0)] = 0

    def selected(self, video_ids: Sequence[str]) -> BoolArray:
        """Whether each video is drawn, [n]."""
        # a salt of its own: no other draw by id and seed may share the audit's
        return uniform_draws([f"audit:{name}" for name in video_ids], self.seed) < self.rate


def uniform_draws(video_ids: Sequence[str], seed: int) -> FloatArray:
    """A number in [0, 1) per video from SHA-256 of seed and id, [n]: fixed for a video, uniform over videos."""
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in video_ids)
    # 53 bits: what a float holds, so that none is rounded up to 1
    return np.array([int.from_bytes(digest[:8], "big") >> 11 for digest in digests], dtype=np.float64) * 2.0**-53


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AuditEstimate:
    """What the labelled rows say of all rows.

    ``found`` and ``missed`` are counts of positives that were flagged and that were not (Horvitz–Thompson);
    ``recall`` = found / (found + missed). The ``hajek`` figures scale by the number of rows that is known
    instead of its estimate, which is steadier and very slightly biased. ``seen_missed`` is how many missed
    positives were really seen: a handful makes for a wide interval.
    """

    rows: int
    labelled: int
    seen_missed: int
    found: Estimate
    missed: Estimate
    recall: Estimate
    missed_hajek: float
    recall_hajek: float


def estimate(
    flagged: ArrayLike, probability: ArrayLike, label: ArrayLike, confidence: float = CONFIDENCE
) -> AuditEstimate:
    """Estimate positives and recall of a stream from a sample with known probabilities.

    Args:
        flagged: [n] bool, what the cascade calls positive.
        probability: [n] in (0, 1], with which a row was to be labelled.
        label: [n] 0 or 1, NaN where the row was not drawn. A label of a row that was not *drawn* (somebody
            complained, say) must not be given: it would count as random.
        confidence: of the intervals, which are Fay and Feuer's (1997) for weighted counts: at least nominal,
            also with few or no positives seen.

    Raises:
        DataError: lengths differ, a value is out of its range, a certain row has no label, nothing that was
            not flagged is labelled, or no positive is seen at all.
    """
    flag, prob, y = _checked(flagged, probability, label)
    labelled_rows = ~np.isnan(y)
    uncertain = prob < 1.0
    if not (labelled_rows & ~flag).any():
        raise DataError("no video that was not flagged has a label: recall is unknown; label the audited videos first")
    # both ends of a ratio: with two estimates each interval must hold more often
    level = confidence if not (uncertain & flag).any() else 1.0 - (1.0 - confidence) / 2.0
    found, missed = (
        _weighted_count(y[labelled_rows & side], prob[labelled_rows & side], level) for side in (flag, ~flag)
    )
    if found.value + missed.value <= 0.0:
        raise DataError("no positive is seen among the labelled videos: recall is undefined; label more of them")
    hajek = [_hajek(y[side], prob[side]) for side in (flag, ~flag)]
    return AuditEstimate(
        rows=len(y),
        labelled=int(labelled_rows.sum()),
        seen_missed=int(np.nansum(y[~flag])),
        found=found,
        missed=missed,
        recall=_share(found, missed),
        missed_hajek=hajek[1],
        recall_hajek=hajek[0] / (hajek[0] + hajek[1]) if sum(hajek) > 0.0 else found.value,
    )


def planned(found: float, missed: float, rate: float, confidence: float = CONFIDENCE) -> Estimate:
    """The recall interval to expect from an audit at ``rate`` if these counts are the true ones."""
    return _share(Estimate(found, found, found), _interval(missed, missed / rate, 1.0 / rate, confidence))


def _checked(flagged: ArrayLike, probability: ArrayLike, label: ArrayLike) -> tuple[BoolArray, FloatArray, FloatArray]:
    flag, prob = np.asarray(flagged, dtype=bool), np.asarray(probability, dtype=np.float64)
    y = np.asarray(label, dtype=np.float64)
    if flag.ndim != 1 or prob.shape != flag.shape or y.shape != flag.shape:
        raise DataError(f"flagged, probability and label: expected columns of one length, got {flag.shape} and so on")
    for bad, values, name, wanted in (
        (~((prob > 0.0) & (prob <= 1.0)), prob, "probability", "in (0, 1]"),
        (~(np.isnan(y) | (y == 0.0) | (y == 1.0)), y, "label", "0, 1 or nothing"),
        (np.isnan(y) & (prob == 1.0), y, "label", "one, as its probability is 1"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{name} of row {row} is {values[row]}: expected {wanted}")
    return flag, prob, y


def _weighted_count(y: FloatArray, probability: FloatArray, confidence: float) -> Estimate:
    """Horvitz–Thompson count; certain rows add no doubt."""
    certain = float(y[probability == 1.0].sum())
    weight = 1.0 / probability[probability < 1.0]
    if not len(weight):
        return Estimate(certain, certain, certain)
    hits = y[probability < 1.0]
    total, variance = float((weight * hits).sum()), float((weight**2 * hits).sum())
    drawn = _interval(total, variance, float(weight.max()), confidence)
    return Estimate(certain + drawn.value, certain + drawn.low, certain + drawn.high)


def _interval(total: float, variance: float, largest: float, confidence: float) -> Estimate:
    """Fay and Feuer's gamma interval of a weighted sum of Poisson counts; ``largest`` is the largest weight."""
    # the quantiles of scipy.stats.gamma without its second of import
    from scipy.special import gammainccinv, gammaincinv

    tail = (1.0 - confidence) / 2.0
    low = float(gammaincinv(total**2 / variance, tail) * (variance / total)) if total > 0.0 else 0.0
    above, spread = total + largest, variance + largest**2
    return Estimate(total, low, float(gammainccinv(above**2 / spread, tail) * (spread / above)))


def _hajek(y: FloatArray, probability: FloatArray) -> float:
    certain, drawn = probability == 1.0, (probability < 1.0) & ~np.isnan(y)
    count = float(np.sum(y[certain]))
    if drawn.any():
        weight = 1.0 / probability[drawn]
        count += float((~certain).sum() * np.sum(weight * y[drawn]) / weight.sum())
    return count


def _share(found: Estimate, missed: Estimate) -> Estimate:
    """found / (found + missed), with both at their worst and at their best."""

    def share(a: float, b: float) -> float:
        return a / (a + b) if a + b > 0.0 else 0.0

    return Estimate(share(found.value, missed.value), share(found.low, missed.high), share(found.high, missed.low))
