"""Shared by the tests that run several workers of one state of the platform, on both stores."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
from pathlib import Path

import pytest

from tests.reliability import vmp_soak_child


@pytest.fixture
def workers() -> multiprocessing.context.ForkServerContext:
    """Makes processes that have the imports of a worker already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([vmp_soak_child.__name__])
    return context


@pytest.fixture
def state(index_place: Path | str, tmp_path: Path) -> Path:
    """A folder of a state whose index is in either store."""
    folder = tmp_path / "vmp"
    folder.mkdir()
    if isinstance(index_place, str):
        (folder / "state.yaml").write_text(f"index: {index_place}\n")
    return folder
