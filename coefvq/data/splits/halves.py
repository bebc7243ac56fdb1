"""Validation in two halves: one says which epoch of a training is kept, thresholds are chosen on the other.

A threshold that is chosen on the videos that also chose the epoch looks better there than on new videos. Halves of
few positives cost more than that, so a small validation split serves both as a whole (``MIN_POSITIVES``).
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from coefvq.config import Split
from coefvq.data.splits.draws import uniform
from coefvq.data.splits.groups import components
from coefvq.records import label_column

HALF = "half"
EPOCHS, THRESHOLDS = "epochs", "thresholds"
#: each half needs as many positives and as many negatives of an issue
MIN_POSITIVES = 30


def validation_halves(manifest: pd.DataFrame, splits: pd.Series[Any], params: Split, seed: int) -> pd.Series[Any]:
    """``EPOCHS`` or ``THRESHOLDS`` for each video of val, NA for all others.

    Videos that must stay together share a half. A seeded hash of the group's least video id decides, so labels play
    no part and new videos change nothing for old groups.
    """
    rows = manifest[splits.eq("val").fillna(False).astype(bool)]
    numbers = components(rows, params)
    names = rows["video_id"].astype("str").groupby(numbers).transform("min")
    halves = names.map(lambda name: EPOCHS if uniform(f"{seed}:half:{name}") < 0.5 else THRESHOLDS)
    return halves.reindex(manifest.index).astype("str").where(halves.notna().reindex(manifest.index, fill_value=False))


def kept_for_epochs(rows: pd.DataFrame, issue: str) -> pd.Series[bool]:
    """Which rows of val say what epoch is kept, and so choose no threshold; none where a half would be too small."""
    label = rows[label_column(issue)]
    val = rows["split"].eq("val") & label.notna()
    mask = (val & rows[HALF].eq(EPOCHS)).fillna(False).astype(bool) if HALF in rows else pd.Series(False, rows.index)
    return mask if smaller_half(rows, issue) >= MIN_POSITIVES else mask & False


def smaller_half(rows: pd.DataFrame, issue: str) -> int:
    """Positives or negatives of the issue in the half of val that has the fewest; 0 without halves."""
    if HALF not in rows:
        return 0
    label = rows[label_column(issue)]
    val = rows["split"].eq("val")
    return min(
        int((val & rows[HALF].eq(half) & label.eq(value)).fillna(False).sum())
        for half in (EPOCHS, THRESHOLDS)
        for value in (0, 1)
    )
