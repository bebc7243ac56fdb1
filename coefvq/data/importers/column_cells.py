"""Cells of a whole Parquet column as values of the manifest: the same values as ``values`` reads cell by cell.

Where one look over a column of the usual type shows that every cell fits, no cell is looked at by itself. Errors are
of the kinds that ``values`` and Arrow raise and name no row: the caller then reads row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.data.importers import values
from coefvq.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Texts = list[str | None]
_HASH = r"\A[0-9a-fA-F]{64}\z"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_PLACE = "column"


def text(name: str, column: pa.Array) -> Texts:
    """As ``values.text``."""
    cells = _plain_texts(column)
    return _each(values.text, name, column) if cells is None else cells


def whole(name: str, column: pa.Array) -> list[int | None]:
    """As ``values.whole``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_integer(column.type):
        return _each(values.whole, name, column)
    lowest, highest = pc.min_max(column).as_py().values()
    if lowest is not None and (lowest < 0 or highest >= 2**63):
        raise DataError(f"{name}: expected whole numbers from 0")
    return column.to_pylist() if column.null_count else column.to_numpy().tolist()  # type: ignore[no-any-return]


def number(name: str, column: pa.Array, default: float, *, positive: bool = False) -> list[float]:
    """As ``values.number`` without a decimal comma."""
    import pyarrow as pa

    if not (pa.types.is_float64(column.type) or pa.types.is_null(column.type)):
        return _each(partial(values.number, default=default, positive=positive), name, column)
    given = column.drop_null().cast(pa.float64()).to_numpy(zero_copy_only=False)
    if not np.isfinite(given).all() or (positive and not (given > 0).all()):
        raise DataError(f"{name}: expected finite numbers")
    found = np.full(len(column), default)
    found[column.is_valid().to_numpy(zero_copy_only=False)] = given
    return found.tolist()


def moment(name: str, column: pa.Array) -> list[tuple[str, bool] | None]:
    """As ``values.moment``."""
    cells = _plain_texts(column)
    if cells is None:
        return _each(values.moment, name, column)
    known = {cell: values.moment(_PLACE, name, cell) for cell in set(cells)}
    return [known[cell] for cell in cells]


def texts(name: str, column: pa.Array) -> list[list[str]]:
    """As ``values.texts``."""
    import pyarrow as pa

    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    items = _plain_texts(column.flatten()) if is_list and not column.null_count else None
    if items is None or None in items:
        return _each(values.texts, name, column)
    ends = column.offsets.to_numpy()
    return [items[start:end] for start, end in pairwise((ends - ends[0]).tolist())]  # type: ignore[misc]


def sha256(name: str, column: pa.Array) -> Texts:
    """As ``values.sha256``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) and pc.all(pc.match_substring_regex(column, _HASH)).as_py() is not False:
        return pc.ascii_lower(column).to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
    cells = text(name, column)
    if not all(cell is None or _SHA256.fullmatch(cell) for cell in cells):
        raise DataError(f"{name}: expected 64 hexadecimal digits")
    return [None if cell is None else cell.lower() for cell in cells]


def choice(name: str, column: pa.Array, allowed: Sequence[str]) -> Texts:
    """As ``values.choice``."""
    cells = text(name, column)
    if not set(cells) <= {*allowed, None}:
        raise DataError(f"{name}: expected one of {', '.join(allowed)}")
    return cells


def _plain_texts(column: pa.Array) -> Texts | None:
    """``text`` of a column of texts; None if it is of another type, or a cell needs a look."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return [None] * len(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    # not to_pylist: several times slower
    cells = column.to_numpy(zero_copy_only=False).tolist()
    written = [cell for cell in cells if cell]
    if max(map(len, written), default=0) > values.MAX_TEXT or "\0" in "".join(written):
        return None
    return [(cell.strip() or None) if cell else None for cell in cells]


def _each(read: Callable[[str, str, Any], Any], name: str, column: pa.Array) -> list[Any]:
    return [read(_PLACE, name, cell) for cell in column.to_pylist()]
