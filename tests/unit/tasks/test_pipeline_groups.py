"""Which stages of a level run together."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pipeline import share_of_threads, side_by_side

SHARED = frozenset({"train-mllm@icd", "train-mllm@ucc"})


def test_stages_of_a_shared_model_never_run_together() -> None:
    level = ["train-mllm@icd", "train-mllm@other", "train-mllm@ucc"]
    assert side_by_side(level, 2, [SHARED]) == [["train-mllm@icd", "train-mllm@other"], ["train-mllm@ucc"]]
    assert side_by_side(level, 2, []) == [["train-mllm@icd", "train-mllm@other"], ["train-mllm@ucc"]]
    assert side_by_side(level, 3, []) == [level]
    assert side_by_side(level, 3, [SHARED]) == [["train-mllm@icd", "train-mllm@other"], ["train-mllm@ucc"]]


@given(st.sets(st.sampled_from("abcdef")), st.integers(1, 4), st.sets(st.frozensets(st.sampled_from("abcdef"))))
def test_every_stage_runs_once(names: set[str], most: int, apart: set[frozenset[str]]) -> None:
    groups = side_by_side(sorted(names), most, apart)
    assert sorted(name for group in groups for name in group) == sorted(names)
    for group in groups:
        assert len(group) <= most
        assert all(len(rivals & set(group)) <= 1 for rivals in apart)


def test_stages_side_by_side_divide_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [share_of_threads(count)["OMP_NUM_THREADS"] for count in (1, 2, 3, 16)] == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share_of_threads(2) == {"OMP_NUM_THREADS": "5"}
