"""Whether videos that a model learns from are kept apart from those it is judged on."""

from __future__ import annotations

import pandas as pd

from coefvq.data.splits.groups import LOOK_ALIKE
from coefvq.data.splits.near_duplicates import near_duplicate_codes
from coefvq.errors import SplitError
from coefvq.records import UNLABELLED

_JUDGED = ("val", "test")
_TIES = {"video_id": "id", "sha256": "clip", "source_id": "source", LOOK_ALIKE: "look"}


def check_unlabelled(rows: pd.DataFrame, near_duplicates: int | None, key: str) -> None:
    """Refuse unlabelled videos that are, or are copies of, videos of validation or test.

    Args:
        rows: of the manifest, with the column ``split``.
        near_duplicates: bits in which the hashes of look-alikes may differ; None: looks are not compared.
        key: the setting that asks for the unlabelled videos, named in errors.

    Raises:
        SplitError: two of them share id, clip, source or look; names both.
    """
    table = rows[rows["split"].isin((*_JUDGED, UNLABELLED))]
    if near_duplicates is not None:
        codes = pd.Series(near_duplicate_codes(table["phash"], near_duplicates), index=table.index)
        table = table.assign(**{LOOK_ALIKE: codes.where(codes >= 0)})
    mine, judged = table[table["split"] == UNLABELLED], table[table["split"] != UNLABELLED]
    for column, word in _TIES.items():
        if column not in table:
            continue  # looks are not compared
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
