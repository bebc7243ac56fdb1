"""manifest.parquet -> splits.parquet, and what the rows to train on look like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Split, Thresholds
from coefvq.data.manifest import read_table, write_table
from coefvq.data.splits.account import few_calls, few_positives, large_groups, torn_videos
from coefvq.data.splits.assign import assign_splits, check_splits, enrichment_weights, summarize
from coefvq.data.splits.groups import (
    Ties,
    decodable,
    find_ties,
    undivided_columns,
    with_codes,
    with_look_alikes,
)
from coefvq.data.splits.halves import HALF, validation_halves
from coefvq.data.validation.expectations import validate_splits
from coefvq.data.validation.report import first_error
from coefvq.errors import DataError, ValidationFailedError
from coefvq.files import sha256_file, sha256_json, write_json
from coefvq.records import MANIFEST_COLUMNS
from coefvq.stages.common import train_profile, write_validation
from coefvq.stages.inputs import SplitInputs
from coefvq.terminal import say

# columns that no step of splitting looks at
_UNREAD = frozenset({"uri", "title", "stickers", "reason", "size_bytes", "duration_s", "fps", "width", "height"})
# a near-duplicate group larger than this share of the videos is no set of copies
_SUSPICIOUS_SHARE = 0.05


def run(inputs: SplitInputs) -> None:
    """Assign splits and refuse unusable ones before anything is written; videos of the last run stay where they are."""
    manifest = with_look_alikes(read_table(Path(inputs.paths.manifest), MANIFEST_COLUMNS, _UNREAD), inputs.split)
    # the look-alikes are known; a quarter of a kilobyte each
    manifest = with_codes(manifest.drop(columns="phash"), inputs.split)
    target = Path(inputs.paths.splits)
    settings = settings_digest(inputs.split, inputs.seed)
    previous = earlier(target, settings)
    # every decodable video gets a split, so all steps look at the same rows
    ties = find_ties(manifest[decodable(manifest)], inputs.split)
    splits = assign_splits(manifest, inputs.issues, inputs.split, inputs.seed, previous, ties)
    weights = enrichment_weights(manifest, splits, inputs.issues, inputs.split, inputs.seed)
    check_splits(manifest, splits, inputs.issues, inputs.split, previous, weights, ties)
    account = {
        **summarize(manifest, splits, inputs.issues, inputs.split, weights, ties),
        "previous": _kept(manifest, splits, previous, target),
    }
    _tell(account, inputs.thresholds)
    for line in large_groups(account, manifest, inputs.split):
        say(line)
    _validate(manifest, splits, weights, ties, inputs)
    halves = validation_halves(manifest, splits, inputs.split, inputs.seed)
    table = pd.DataFrame({"video_id": manifest["video_id"], "split": splits, "weight": weights, HALF: halves})
    table = table.dropna(subset="split").assign(settings=settings).astype({"settings": "category"})
    write_table(table, target)
    write_json(Path(inputs.paths.reports) / "splits.json", account)
    write_json(inputs.paths.train_profile, train_profile(inputs.paths, inputs.issues))


def settings_digest(split: Split, seed: int) -> str:
    """Hex SHA-256 of what decides where a video goes.

    The share of negatives and the list of issues do not count: a change of either must not reshuffle a test set.
    """
    settings = split.model_dump(mode="json", exclude={"negatives"})
    # splits that were made before there were these settings stay
    if not settings["fractions"]["unlabelled"]:
        del settings["fractions"]["unlabelled"]
    if settings["creator"] == "hard":
        del settings["creator"]
    return sha256_json([seed, settings])


def _tell(account: dict[str, Any], thresholds: Mapping[str, Thresholds]) -> None:
    """Say on stderr what somebody should look at."""
    moved, near = account["previous"]["moved_by_user"], account["near_duplicates"]["largest"]
    if moved:
        say(f"splits: {moved} video(s) moved from their earlier split by the column split of your data")
    for line in (*few_positives(account), *few_calls(account, thresholds)):
        say(line)
    if account["conflicts"]:
        say(f"splits: {len(account['conflicts'])} group(s) of old videos of several splits (conflicts in splits.json)")
    if (shared := account["shared_creators"]) and shared["creators"]:
        say(
            f"splits: split.creator is soft and {shared['creators']} creator(s) are in several splits; train has the "
            f"creator of {shared['test_in_train']:.1%} of test (shared_creators in splits.json)"
        )
    if near > _SUSPICIOUS_SHARE * (account["rows"] - account["excluded"]):
        say(f"splits: {near} videos form one near-duplicate group; if they are no copies, lower split.near_duplicates")


def _validate(
    manifest: pd.DataFrame, splits: pd.Series[Any], weights: pd.Series[Any], ties: Ties, inputs: SplitInputs
) -> None:
    """Ask the split suite, write its reports, and fail if it fails."""
    rows = manifest.assign(split=splits, weight=manifest["weight"] * weights).dropna(subset="split")
    excused = torn_videos(manifest, splits, ties)
    columns = undivided_columns(manifest, inputs.split)
    result = validate_splits(rows, inputs.expected, inputs.issues, columns, excused)
    reports = Path(inputs.paths.reports)
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
        say(f"{path}: none yet; all videos are assigned anew")
        return None
    try:
        table = read_table(path)
    except DataError as error:
        say(f"earlier splits are not used: {error}")
        return None
    if "settings" not in table or not (table["settings"] == settings).all():
        say(f"{path}: made with other settings (seed or split); all videos are assigned anew")
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
