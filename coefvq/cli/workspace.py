"""Which workspace a command means: the folder of the settings file it was given."""

from __future__ import annotations

import os
from pathlib import Path

from coefvq.config import Params, load_params


def open_workspace(params: Path) -> Params:
    """Read the settings and change into their folder, so that every relative path in them starts there.

    That holds for data, models, reports, the tracking store and the cache alike, and for the processes that
    a command starts. Paths from the command line go through ``given`` first.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key does not fit.
    """
    settings = load_params(params)
    if not _is_here(params):
        os.chdir(params.parent)
    return settings


def connect_registry(params: Path, create: bool = True) -> Params:
    """Open the workspace of a settings file and use its tracking store from here on.

    ``create`` is off for commands that only read: they make no store where there is none.
    """
    from coefvq.registry import tracking

    settings = open_workspace(params)
    tracking.configure(settings.tracking.uri, settings.tracking.experiment, create=create)
    return settings


def given(path: Path, params: Path) -> Path:
    """A path from the command line as it is called from within the workspace of ``params``."""
    return path if _is_here(params) else Path.cwd() / path


def _is_here(params: Path) -> bool:
    return params.parent.resolve() == Path.cwd()
