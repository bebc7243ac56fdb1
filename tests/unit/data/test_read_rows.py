"""Rows of some videos out of a stage's table, against pandas, which reads the table whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coefvq.data import manifest
from coefvq.data.manifest import read_table
from coefvq.errors import DataError


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    random = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "video_id": [f"v{row}" for row in random.permutation(1000)],
            "views": pd.array(random.integers(0, 9, 1000), "Int64"),
            "stickers": [["SALE"] * (row % 3) for row in range(1000)],
            "label_icd": pd.array([None if row % 4 else row % 2 for row in range(1000)], "Int8"),
            "title": ["a" if row % 5 else None for row in range(1000)],
        }
    ).astype({"title": "str"})
    rows.to_parquet(tmp_path / "table.parquet", index=False, row_group_size=300)
    return rows


@pytest.mark.parametrize("at_once", [7, 300, 10_000])
def test_rows_have_the_order_and_types_of_the_whole_table(
    table: pd.DataFrame, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_ROWS_AT_ONCE", at_once)
    wanted = [f"v{row}" for row in range(0, 1200, 3)]
    found = read_table(tmp_path / "table.parquet", skip={"views"}, video_ids=wanted)
    whole = pd.read_parquet(tmp_path / "table.parquet").drop(columns="views")
    pd.testing.assert_frame_equal(found, whole[whole["video_id"].isin(wanted)].reset_index(drop=True))
    assert len(found) == 334


def test_no_video_is_no_row_and_no_error(table: pd.DataFrame, tmp_path: Path) -> None:
    found = read_table(tmp_path / "table.parquet", video_ids=["another"])
    assert list(found) == list(table)
    assert found.empty


def test_ids_of_another_type_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    table.assign(video_id=range(1000)).to_parquet(tmp_path / "table.parquet", index=False)
    with pytest.raises(DataError, match=r"table\.parquet"):
        read_table(tmp_path / "table.parquet", video_ids=["v1"])
