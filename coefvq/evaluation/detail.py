"""How sure the test figures are, where they differ, and what they are at the traffic's prevalence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coefvq.cascade.calibration import KINDS, Calibrator, fit_calibrator, log_loss
from coefvq.cascade.curves import FloatArray, PRCurve, best_f1_threshold, curve_at_threshold
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import DataError
from coefvq.evaluation.intervals import Interval, bootstrap_difference, bootstrap_ratio, group_codes
from coefvq.evaluation.labelled import LabelledSplit, labelled_split
from coefvq.evaluation.metrics import (
    at_prevalence,
    classification_summary,
    estimated_prevalence,
    expected_calibration_error,
    reliability,
)
from coefvq.evaluation.slices import models_with_intervals, slice_columns, slice_rows

if TYPE_CHECKING:
    import pandas as pd

#: replicates per slice, of which there are dozens
SLICE_REPLICATES = 200


@dataclass(frozen=True)
class DetailSettings:
    """R@P targets in percent, which slices, bootstrap replicates, the column that is drawn as wholes, the seed."""

    precision_targets: Sequence[float]
    slices: Sequence[str]
    bootstrap: int
    group_by: str | None
    seed: int


def _places_of_test(scores: pd.DataFrame, manifest: pd.DataFrame) -> NDArray[np.intp]:
    """Positions in the manifest of the labelled test videos, in the order of :func:`~labelled.labelled_split`.

    Raises:
        DataError: a scored video is not in the manifest.
    """
    import pandas as pd

    ids = scores.loc[(scores["split"] == "test") & scores["label"].notna(), "video_id"]
    places: NDArray[np.intp] = pd.Index(manifest["video_id"]).get_indexer(ids)
    if (places < 0).any():
        missing = ids.iloc[int(np.argmax(places < 0))]
        raise DataError(f"scores: video {missing} is not in the manifest; run predict again")
    return places


def detail_report(
    scores: pd.DataFrame,
    manifest: pd.DataFrame,
    models: Mapping[str, tuple[FloatArray, float]],
    settings: DetailSettings,
    judged: BoolArray | None = None,
) -> dict[str, Any]:
    """Intervals of every figure on test, and one row per slice; JSON-ready.

    Args:
        models: name -> scores of the labelled test rows [n] and the threshold they are decided with.
        judged: [n] bool, rows that take part; None: all.

    Raises:
        DataError: a table is unusable or its columns do not fit.
    """
    test = labelled_split(scores, "test")
    weight = test.weight if judged is None else np.where(judged, test.weight, 0.0)
    places = _places_of_test(scores, manifest)
    # cut on the whole manifest: a creator's size is not how many of its videos fell into test
    slices = slice_columns(manifest, settings.slices, places)
    groups = _groups(manifest, places, settings.group_by)
    intervals = models_with_intervals(
        test.label,
        models,
        weight,
        settings.precision_targets,
        groups=groups,
        replicates=settings.bootstrap,
        seed=settings.seed,
    )
    return {
        "confidence": 0.95,
        "group_by": settings.group_by,
        "intervals": {name: {key: made.to_dict() for key, made in found.items()} for name, found in intervals.items()},
        "slices": slice_rows(
            test.label,
            models,
            weight,
            slices,
            settings.precision_targets,
            groups=groups,
            replicates=min(settings.bootstrap, SLICE_REPLICATES),
            seed=settings.seed,
        ),
    }


def against_models(
    scores: pd.DataFrame, manifest: pd.DataFrame, policy: CascadePolicy, settings: DetailSettings
) -> dict[str, Any]:
    """F1 of the policy on test against each model alone at its own threshold from validation; JSON-ready.

    ``kept_f1`` is the policy's F1 divided by the MLLM's, ``f1_over_base`` its F1 minus the base model's; each with
    a 95 % interval of the paired bootstrap (a replicate draws once for both).

    Raises:
        DataError: a table is unusable.
    """
    val, test = labelled_split(scores, "val"), labelled_split(scores, "test")
    groups = _groups(manifest, _places_of_test(scores, manifest), settings.group_by)
    mine = decision_score(policy.decide(test.base, test.mllm, test.views))
    own = {name: best_f1_threshold(val.label, getattr(val, name), val.weight).threshold for name in ("base", "mllm")}
    alone = {name: decision_score(getattr(test, name) >= threshold) for name, threshold in own.items()}

    def compared(by: Callable[..., Interval], name: str) -> dict[str, float | None]:
        return by(
            test.label,
            (mine, _f1_of_flags),
            (alone[name], _f1_of_flags),
            test.weight,
            groups=groups,
            replicates=settings.bootstrap,
            seed=settings.seed,
        ).to_dict()

    return {
        "kept_f1": compared(bootstrap_ratio, "mllm"),
        "f1_over_base": compared(bootstrap_difference, "base"),
    }


def decision_score(positive: BoolArray) -> FloatArray:
    """A decision as a score with one threshold, 0.5."""
    return np.where(positive, 1.0, -np.inf)


def _f1_of_flags(curve: PRCurve) -> float:
    return curve_at_threshold(curve, 0.5).f1


def prevalence_report(
    scores: pd.DataFrame, thresholds: Mapping[str, float], targets: Sequence[float]
) -> dict[str, Any] | None:
    """The models' test figures at the prevalence that the traffic seems to have; None without traffic.

    The estimate reads the MLLM's scores (``metrics.estimated_prevalence``); it rests on label shift.

    Raises:
        DataError: a table is unusable.
    """
    traffic = scores[(scores["split"] == "traffic") & scores["mllm"].notna()]
    test = labelled_split(scores, "test")
    labelled = float(np.average(test.label, weights=test.weight))
    report: dict[str, Any] = {"test": labelled, "traffic_estimate": None, "at_traffic": None}
    if not len(traffic):
        return None
    score, weight = (traffic[name].to_numpy(dtype=np.float64) for name in ("mllm", "weight"))
    try:
        estimate = estimated_prevalence(test.label, test.mllm, score, test.weight, weight)
    except DataError:
        return report  # an MLLM that separates nothing tells no prevalence; its figures say so by themselves
    if not 0.0 < estimate < 1.0:
        return report | {"traffic_estimate": estimate}
    label, shifted = at_prevalence(test.label, test.weight, estimate)
    at = {
        name: classification_summary(label, getattr(test, name), shifted, thresholds[name], targets)
        for name in ("base", "mllm")
    }
    return report | {"traffic_estimate": estimate, "at_traffic": at}


def calibration_report(scores: pd.DataFrame) -> dict[str, Any]:
    """Per model the calibrators fitted on validation, and reliability on test before and after; JSON-ready.

    ``chosen`` is the kind with the least log loss on one half of validation when fitted on the other, None where
    no kind beats the scores as they are. Nothing is chosen on test.

    Raises:
        DataError: a table is unusable.
    """
    val, test = labelled_split(scores, "val"), labelled_split(scores, "test")
    return {name: _calibrated(val, test, name) for name in ("base", "mllm")}


def _calibrated(val: LabelledSplit, test: LabelledSplit, name: str) -> dict[str, Any]:
    fit, seen = getattr(val, name), getattr(test, name)
    if fit.min() == fit.max():
        return {"calibrators": {}, "before": _reliability(test, seen), "after": {}, "chosen": None}
    made: dict[str, Calibrator] = {kind: fit_calibrator(kind, val.label, fit, val.weight) for kind in KINDS}
    before = _reliability(test, seen)
    after = {kind: _reliability(test, calibrator(seen)) for kind, calibrator in made.items()}
    return {
        "calibrators": {kind: calibrator.to_dict() for kind, calibrator in made.items()},
        "before": before,
        "after": after,
        "chosen": _choose(val, fit),
    }


def _choose(val: LabelledSplit, score: FloatArray) -> str | None:
    """By log loss on the second half of validation, fitted on the first: test is not looked at to choose."""
    half = np.arange(len(score)) % 2 == 0
    for part in (half, ~half):
        if not 0.0 < val.label[part].sum() < part.sum() or score[part].min() == score[part].max():
            return None
    losses = {
        kind: log_loss(
            val.label[~half],
            fit_calibrator(kind, val.label[half], score[half], val.weight[half])(score[~half]),
            val.weight[~half],
        )
        for kind in KINDS
    }
    best = min(losses, key=lambda kind: (losses[kind], kind))
    return best if losses[best] < log_loss(val.label[~half], score[~half], val.weight[~half]) else None


def _reliability(split: LabelledSplit, score: FloatArray) -> dict[str, Any]:
    table = reliability(split.label, score, split.weight)
    return {
        "expected_calibration_error": expected_calibration_error(split.label, score, split.weight),
        "log_loss": log_loss(split.label, score, split.weight),
        "bins": {name: getattr(table, name).tolist() for name in ("low", "high", "mean_score", "frequency", "weight")},
    }


def _groups(manifest: pd.DataFrame, places: NDArray[np.intp], name: str | None) -> NDArray[np.intp] | None:
    """What the bootstrap draws, as whole numbers in the order of their names."""
    if name is None:
        return None
    if name not in manifest:
        raise DataError(f"evaluate.group_by: '{name}' is no column of the manifest")
    column = manifest[name].iloc[places]
    return group_codes(column.astype("str").to_numpy("object"), len(places))
