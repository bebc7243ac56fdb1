"""Figures per slice of the data: by language, duration, sound, views, creator, or any column of the manifest.

A slice is where a good average hides: each gets its own counts, figures at the *same* thresholds as the whole,
and intervals, so that a small slice is seen to be small.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import PRCurve, curve_at_threshold, curve_recall_at_precision
from coefvq.errors import DataError
from coefvq.evaluation.intervals import Interval, Statistic, bootstrap_scores, group_codes, weighted_share
from coefvq.evaluation.metrics import curve_average_precision, curve_roc_auc, recall_key

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN, OTHER = "unknown", "other"
#: slices made from manifest columns; any other name is a column whose values are the slices
DERIVED = ("language", "duration", "has_audio", "views", "creator_size")
#: distinct values of a column that become a slice each; the rest are one slice together
MAX_VALUES = 12

#: columns that a derived slicing reads
_SOURCES = {"duration": "duration_s", "creator_size": "creator_id"}

DURATION_EDGES = (5.0, 15.0, 60.0)
VIEWS_EDGES = (100.0, 1_000.0, 10_000.0, 100_000.0)
CREATOR_EDGES = (2.0, 10.0, 100.0)

Names = NDArray[np.object_]


def slice_columns(
    manifest: pd.DataFrame, wanted: Iterable[str] = DERIVED, places: NDArray[np.int64] | None = None
) -> dict[str, Names]:
    """Slice name of every row [n], or of those at ``places``, per wanted slicing.

    ``language`` is the manifest's column of that name, else the writing system of the title, which is the part
    of it that can be told without a model. ``creator_size`` counts the creator's videos in ``manifest``.

    Raises:
        DataError: a column that is asked for is not in the manifest.
    """
    chosen = np.arange(len(manifest)) if places is None else places
    made = {}
    for name in wanted:
        if name == "language" and "language" not in manifest:
            made[name] = _array(map(writing_system, _texts(manifest, "title")[chosen]))
        elif name == "duration":
            made[name] = bands(_numbers(manifest, "duration_s")[chosen], DURATION_EDGES, " s")
        elif name == "views":
            made[name] = bands(_numbers(manifest, "views")[chosen], VIEWS_EDGES)
        elif name == "creator_size":
            made[name] = bands(_sizes(_texts(manifest, "creator_id"))[chosen], CREATOR_EDGES, " videos")
        else:
            made[name] = _frequent(_texts(manifest, name))[chosen]
    return made


def read_columns(wanted: Iterable[str], columns: Collection[str]) -> set[str]:
    """Columns that ``slice_columns`` reads of a manifest with ``columns``."""
    own = {"language": "language" if "language" in columns else "title", **_SOURCES}
    return {own.get(name, name) for name in wanted}


def bands(values: ArrayLike, edges: Sequence[float], unit: str = "") -> Names:
    """Name of the half-open band [low, high) of each value [n], such as "5–15 s"; NaN is "unknown"."""
    numbers = np.asarray(values, dtype=np.float64)
    names = [f"under {edges[0]:g}{unit}"]
    names += [f"{low:g}–{high:g}{unit}" for low, high in pairwise(edges)]
    names += [f"{edges[-1]:g}{unit} or more", UNKNOWN]
    which = np.searchsorted(np.asarray(edges), numbers, side="right")
    return _array(names)[np.where(np.isnan(numbers), len(names) - 1, which)]


def writing_system(text: str) -> str:
    """The script most letters of ``text`` belong to, by their Unicode names: "latin", "cyrillic", "cjk", …"""
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if not scripts:
        return UNKNOWN
    # equal counts: the alphabetically first, so that the answer depends on the text alone
    return min(scripts, key=lambda script: (-scripts[script], script)).lower()


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split(maxsplit=1)[0]


def statistics(threshold: float, targets: Iterable[float]) -> dict[str, Statistic]:
    """The figures that get bootstrap intervals: F1 at ``threshold``, AP, ROC-AUC, R@P per target (percent).

    An R@P that a replicate does not reach counts as recall 0, so that the interval shows how fragile it is.
    """

    def recall(target: float) -> Statistic:
        return lambda curve: curve_recall_at_precision(curve, target / 100.0).recall

    def f1(curve: PRCurve) -> float:
        return curve_at_threshold(curve, threshold).f1

    figures: dict[str, Statistic] = {"f1": f1, "average_precision": curve_average_precision, "roc_auc": curve_roc_auc}
    return figures | {recall_key(target): recall(target) for target in targets}


def with_intervals(
    label: ArrayLike,
    score: ArrayLike,
    weight: ArrayLike,
    threshold: float,
    targets: Sequence[float],
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bootstrap intervals of :func:`statistics`, and of precision and recall at ``threshold`` by counts.

    The latter are Clopper–Pearson (``intervals.weighted_share``): they take rows as independent.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    models = {"": (score, threshold)}
    return models_with_intervals(label, models, weight, targets, groups=groups, replicates=replicates, seed=seed)[""]


def models_with_intervals(
    label: ArrayLike,
    models: Mapping[str, tuple[ArrayLike, float]],
    weight: ArrayLike,
    targets: Sequence[float],
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """:func:`with_intervals` of several models on the same rows: name -> scores [n] and threshold.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    labels, weights = np.asarray(label, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    scores = {name: (score, statistics(threshold, targets)) for name, (score, threshold) in models.items()}
    found = bootstrap_scores(labels, scores, weights, groups=groups, replicates=replicates, seed=seed)
    for name, (score, threshold) in models.items():
        predicted = np.asarray(score, dtype=np.float64) >= threshold
        found[name]["precision"] = weighted_share(labels[predicted], weights[predicted])
        found[name]["recall"] = weighted_share(predicted, labels * weights)
    return found


def slice_rows(
    label: ArrayLike,
    scores: Mapping[str, tuple[ArrayLike, float]],
    weight: ArrayLike,
    slices: Mapping[str, Names],
    targets: Sequence[float],
    *,
    groups: ArrayLike | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One JSON-ready row per slice: column, value, n, positives, note, and per model its figures with intervals.

    ``scores`` maps a model's name to its scores [n] and the threshold it runs with. A slice of one class has
    no figures (None) and a note.

    Raises:
        DataError: a column is unusable.
    """
    labels, weights = np.asarray(label, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    codes = group_codes(groups, len(labels))
    columns = {name: (np.asarray(score, dtype=np.float64), threshold) for name, (score, threshold) in scores.items()}
    rows = []
    for column, names in slices.items():
        for value in sorted(set(names.tolist())):
            chosen = (names == value) & (weights > 0.0)
            row: dict[str, Any] = {
                "column": column,
                "value": value,
                "n": int(chosen.sum()),
                "positives": float(labels[chosen].sum()),
                "note": None,
            }
            if (labels[chosen] > 0.0).any() and (labels[chosen] < 1.0).any():
                found = models_with_intervals(
                    labels[chosen],
                    {model: (values[chosen], threshold) for model, (values, threshold) in columns.items()},
                    weights[chosen],
                    targets,
                    groups=None if codes is None else codes[chosen],
                    replicates=replicates,
                    seed=seed,
                )
                for model, figures in found.items():
                    row[model] = {name: interval.to_dict() for name, interval in figures.items()}
            else:
                row |= dict.fromkeys(scores) | {"note": "one class only"}
            rows.append(row)
    return rows


def _numbers(manifest: pd.DataFrame, name: str) -> NDArray[np.float64]:
    return _known(manifest, name).to_numpy(dtype=np.float64, na_value=np.nan)


def _texts(manifest: pd.DataFrame, name: str) -> Names:
    """A column as texts, "" where empty."""
    column = _known(manifest, name)
    texts: Names = column.astype("str").to_numpy(dtype=object, na_value="")
    return np.where(column.isna(), "", texts)


def _sizes(keys: Names) -> NDArray[np.float64]:
    """How often the key of each row occurs; NaN for an empty one."""
    import pandas as pd

    codes, _ = pd.factorize(keys)
    return np.where(keys == "", np.nan, np.bincount(codes)[codes]) if len(keys) else np.zeros(0)


def _known(manifest: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in manifest:
        raise DataError(
            f"evaluate.slices: '{name}' is no column of the manifest; known: {', '.join((*DERIVED, *manifest.columns))}"
        )
    return manifest[name]


def _frequent(texts: Names) -> Names:
    import pandas as pd

    codes, values = pd.factorize(np.where(texts == "", UNKNOWN, texts), sort=True)
    counts = np.bincount(codes, minlength=len(values))
    # the values are sorted: equal counts, the alphabetically first
    kept = np.zeros(len(values), bool)
    kept[np.argsort(-counts, kind="stable")[:MAX_VALUES]] = True
    return _array(value if keep else OTHER for value, keep in zip(values.tolist(), kept, strict=True))[codes]


def _array(values: Iterable[str]) -> Names:
    listed = list(values)
    made = np.empty(len(listed), dtype=object)
    made[:] = listed
    return made
