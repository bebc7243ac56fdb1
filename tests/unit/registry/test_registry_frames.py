"""DataFrames of the served models: input rows and output columns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coefvq.config import MediaSpec
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
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
    # None and not NaN, which JSON does not have
    assert frame["base_score"].tolist() == [0.2, 0.9, None]
    assert frame["mllm_score"].tolist() == [None, 0.7, None]
    assert frame["error"].tolist() == [None, None, "c: no such file"]
    assert len(pair_frame([])) == 0


def test_paths_are_local_files_that_the_caller_picks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30 fight.mp4").touch()
    Path("link.mp4").symlink_to("12:30 fight.mp4")
    os.mkfifo("pipe.mp4")
    given = ["12:30 fight.mp4", "link.mp4", "pipe.mp4", "none.mp4", "n" * 300, "http://127.0.0.1:9/a.mp4?key=secret"]
    *local, web = videos(pd.DataFrame({"path": given}))
    assert [row.video_id for row in local] == given[:-1]
    assert [row.path for row in local[:2]] == [tmp_path / "12:30 fight.mp4"] * 2
    assert web.refusal == "http://127.0.0.1:9/a.mp4?***: expected a local file; download it and give the copy's path"
    store = ClipStore(tmp_path / "cache", MediaSpec(frames=2, frame_size=32, audio_seconds=1.0), DEFAULT_LIMITS)
    bad = {index: error.reason for index, error in store.try_fill([*local[2:], web], 1).items()}
    assert bad == {0: "missing", 1: "missing", 2: "missing", 3: "outside_root"}
