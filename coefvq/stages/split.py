"""manifest.parquet -> splits.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Params
from coefvq.data.expectations import validate_splits
from coefvq.data.manifest import read_table, write_table
from coefvq.data.split_groups import grouping_columns
from coefvq.data.splits import assign_splits, check_splits, enrichment_weights, summarize
from coefvq.data.validation_report import first_error
from coefvq.errors import DataError, ValidationFailedError
from coefvq.files import sha256_file, sha256_json, write_json
from coefvq.stages.common import say, write_validation


def run(params: Params) -> None:
    """Assign splits and refuse unusable ones before anything is written; videos of the last run stay where they are."""
    manifest = read_table(Path(params.paths.manifest))
    target = Path(params.paths.splits)
    settings = sha256_json([params.seed, list(params.issues), params.split.model_dump(mode="json")])
    previous = earlier(target, settings)
    splits = assign_splits(manifest, params.issues, params.split, params.seed, previous)
    check_splits(manifest, splits, params.issues, params.split, previous)
    weights = enrichment_weights(manifest, splits, params.issues, params.split, params.seed)
    account = {
        **summarize(manifest, splits, params.issues, params.split, weights),
        "previous": _kept(manifest, splits, previous, target),
    }
    _validate(manifest, splits, weights, params, account["conflicts"])
    table = pd.DataFrame({"video_id": manifest["video_id"], "split": splits, "weight": weights})
    table = table.dropna(subset="split").assign(settings=settings).astype({"settings": "category"})
    write_table(table, target)
    write_json(Path(params.paths.reports) / "splits.json", account)


def _validate(
    manifest: pd.DataFrame, splits: pd.Series[Any], weights: pd.Series[Any], params: Params, conflicts: list[Any]
) -> None:
    """Ask the split suite, write its reports, and fail if it fails."""
    rows = manifest.assign(split=splits, weight=manifest["weight"] * weights).dropna(subset="split")
    excused = {name for conflict in conflicts for videos in conflict["videos"].values() for name in videos}
    columns = grouping_columns(params.split)
    result = validate_splits(rows, params.validate_, params.issues, columns, excused)
    reports = Path(params.paths.reports)
    write_validation(result, reports, "splits_validation", "Split validation")
    if not result.success:
        source = "splits.parquet"
        raise ValidationFailedError(
            f"{first_error(result, source)} (all findings: {reports / 'splits_validation.html'})"
        )


def earlier(path: Path, settings: str) -> pd.Series[Any] | None:
    """Split by video id of the last run, if it was made with the same settings.

    The file is the stage's own output, which stays in place (``persist`` in dvc.yaml) and is pulled with the data.
    """
    if not path.is_file():
        return None
    try:
        table = read_table(path)
    except DataError as error:
        say(f"earlier splits are not used: {error}")
        return None
    if "settings" not in table or not (table["settings"] == settings).all():
        say(f"{path}: made with other settings (seed, issues or split); all videos are assigned anew")
        return None
    return table.set_index("video_id")["split"]


def _kept(
    manifest: pd.DataFrame, splits: pd.Series[Any], previous: pd.Series[Any] | None, target: Path
) -> dict[str, Any]:
    """How many videos stayed, came, went or were moved by the user's column."""
    if previous is None:
        return {"sha256": None, "kept": 0, "new": int(splits.notna().sum()), "gone": 0, "moved_by_user": 0}
    now = splits.set_axis(manifest["video_id"]).dropna()
    both = now.index.intersection(previous.index)
    return {
        "sha256": sha256_file(target),
        "kept": int((now[both] == previous[both]).sum()),
        "new": len(now) - len(both),
        "gone": len(previous) - len(both),
        "moved_by_user": int((now[both] != previous[both]).sum()),
    }
