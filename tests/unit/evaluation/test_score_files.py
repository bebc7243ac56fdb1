"""Scores of a Parquet table are read column by column as they are row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.errors import DataError
from coefvq.evaluation import score_files
from coefvq.evaluation.score_files import Columns, ScoreTable, read_scores

NUMBERS = [st.none() | st.floats(0, 1), st.integers(0, 1), st.booleans(), st.sampled_from(["1", "0.5", "true", "x"])]
TEXTS = [st.sampled_from(["a", " b ", "", None]), st.integers(0, 5), st.floats(0, 2)]
KINDS = {**dict.fromkeys(("base", "mllm", "label", "weight"), NUMBERS), **dict.fromkeys(("video_id", "split"), TEXTS)}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 5))
    names = draw(st.lists(st.sampled_from([*KINDS, "own"]), min_size=1, unique=True))
    kinds = {name: draw(st.sampled_from(KINDS.get(name, TEXTS))) for name in names}
    return pa.table({name: draw(st.lists(kind, min_size=rows, max_size=rows)) for name, kind in kinds.items()})


def outcome(path: Path) -> Any:
    try:
        return read_scores(path, Columns())
    except DataError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_columns_are_rows(tmp_path_factory: pytest.TempPathFactory, table: pa.Table) -> None:
    path = tmp_path_factory.getbasetemp() / "scores.parquet"
    pq.write_table(table, path)
    found = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_files, "_by_columns", lambda *_: None)
        expected = outcome(path)
    if not isinstance(expected, ScoreTable):
        assert found == expected
        return
    assert found.columns == expected.columns
    pd.testing.assert_frame_equal(found.frame, expected.frame, check_index_type=False)


def test_plain_scores_are_read_by_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"video_id": ["a", "b"], "base": [0.1, None], "label": [1, 0]}), path)
    monkeypatch.setattr(score_files, "_cells", None)  # nothing is read row by row
    assert read_scores(path, Columns()).frame["base"].isna().tolist() == [False, True]
