"""Short descriptions of clips for alignment: a column ``caption``, or the file ``descriptions.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from coefvq.errors import DataError
from coefvq.files import read_text
from coefvq.records import CAPTION

DESCRIPTIONS = "descriptions.jsonl"
#: what the synthetic world wrote before it wrote descriptions as such
_FACTORS = "factors.jsonl"


def read_descriptions(rows: pd.DataFrame, raw: Path) -> list[tuple[str, ...]]:
    """Descriptions of each manifest row, one of which is used at a time; none where nothing is known.

    ``rows`` may have a column ``caption``; else each line of ``descriptions.jsonl`` beside the raw table holds a
    ``video_id`` and its list of ``descriptions``. Where there is neither, no row has any.

    Raises:
        DataError: the file is broken, or the clips were made before there was one.
    """
    if CAPTION in rows.columns:
        return [(value,) if isinstance(value, str) and value else () for value in rows[CAPTION]]
    path = descriptions_file(raw)
    if path.is_file():
        by_video = dict(_lines(path))
        return [by_video.get(str(video), ()) for video in rows["video_id"]]
    if (path.parent / _FACTORS).is_file():
        raise DataError(
            f"{path}: not there, but {_FACTORS} is; these clips were made by an earlier version: "
            "run coefvq data synth again with the same numbers, which keeps the clips"
        )
    return [()] * len(rows)


def descriptions_file(raw: Path) -> Path:
    """Where descriptions lie: in the folder of clips, or beside their table."""
    return (raw if raw.is_dir() else raw.parent) / DESCRIPTIONS


def _lines(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    text = read_text(path, missing="make the clips again", remedy="make the clips again")
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            texts = row["descriptions"]
            if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
                raise TypeError("descriptions is no list of texts")
            yield str(row["video_id"]), tuple(texts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path} row {number}: expected an object with video_id and a list of descriptions ({error}); "
                "correct the line or make the clips again"
            ) from error
