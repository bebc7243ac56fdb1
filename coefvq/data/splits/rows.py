"""Manifest and splits joined: the rows that stages after the split read, and what both files hash to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coefvq.config import Paths
from coefvq.data.manifest import column_names, read_table
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


#: columns of the manifest that say where a clip is and what is in it, for stages that look at no clip
CLIP_COLUMNS = frozenset({"uri", "sha256", "phash", "stickers", "reason", "published_at", "source_id"})


def split_manifest(paths: Paths, skip: Collection[str] = (), wanted: Collection[str] | None = None) -> pd.DataFrame:
    """Manifest joined with each video's split, sampling weight and half of validation.

    Rows without a split and rows that enrichment drops are left out. Columns to ``skip`` are not read, nor rows of
    other splits than the ``wanted`` ones.

    Raises:
        DataError: a file is missing or damaged.
    """
    columns = ["video_id", "split", "weight"]
    splits = read_table(Path(paths.splits), columns)
    splits = splits[[*columns, *({HALF} & {*splits})]]  # splits that were made before there were halves lack them
    if not pd.api.types.is_numeric_dtype(splits["weight"]):
        raise DataError(f"{paths.splits}: column weight holds no numbers; run the stage split again")
    chosen = splits["weight"] > 0
    if wanted is not None:
        chosen &= splits["split"].isin(wanted)
    splits = splits[chosen].rename(columns={"weight": "_factor"})
    # the manifest's own column "split" is what the user asked for; the one that counts is in splits.parquet
    manifest = read_table(Path(paths.manifest), MANIFEST_COLUMNS, {"split", *skip}, splits["video_id"])
    rows = manifest.merge(splits, on="video_id", how="inner", validate="one_to_one")
    return rows.assign(weight=rows["weight"] * rows.pop("_factor"))


def columns_but(paths: Paths, needed: Collection[str]) -> frozenset[str]:
    """Columns of the manifest to skip where only the ``needed`` ones are; none if one of these is not there.

    Whoever looks for that one then says so, and what there is instead.
    """
    names = column_names(Path(paths.manifest))
    return names - {"video_id", "weight", *needed} if names.issuperset(needed) else frozenset()


def labelled(rows: pd.DataFrame, issues: str | Sequence[str], split: str) -> pd.DataFrame:
    """Rows of one split that carry a label of an issue, or of at least one of several.

    Raises:
        DataError: an issue has none.
    """
    names = [issues] if isinstance(issues, str) else list(issues)
    known = rows[[label_column(issue) for issue in names]].notna()[rows["split"] == split]
    for issue in names:
        if not known[label_column(issue)].any():
            raise DataError(f"split '{split}' has no row labelled for {issue}; label some or change split.fractions")
    return rows.loc[known.index[known.any(axis=1)]].reset_index(drop=True)


def validation_of_epochs(rows: pd.DataFrame, issues: Sequence[str]) -> pd.DataFrame:
    """Rows of val, labelled for at least one issue, that say which epoch is kept.

    These are one half, or all where a half would be too small for one of the issues.

    Raises:
        DataError: an issue has none.
    """
    val = labelled(rows, issues, "val")
    masks = pd.DataFrame({issue: kept_for_epochs(val, issue) for issue in issues})
    return val[masks.any(axis=1)].reset_index(drop=True) if masks.any().all() else val
