"""What a set of videos looks like in a few numbers per column, and how far another set is from it.

The distance is the population stability index, PSI = sum over bins of (c - r) ln(c / r), where r and c are the
shares of reference and current rows (Siddiqi, Credit Risk Scorecards, 2006; common reading: below 0.1 stable,
above 0.25 shifted). Empty values are a bin of their own. Two samples of one population differ by chance: with B
bins the expected PSI is about (B - 1)(1/n_r + 1/n_c), which is subtracted; bins are few where rows are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coefvq.errors import DataError
from coefvq.records import label_column

_NUMBERS = ("views", "duration_s", "fps", "width", "height", "size_bytes")
_MOST_BINS, _ROWS_PER_BIN = 10, 20
Profile = dict[str, Any]


def check_profile(value: Any, source: str) -> Profile:
    """A profile that was read from a file; an empty object is none.

    Raises:
        DataError: a key does not fit; ``source`` is named.
    """
    remedy = "run `coefvq data reference` again, or put {} into it"
    columns = value.get("columns", {})
    if not isinstance(columns, dict) or (columns and not isinstance(value.get("rows"), int)):
        raise DataError(f"{source}: expected rows, a whole number, and columns, an object; {remedy}")
    for name, known in columns.items():
        # shares are of each bin and of empty values; classes also have one for values not listed
        facts: dict[str, Any] = known if isinstance(known, dict) else {}
        bins, shares = facts.get("edges", facts.get("values")), facts.get("shares")
        fits = isinstance(bins, list) and isinstance(shares, list) and len(shares) == len(bins) + 2
        if not fits or not all(isinstance(share, int | float) for share in shares or ()):
            raise DataError(f"{source}: columns.{name}: expected edges or values, and a share for each bin; {remedy}")
    return dict(value)


def profile(rows: pd.DataFrame, issues: Sequence[str]) -> Profile:
    """Shares per bin of each column, JSON-able: ``{"rows": n, "columns": {name: {edges | values, shares}}}``.

    Numeric columns are cut at quantiles; the last share is that of empty values.
    """
    numeric = {name: _bins(values) for name, values in _numeric_columns(rows).items()}
    classes = {name: _classes(values) for name, values in _class_columns(rows, issues).items()}
    return {"rows": len(rows), "columns": numeric | classes}


def psi(reference: Profile, rows: pd.DataFrame, issues: Sequence[str]) -> dict[str, float]:
    """PSI of each column of ``rows`` that ``reference`` knows, corrected for sample size, at least 0."""
    columns = {**_numeric_columns(rows), **_class_columns(rows, issues)}
    found = {}
    for name, known in reference.get("columns", {}).items():
        if name in columns:
            before = np.asarray(known["shares"], np.float64) * reference["rows"]
            found[name] = _index(before, _counts(columns[name], known))
    return found


def values_psi(reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64]) -> float:
    """PSI between two columns of numbers [n], [m], binned at the quantiles of ``reference``."""
    known = _bins(reference)
    return _index(_counts(reference, known), _counts(current, known))


def _index(before: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
    used = (before > 0) | (now > 0)
    if not before.sum() or not now.sum() or used.sum() < 2:
        return 0.0
    # half a row per bin: an empty bin must not be infinitely far
    r = (before[used] + 0.5) / (before.sum() + 0.5 * used.sum())
    c = (now[used] + 0.5) / (now.sum() + 0.5 * used.sum())
    chance = (used.sum() - 1) * (1 / before.sum() + 1 / now.sum())
    return float(max(((c - r) * np.log(c / r)).sum() - chance, 0.0))


def _numeric_columns(rows: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
    found = {name: rows[name].to_numpy(np.float64, na_value=np.nan) for name in _NUMBERS if name in rows}
    if "title" in rows:
        found["title_chars"] = rows["title"].astype("str").str.len().to_numpy(np.float64, na_value=0.0)
    return found


def _class_columns(rows: pd.DataFrame, issues: Sequence[str]) -> dict[str, pd.Series[Any]]:
    found = {"has_audio": rows["has_audio"].astype("str")} if "has_audio" in rows else {}
    if "stickers" in rows:
        found["stickers"] = _lengths(rows["stickers"]).clip(0, 3).astype(str)
    for issue in issues:
        if label_column(issue) in rows:
            labels = rows[label_column(issue)]
            found[label_column(issue)] = labels.astype("str").where(labels.notna())
    return found


def _lengths(lists: pd.Series[Any]) -> pd.Series[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = pc.fill_null(pc.list_value_length(pa.array(lists.tolist(), type=pa.list_(pa.string()))), 0)
    return pd.Series(counts.to_numpy(zero_copy_only=False), index=lists.index)


def _bins(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    count = int(np.clip(len(known) // _ROWS_PER_BIN, 2, _MOST_BINS))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)[1:-1])) if len(known) else np.zeros(0)
    facts: dict[str, Any] = {"edges": edges.tolist()}
    return facts | {"shares": (_counts(values, facts) / max(len(values), 1)).tolist()}


def _classes(values: pd.Series[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"values": sorted(values.dropna().unique().tolist())}
    return facts | {"shares": (_counts(values, facts) / max(len(values), 1)).tolist()}


def _counts(values: Any, facts: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Rows per bin; for classes unknown values come before the empty ones, both at the end."""
    if "edges" in facts:
        known = values[np.isfinite(values)]
        edges = np.asarray(facts["edges"], np.float64)
        counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
        return np.append(counts, len(values) - len(known)).astype(np.float64)
    counted = values.value_counts()
    listed = [float(counted.get(value, 0)) for value in facts["values"]]
    other = float(values.notna().sum()) - sum(listed)
    return np.array([*listed, other, float(values.isna().sum())])
