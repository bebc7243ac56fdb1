"""Manifest and splits joined: the rows that stages after the split read, and what both files hash to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coefvq.config import Paths
from coefvq.data.manifest import read_table
from coefvq.data.splits.halves import HALF, kept_for_epochs
from coefvq.errors import DataError
from coefvq.files import sha256_file
from coefvq.records import MANIFEST_COLUMNS, label_column


@dataclass(frozen=True)
class DataHashes:
    """Hex SHA-256 of the manifest and of the splits that a model is made from."""

    manifest: str
    splits: str


def data_hashes(paths: Paths) -> DataHashes:
    """Hash both files."""
    return DataHashes(sha256_file(Path(paths.manifest)), sha256_file(Path(paths.splits)))


def split_manifest(paths: Paths) -> pd.DataFrame:
    """Manifest joined with each video's split, sampling weight and half of validation.

    Rows without a split and rows that enrichment drops are left out.

    Raises:
        DataError: a file is missing or damaged.
    """
    columns = ["video_id", "split", "weight"]
    manifest = read_table(Path(paths.manifest), MANIFEST_COLUMNS)
    splits = read_table(Path(paths.splits), columns)
    splits = splits[[*columns, *({HALF} & {*splits})]]  # splits that were made before there were halves lack them
    if not pd.api.types.is_numeric_dtype(splits["weight"]):
        raise DataError(f"{paths.splits}: column weight holds no numbers; run the stage split again")
    # the manifest's own column "split" is what the user asked for; the one that counts is in splits.parquet
    rows = manifest.drop(columns="split", errors="ignore").merge(
        splits.rename(columns={"weight": "_factor"}), on="video_id", how="inner", validate="one_to_one"
    )
    factor = rows.pop("_factor")
    return rows.assign(weight=rows["weight"] * factor)[factor > 0].reset_index(drop=True)


def labelled(rows: pd.DataFrame, issue: str, split: str) -> pd.DataFrame:
    """Rows of one split that carry a label of ``issue``.

    Raises:
        DataError: there is none.
    """
    chosen = rows[(rows["split"] == split) & rows[label_column(issue)].notna()]
    if chosen.empty:
        raise DataError(f"split '{split}' has no row labelled for {issue}; label some or change split.fractions")
    return chosen.reset_index(drop=True)


def validation_of_epochs(rows: pd.DataFrame, issue: str) -> pd.DataFrame:
    """Labelled rows of val that say which epoch is kept: one half, or all where a half would be too small.

    Raises:
        DataError: there is none.
    """
    val = labelled(rows, issue, "val")
    mask = kept_for_epochs(val, issue)
    return val[mask].reset_index(drop=True) if mask.any() else val


def labels_of(rows: pd.DataFrame, issue: str) -> list[int]:
    """0/1 labels of labelled rows, in order."""
    return [int(value) for value in rows[label_column(issue)]]
