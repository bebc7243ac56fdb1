"""Shared by all tests: quiet libraries, small labelled clip folders made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from coefvq.__main__ import QUIET

# a busy machine is no fault of the code: how long an example takes is never asserted
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


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
