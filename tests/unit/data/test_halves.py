"""Validation in two halves: whole groups, the same whatever comes later, and one validation where a half is small."""

from __future__ import annotations

import numpy as np
import pandas as pd

from coefvq.config import Split
from coefvq.data.splits.halves import EPOCHS, HALF, MIN_POSITIVES, THRESHOLDS, kept_for_epochs, validation_halves
from coefvq.data.splits.rows import validation_of_epochs

SPLIT = Split.model_validate(
    {
        "fractions": {"train": 0.5, "val": 0.5, "test": 0.0, "traffic": 0.0},
        "order": "random",
        "near_duplicates": None,
        "negatives": {"train": 1.0, "val": 1.0, "test": 1.0},
        "group_by": ("source_id", "creator_id"),
    }
)


def videos(count: int) -> pd.DataFrame:
    """Three videos of each source; a third of them positive; every fifth one trains."""
    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "video_id": [f"v{n:05d}" for n in numbers],
            "source_id": [f"s{n // 3}" for n in numbers],
            "creator_id": None,
            "sha256": [f"{n:064x}" for n in numbers],
            "label_icd": pd.array((numbers % 3 == 0).astype(int), dtype="Int64"),
            "split": np.where(numbers // 15 % 5 == 0, "train", "val"),
        }
    )


def in_halves(count: int) -> pd.DataFrame:
    rows = videos(count)
    return rows.assign(**{HALF: validation_halves(rows, rows["split"], SPLIT, 7)})


def test_a_source_is_in_one_half_and_only_validation_has_halves() -> None:
    rows = in_halves(900)
    val = rows[rows["split"] == "val"]
    assert set(val[HALF]) == {EPOCHS, THRESHOLDS}
    assert (val.groupby("source_id")[HALF].nunique() == 1).all()
    assert rows.loc[rows["split"] != "val", HALF].isna().all()
    assert 0.35 < (val[HALF] == EPOCHS).mean() < 0.65


def test_videos_that_come_later_move_nobody() -> None:
    before, after = in_halves(600), in_halves(900)
    assert before[HALF].equals(after[HALF].head(600))
    shuffled = videos(600).sample(frac=1.0, random_state=1)
    again = validation_halves(shuffled, shuffled["split"], SPLIT, 7).sort_index()
    assert again.equals(before[HALF])


def test_thresholds_are_chosen_on_videos_that_chose_no_epoch() -> None:
    rows = in_halves(900)
    chose = kept_for_epochs(rows, "icd")
    assert chose.any()
    assert set(rows.loc[chose, HALF]) == {EPOCHS}
    epochs = validation_of_epochs(rows, ["icd"])
    assert list(epochs["video_id"]) == list(rows.loc[chose, "video_id"])
    left = rows[(rows["split"] == "val") & ~chose]
    assert not set(left["source_id"]) & set(epochs["source_id"])


def test_a_small_validation_serves_both_as_a_whole() -> None:
    rows = in_halves(6 * MIN_POSITIVES)
    assert not kept_for_epochs(rows, "icd").any()
    assert len(validation_of_epochs(rows, ["icd"])) == (rows["split"] == "val").sum()
    # so do splits that were made before there were halves
    older = in_halves(900).drop(columns=HALF)
    assert not kept_for_epochs(older, "icd").any()
