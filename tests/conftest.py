"""Shared by all tests: quiet libraries, small labelled clip folders made on the spot."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from coefvq.telemetry import switch_off
from tests import mariadb, postgres

# a busy machine is no fault of the code: how long an example takes is never asserted
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

switch_off()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """What was imported stays to the end; each training collects garbage and would walk through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Top of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic clips with metadata.csv."""
    from coefvq.simulation.synthetic.generate import generate

    folder = tmp_path_factory.mktemp("clips") / "raw"
    generate(folder, 12, 3, {"icd": 0.4, "ucc": 0.4}, workers=1)
    return folder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server; tests that need it skip where its package is missing."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """A real MariaDB server; tests that need it skip where the system has none."""
    with mariadb.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def index_place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a test opens its index: the contract is one for both stores."""
    if request.param == "sqlite":
        return tmp_path / "index.sqlite"
    return postgres.schema_of(request.getfixturevalue("postgres_url"), "contract")
