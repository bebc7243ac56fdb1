"""Scores kept across runs: never wrong, mended by itself, bounded in size."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.files import sha256_json
from coefvq.inference.score_cache import FILE, ScoreCache, score_keys
from coefvq.inference.scores import Scores
from coefvq.records import VideoInput


class Model:
    """Scores by key, and which were computed."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def over(self, keys: list[str | None]) -> Callable[[list[int]], Scores]:
        def compute(missing: list[int]) -> Scores:
            self.asked += [str(keys[index]) for index in missing]
            return np.array([truth(keys[index]) for index in missing])

        return compute


def truth(key: str | None) -> list[float]:
    return [int(sha256_json(key)[:8], 16) / 2**32, 0.25]


def filled(cache: ScoreCache, keys: list[str | None]) -> list[str]:
    """Fill and check; which were computed."""
    model = Model()
    assert cache.fill(keys, 2, model.over(keys)).tolist() == [truth(key) for key in keys]
    return model.asked


def test_a_clip_is_scored_once_and_one_without_a_hash_each_time(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    assert filled(cache, ["a", None, "b"]) == ["a", "None", "b"]
    assert filled(ScoreCache(tmp_path), ["b", "c", None, "a"]) == ["c", "None"]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5, unique=True), max_size=8))
@settings(max_examples=20, deadline=None)
def test_any_order_gives_the_scores_themselves(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[str]]
) -> None:
    cache, seen = ScoreCache(tmp_path_factory.mktemp("cache")), set[str]()
    for keys in rounds:
        assert filled(cache, list(keys)) == [key for key in keys if key not in seen]
        seen |= set(keys)


def test_a_key_is_model_clip_and_text_and_nothing_else() -> None:
    video = VideoInput("a", Path("a.mp4"), "title", ("sale",), 5, "ab" * 32)
    same = [replace(video, video_id="b", file=Path("b.mp4"), views=9)]
    others = [replace(video, title="another"), replace(video, stickers=()), replace(video, sha256="cd" * 32)]
    (key,) = score_keys("m", [video])
    assert score_keys("m", same) == [key]
    assert len({key, *score_keys("m", others), *score_keys("n", [video])}) == 5
    assert score_keys("m", [replace(video, sha256=None)]) == [None]


def test_what_is_not_a_number_is_not_kept(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    nothing = cache.fill(["a"], 1, lambda missing: np.array([[np.nan]]))
    assert np.isnan(nothing).all()
    assert cache.fill(["a"], 1, lambda missing: np.array([[0.5]])).tolist() == [[0.5]]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE scores SET scores = '[0.9, 0.9]' WHERE key = 'a'",
        "UPDATE scores SET scores = 'torn' WHERE key = 'a'",
        "UPDATE scores SET scores = x'00ff' WHERE key = 'a'",
        "UPDATE scores SET digest = '' WHERE key = 'a'",
        "UPDATE scores SET scores = (SELECT scores FROM scores WHERE key = 'b'), "
        "digest = (SELECT digest FROM scores WHERE key = 'b') WHERE key = 'a'",
    ],
)
def test_a_damaged_row_is_deleted_and_made_again(tmp_path: Path, damage: str) -> None:
    cache = ScoreCache(tmp_path)
    filled(cache, ["a", "b"])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute(damage)
    assert filled(cache, ["a", "b"]) == ["a"]
    assert filled(cache, ["a", "b"]) == []


def test_a_model_with_another_number_of_heads_is_not_answered_with_these(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    filled(cache, ["a"])
    assert cache.fill(["a"], 1, lambda missing: np.array([[0.5]])).tolist() == [[0.5]]


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    filled(ScoreCache(tmp_path), ["a", "b"])
    (tmp_path / FILE).write_bytes(b"no database at all, " * 500)
    assert filled(ScoreCache(tmp_path), ["a"]) == ["a"]
    assert filled(ScoreCache(tmp_path), ["a"]) == []


def test_a_file_that_cannot_be_used_costs_time_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE).mkdir()
    cache = ScoreCache(tmp_path)
    assert [filled(cache, ["a"]), filled(cache, ["a"])] == [["a"], ["a"]]
    assert capsys.readouterr().err.count("clips are scored anew") == 1


def test_the_oldest_go_when_it_grows_too_large(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, largest_bytes=100_000)
    for start in range(0, 2000, 100):
        filled(cache, [f"{number:064d}" for number in range(start, start + 100)])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    assert pages * size <= 100_000
    assert filled(cache, [f"{1999:064d}"]) == []
    assert filled(cache, [f"{0:064d}"]) != []
