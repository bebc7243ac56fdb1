"""Unlabelled videos that a model learns from share nothing with those it is judged on."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from coefvq.data.splits.apart import check_unlabelled
from coefvq.errors import SplitError

KEY = "base.icd.distil.unlabelled"
NEAR = 31
HASH = "0f" * 64


def rows(**changes: Any) -> pd.DataFrame:
    """One video of each split, with ``changes`` to the unlabelled one."""
    splits = ["train", "val", "test", "traffic", "unlabelled"]
    videos = [
        {
            "video_id": f"v{at}",
            "sha256": f"{at:064x}",
            "source_id": f"s{at}",
            "split": split,
            "phash": "",
        }
        for at, split in enumerate(splits)
    ]
    return pd.DataFrame([*videos[:4], videos[4] | changes])


def test_videos_of_their_own_pass() -> None:
    check_unlabelled(rows(), NEAR, KEY)
    # of train and traffic they may be copies
    check_unlabelled(rows(source_id="s0"), NEAR, KEY)
    check_unlabelled(rows(source_id="s3"), NEAR, KEY)
    check_unlabelled(rows(source_id=""), NEAR, KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_id": "v1"}, "share their id with val or test .first 'v1' with 'v1' in 'val'"),
        ({"sha256": f"{2:064x}"}, "share their clip with val or test .first 'v4' with 'v2' in 'test'"),
        ({"source_id": "s2"}, "share their source with val or test .first 'v4' with 'v2' in 'test'"),
    ],
)
def test_a_shared_id_clip_or_source_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SplitError, match=rf"^{KEY}: 1 video.s. of split 'unlabelled' {message}"):
        check_unlabelled(rows(**changes), NEAR, KEY)


def test_a_look_alike_is_refused_where_look_alikes_are_asked_for() -> None:
    table = rows(phash=HASH)
    table.loc[1, "phash"] = HASH
    with pytest.raises(SplitError, match=r"share their look with val or test .first 'v4' with 'v1' in 'val'"):
        check_unlabelled(table, NEAR, KEY)
    check_unlabelled(table, None, KEY)
