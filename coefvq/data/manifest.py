"""The manifest: one Parquet row per video, with fixed columns and types (contract in docs/data.md)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.errors import DataError
from coefvq.files import atomic_path, inside
from coefvq.records import MANIFEST_COLUMNS, VideoInput, label_column, posterior_column

_DTYPES: dict[str, str] = {
    "video_id": "str",
    "uri": "str",
    "sha256": "str",
    "title": "str",
    "published_at": "str",
    "creator_id": "str",
    "source_id": "str",
    "reason": "str",
    "split": "str",
    "phash": "str",
    "views": "Int64",
    "size_bytes": "Int64",
    "width": "Int64",
    "height": "Int64",
    "weight": "float64",
    "duration_s": "float64",
    "fps": "float64",
    "decode_ok": "bool",
    "has_audio": "bool",
}


def normalise(frame: pd.DataFrame, issues: Sequence[str]) -> pd.DataFrame:
    """Fixed column order and types; label and posterior columns of ``issues`` follow.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in MANIFEST_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"manifest: column(s) {', '.join(missing)} missing; write it with `coefvq ingest`")
    labels = [label_column(issue) for issue in issues]
    posteriors = [posterior_column(issue) for issue in issues if posterior_column(issue) in frame.columns]
    result = frame.loc[:, [*MANIFEST_COLUMNS, *labels, *posteriors]].copy()
    types = {**_DTYPES, **dict.fromkeys(labels, "Int8"), **dict.fromkeys(posteriors, "float64")}
    return result.astype(types).reset_index(drop=True)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write Parquet atomically."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read Parquet.

    Raises:
        DataError: the file is missing or is not Parquet.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stage that writes it (dvc repro)") from error
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path}: not a Parquet table ({first}); delete it and run its stage again") from error


def to_inputs(rows: pd.DataFrame, media_root: Path) -> list[VideoInput]:
    """Manifest rows as model inputs; paths are resolved and stay below ``media_root``."""
    return [_to_input(row, media_root) for row in rows.to_dict("records")]


def _to_input(row: Mapping[Hashable, Any], media_root: Path) -> VideoInput:
    return VideoInput(
        video_id=str(row["video_id"]),
        path=inside(media_root, str(row["uri"])),
        title=_text(row["title"]),
        stickers=tuple(_texts(row["stickers"])),
        views=None if pd.isna(row["views"]) else int(row["views"]),
        sha256=_text(row["sha256"]) or None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Iterable[str] | None) -> list[str]:
    return [str(item) for item in value] if value is not None else []
