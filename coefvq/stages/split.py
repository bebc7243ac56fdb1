"""manifest.parquet -> splits.parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from coefvq.config import Params
from coefvq.data.manifest import read_table, write_table
from coefvq.data.splits import assign_splits, check_splits, summarize
from coefvq.files import write_json


def run(params: Params) -> None:
    """Assign splits and refuse unusable ones before anything is written."""
    manifest = read_table(Path(params.paths.manifest))
    splits = assign_splits(manifest, params.issues, params.split, params.seed)
    check_splits(manifest, splits, params.issues, params.split)
    table = pd.DataFrame({"video_id": manifest["video_id"], "split": splits}).dropna()
    write_table(table, Path(params.paths.splits))
    write_json(Path(params.paths.reports) / "splits.json", summarize(manifest, splits, params.issues, params.split))
