"""Whether videos that a model learns from are kept apart from those it is judged on."""

from __future__ import annotations

import pandas as pd

from coefvq.config import Split
from coefvq.data.splits.groups import LOOK_ALIKE, with_look_alikes
from coefvq.errors import SplitError
from coefvq.records import UNLABELLED

_JUDGED = ("val", "test")
_TIES = {"video_id": "id", "sha256": "clip", "source_id": "source", LOOK_ALIKE: "look"}


def check_unlabelled(rows: pd.DataFrame, params: Split, key: str) -> None:
    """Refuse unlabelled videos that are, or are copies of, videos of validation or test.

    Args:
        rows: of the manifest, with the column ``split``.
        params: says how alike two videos may look.
        key: the setting that asks for the unlabelled videos, named in errors.

    Raises:
        SplitError: two of them share id, clip, source or look; names both.
    """
    table = with_look_alikes(rows, params)
    mine, judged = table[table["split"] == UNLABELLED], table[table["split"].isin(_JUDGED)]
    for column, word in _TIES.items():
        if column not in table:
            continue
        values = mine[column].replace("", None).dropna()
        shared = values[values.isin(judged[column])]
        if len(shared):
            video = mine.loc[shared.index[0], "video_id"]
            other = judged[judged[column] == shared.iloc[0]].iloc[0]
            raise SplitError(
                f"{key}: {len(shared)} video(s) of split '{UNLABELLED}' share their {word} with val or test "
                f"(first {video!r} with {other['video_id']!r} in '{other['split']}'); put both into one split by the "
                "column split of your data, or delete the splits file and split again"
            )
