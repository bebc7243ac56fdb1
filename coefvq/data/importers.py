"""Bring a user's table of clips into one shape: VideoFolder, CSV, JSONL, Parquet.

VideoFolder is the Hugging Face layout: a folder of videos with a ``metadata.csv`` or ``metadata.jsonl``
whose ``file_name`` column is relative to the folder, or sub-folders named after the label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from coefvq.config import LabelSource
from coefvq.errors import DataError
from coefvq.records import label_column, posterior_column

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".3gp"})
_PATH_COLUMNS = ("uri", "file_name", "path", "video")
_OPTIONAL_TEXT = ("published_at", "creator_id", "source_id", "split")


@dataclass(frozen=True)
class ImportedTable:
    """Rows as the user gave them, in manifest words; ``frame.uri`` is relative to ``root``."""

    frame: pd.DataFrame
    root: Path
    source: Path


def read_table(source: Path, format: str = "auto") -> ImportedTable:
    """Read a folder or table of clips.

    Raises:
        DataError: nothing usable there; the message names file, row and remedy.
    """
    kind = _detect(source) if format == "auto" else format
    if kind == "videofolder":
        raw, origin = _read_folder(source)
        root = source
    else:
        if not source.is_file():
            raise DataError(f"{source}: no such file; give a folder or a .csv, .jsonl or .parquet table")
        raw, origin, root = _READERS[kind](source), source, source.parent
    if raw.empty:
        raise DataError(f"{origin}: no rows; add at least one video")
    return ImportedTable(_to_manifest_words(raw, origin), root, origin)


def apply_labels(table: ImportedTable, labels: dict[str, LabelSource]) -> pd.DataFrame:
    """Add ``label_<issue>`` (nullable 0/1) from the column each issue names.

    Raises:
        DataError: the column is absent, or a value is not 0/1 where no positive values are named.
    """
    frame = table.frame.copy()
    for issue, source in labels.items():
        if source.column not in frame.columns:
            known = ", ".join(str(name) for name in table.frame.columns)
            raise DataError(
                f"{table.source}: no column '{source.column}' for issue {issue}; set "
                f"ingest.labels.{issue}.column to one of: {known}"
            )
        _check_positive_values(table, source, issue)
        convert = _binary(table.source, source, issue)
        values = [
            convert(row, value)
            for row, value in zip(_rows(frame, table.source), table.frame[source.column], strict=True)
        ]
        frame[label_column(issue)] = pd.array(values, dtype="Int8")
    return frame


def _check_positive_values(table: ImportedTable, source: LabelSource, issue: str) -> None:
    # a misspelt value would turn every positive into a negative without a word
    present = {text for value in table.frame[source.column] if (text := _optional(value)) is not None}
    for wanted in source.positive or ():
        if wanted not in present:
            shown = ", ".join(sorted(present)[:8])
            raise DataError(
                f"{table.source}: column '{source.column}' never holds '{wanted}' "
                f"(ingest.labels.{issue}.positive); values there: {shown}"
            )


def _rows(frame: pd.DataFrame, origin: Path) -> range:
    # rows as a person counts them in an editor: a CSV's header is line 1
    first = 2 if origin.suffix.lower() == ".csv" else 1
    return range(first, first + len(frame))


def _binary(origin: Path, source: LabelSource, issue: str) -> Callable[[int, Any], int | None]:
    positive = None if source.positive is None else frozenset(source.positive)

    def convert(row: int, value: Any) -> int | None:
        text = _optional(value)
        if text is None:
            return None
        if positive is not None:
            return int(text in positive)
        if text not in {"0", "1", "0.0", "1.0"}:
            raise DataError(
                f"{origin} row {row}: {source.column} = {text!r}: expected 0, 1 or empty; correct the row "
                f"or name the positive values in ingest.labels.{issue}.positive"
            )
        return int(float(text))

    return convert


def _detect(source: Path) -> str:
    if source.is_dir():
        return "videofolder"
    kind = source.suffix.lower().lstrip(".")
    if kind in _READERS:
        return kind
    raise DataError(f"{source}: expected a folder or a .csv, .jsonl or .parquet table; check the path")


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (ValueError, OSError) as error:  # ParserError and UnicodeDecodeError are ValueErrors
        raise DataError(f"{path}: not readable as CSV ({str(error).splitlines()[0]}); fix the file") from error


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {number}: not JSON ({error.msg}); fix the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number}: expected an object, got {type(row).__name__}; fix the line")
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a Parquet table ({str(error).splitlines()[0]}); write it anew") from error


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}


def _read_folder(folder: Path) -> tuple[pd.DataFrame, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; put labelled clips there (docs/data.md shows the layout)")
    for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        if (folder / name).is_file():
            return _READERS[name.rsplit(".", 1)[1]](folder / name), folder / name
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise DataError(f"{folder}: neither metadata.csv nor video files; add one of them")
    relative = [PurePosixPath(path.relative_to(folder).as_posix()) for path in files]
    rows = [{"file_name": str(path), "label": path.parent.name if path.parent.name else None} for path in relative]
    return pd.DataFrame(rows, dtype=object), folder


def _to_manifest_words(raw: pd.DataFrame, origin: Path) -> pd.DataFrame:
    column = next((name for name in _PATH_COLUMNS if name in raw.columns), None)
    if column is None:
        raise DataError(f"{origin}: no column file_name; add one with each clip's path relative to the folder")
    frame = raw.copy()
    frame["uri"] = [_uri(origin, row, value) for row, value in zip(_rows(raw, origin), raw[column], strict=True)]
    frame["video_id"] = _video_ids(frame, origin)
    frame["title"] = [_optional(value) or "" for value in raw.get("title", [""] * len(raw))]
    stickers = raw.get("stickers", [None] * len(raw))
    frame["stickers"] = [_stickers(origin, row, v) for row, v in zip(_rows(raw, origin), stickers, strict=True)]
    for name in _OPTIONAL_TEXT:
        frame[name] = [_optional(value) for value in raw.get(name, [None] * len(raw))]
    frame["views"] = pd.array(_numbers(origin, raw, "views", int, None), dtype="Int64")
    frame["weight"] = _numbers(origin, raw, "weight", float, 1.0)
    for name in (c for c in raw.columns if c.startswith(posterior_column(""))):
        frame[name] = _numbers(origin, raw, name, float, float("nan"))
    return frame


def _uri(origin: Path, row: int, value: Any) -> str:
    text = str(value).strip() if value is not None else ""
    if not text or text == "nan":
        raise DataError(f"{origin} row {row}: empty file name; give the clip's path or delete the row")
    return text


def _video_ids(frame: pd.DataFrame, origin: Path) -> list[str]:
    ids = [str(v) for v in frame["video_id"]] if "video_id" in frame.columns else _ids_from_paths(frame["uri"])
    seen: dict[str, int] = {}
    for row, video_id in zip(_rows(frame, origin), ids, strict=True):
        if video_id in seen:
            raise DataError(
                f"{origin} row {row}: duplicate video_id '{video_id}' (first in row {seen[video_id]}); "
                "give each video its own id or delete one row"
            )
        seen[video_id] = row
    return ids


def _ids_from_paths(uris: pd.Series[str]) -> list[str]:
    stems = [PurePosixPath(uri).stem for uri in uris]
    if len(set(stems)) == len(set(uris)):
        return stems
    # same file names in different folders: the path tells them apart; the same path twice stays a duplicate
    return [f"{stem}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}" for stem, uri in zip(stems, uris, strict=True)]


def _optional(value: Any) -> str | None:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    return str(value).strip() or None


def _stickers(origin: Path, row: int, value: Any) -> list[str]:
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return [str(item) for item in value]
    text = _optional(value)
    if text is None:
        return []
    if not text.startswith("["):
        return [text]
    try:
        return [str(item) for item in json.loads(text)]
    except json.JSONDecodeError as error:
        raise DataError(f"{origin} row {row}: stickers = {text!r}: expected a JSON list of texts") from error


def _numbers(origin: Path, raw: pd.DataFrame, name: str, kind: type, default: Any) -> list[Any]:
    if name not in raw.columns:
        return [default] * len(raw)
    return [
        _number(origin, row, name, value, kind, default)
        for row, value in zip(_rows(raw, origin), raw[name], strict=True)
    ]


def _number(origin: Path, row: int, name: str, value: Any, kind: type, default: Any) -> Any:
    text = _optional(value)
    if text is None:
        return default
    try:
        return kind(float(text))
    except (ValueError, OverflowError) as error:
        raise DataError(f"{origin} row {row}: {name} = {text!r}: expected a number; correct or empty it") from error
