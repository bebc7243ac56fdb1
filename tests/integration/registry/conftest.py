"""Stores for the registry's tests: empty, with trained models, with registered pairs."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from coefvq.registry import pairs, tracking
from tests.integration.conftest import shared_folder
from tests.integration.registry.registry_workspace import Refs, Workspace, read_refs, train, write_refs


def _without_fsync(connection: Any, _: object) -> None:
    # a test's database need not survive a power cut; half of the suite's time would be fsync. The listener hears
    # of every engine of this process, so also of those that other tests open on PostgreSQL
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database with MLflow's tables and nothing of ours; making the tables takes 2 s, copying them nothing."""
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", _without_fsync)
    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    tracking.configure(f"sqlite:///{database}", "unused")
    yield database
    event.remove(Engine, "connect", _without_fsync)


@pytest.fixture(scope="session")
def trained(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Models of four seeds of icd and two of ucc, logged once; tests copy the database, not the files."""

    def make(root: Path) -> Refs:
        shutil.copy(empty_database, root / "mlflow.db")
        tracking.configure(Workspace(root, {}).uri, "coefvq")
        seeds = [("icd", 1), ("icd", 2), ("icd", 3), ("icd", 4), ("ucc", 1), ("ucc", 2)]
        return {(issue, seed): train(root, seed, issue) for issue, seed in seeds}

    return _shared(tmp_path_factory, "trained", make)


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def registered(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same with a registered pair of each seed, version = seed, and no alias."""

    def make(root: Path) -> Refs:
        workspace = Workspace(root, trained.trained)
        shutil.copy(trained.root / "mlflow.db", root / "mlflow.db")
        (root / "mlartifacts").symlink_to(trained.root / "mlartifacts")
        tracking.configure(workspace.uri, "coefvq")
        for issue, seed in trained.trained:
            pairs.drop_challenger(issue, workspace.register(seed, issue).version)
        return trained.trained

    return _shared(tmp_path_factory, "registered", make)


def _shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Refs]) -> Workspace:
    """A workspace that side-by-side test processes share: the first one makes it, the others wait."""
    top = shared_folder(factory)
    root, record = top / name, top / f"{name}.json"
    with FileLock(f"{root}.lock"):
        if not record.is_file():
            root.mkdir()
            write_refs(record, make(root))
    return Workspace(root, read_refs(record))


@pytest.fixture
def workspace(registered: Workspace, isolated: Path) -> Workspace:
    """A store in which registering a seed only makes it the challenger, which is fast."""
    return _copy(registered, isolated)


@pytest.fixture
def unregistered(trained: Workspace, isolated: Path) -> Workspace:
    """A store that knows the trained models and nothing else."""
    return _copy(trained, isolated)


def _copy(template: Workspace, root: Path) -> Workspace:
    """A store of its own that shares the template's files, which no test changes."""
    made = Workspace(root, template.trained)
    (root / "mlartifacts").symlink_to(template.root / "mlartifacts")
    shutil.copy(template.root / "mlflow.db", root / "mlflow.db")
    tracking.configure(made.uri, "coefvq")
    return made


@pytest.fixture
def fresh(empty_database: Path, isolated: Path) -> Workspace:
    """An empty store; what is logged in it lies beside it."""
    made = Workspace(isolated, {})
    shutil.copy(empty_database, isolated / "mlflow.db")
    tracking.configure(made.uri, "coefvq")
    return made


@pytest.fixture
def complete(registered: Workspace, isolated: Path) -> Workspace:
    """A store with its own files beside it, in a folder whose name a URI would take apart; icd 1 is champion."""
    made = Workspace(isolated / "q?x a%b#ü", registered.trained)
    made.root.mkdir()
    shutil.copy(registered.root / "mlflow.db", made.root)
    shutil.copytree(registered.root / "mlartifacts", made.root / "mlartifacts")
    tracking.configure(None, "coefvq", root=made.root)
    made.approve(1)
    return made
