"""DataFrames of the served models: input rows and output columns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.registry.serving import pair_frame, videos


def test_a_full_row() -> None:
    frame = pd.DataFrame(
        {"path": ["a.mp4"], "video_id": ["v"], "title": ["t"], "stickers": ['["x", "y"]'], "views": [3]}
    )
    assert videos(frame) == [VideoInput("v", Path("a.mp4"), "t", ("x", "y"), 3)]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_what_is_missing_takes_its_default(missing: Any) -> None:
    columns = {name: pd.Series(["x", missing], dtype="object") for name in ("video_id", "title", "stickers", "views")}
    columns["stickers"][0], columns["views"][0] = "[]", 4.0
    rows = videos(pd.DataFrame({"path": ["a.mp4", "b.mp4"], **columns}))
    assert rows == [VideoInput("x", Path("a.mp4"), "x", (), 4), VideoInput("b.mp4", Path("b.mp4"))]
    assert videos(pd.DataFrame({"path": ["b.mp4"]})) == [VideoInput("b.mp4", Path("b.mp4"))]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"file": ["a.mp4"]}, "no column 'path'; columns are file"),
        ({"path": ["a.mp4", None]}, "row 1: path is empty"),
        ({"path": ["a.mp4"], "stickers": ["SALE"]}, "row 0: stickers = 'SALE': expected a JSON list"),
        ({"path": ["a.mp4"], "stickers": ["[1]"]}, "row 0: stickers"),
        ({"path": ["a.mp4"], "stickers": [["SALE"]]}, "row 0: stickers"),
        ({"path": ["a.mp4"], "views": ["many"]}, "row 0: views = 'many': expected a whole number"),
        ({"path": ["a.mp4"], "views": [1.5]}, "row 0: views = 1.5"),
    ],
)
def test_a_wrong_row_is_named(frame: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        videos(pd.DataFrame(frame))


def test_the_answer_keeps_what_is_unknown_unknown() -> None:
    scored = [
        ScoredVideo("a", "icd", 0.2, None, False, "base", "1-x"),
        ScoredVideo("b", "icd", 0.9, 0.7, True, "mllm", "1-x"),
        ScoredVideo("c", "icd", None, None, None, "none", "1-x", error="c: no such file"),
    ]
    frame = pair_frame(scored)
    assert list(frame.columns) == ["video_id", "base_score", "mllm_score", "positive", "decided_by", "error"]
    assert frame["positive"].tolist() == [False, True, None]
    assert [frame["base_score"].dtype.name, frame["mllm_score"].dtype.name] == ["float64", "float64"]
    assert math.isnan(frame["base_score"][2])
    assert math.isnan(frame["mllm_score"][0])
    assert frame["error"].tolist() == [None, None, "c: no such file"]
    assert len(pair_frame([])) == 0
