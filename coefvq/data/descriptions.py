"""Short descriptions of clips for the alignment warm-up: a column ``caption``, or the synthetic world's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.data.synthetic.captions import short_captions
from coefvq.data.synthetic.factors import FACTOR_TYPES, Factors
from coefvq.errors import DataError
from coefvq.files import read_text
from coefvq.records import CAPTION

_FACTORS = "factors.jsonl"


def read_descriptions(rows: pd.DataFrame, raw: Path) -> list[tuple[str, ...]]:
    """Descriptions of each manifest row, one of which is used at a time; none where nothing is known.

    ``rows`` may have a column ``caption``; else the levels shown in ``factors.jsonl`` beside the raw table are put in
    words (docs/data.md, "The synthetic world"), matched by ``video_id``. Where there is neither, no row has any.

    Raises:
        DataError: the file is broken.
    """
    if CAPTION in rows.columns:
        return [(value,) if isinstance(value, str) and value else () for value in rows[CAPTION]]
    path = (raw if raw.is_dir() else raw.parent) / _FACTORS
    if not path.is_file():
        return [()] * len(rows)
    told = dict(_lines(path))
    return [told.get(str(video), ()) for video in rows["video_id"]]


def _lines(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    text = read_text(path, missing="make the clips again", remedy="make the clips again")
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            levels: dict[str, Any] = {name: kind(row["shown"][name]) for name, kind in FACTOR_TYPES.items()}
            found.append((str(row["video_id"]), short_captions(Factors(**levels))))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path} row {number}: expected an object with video_id and shown levels ({error}); "
                "correct the line or make the clips again"
            ) from error
    return found
