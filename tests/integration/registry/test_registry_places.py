"""The store of a workspace: wherever its folder is, whatever its name, and nothing else in its place."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from coefvq.errors import RegistryError
from coefvq.registry import attachments, overview, pair_files, pairs, release, tracking
from tests.integration.registry.registry_workspace import PASSED, Workspace, champion, train


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder but SQLite's own."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def use_everything(workspace: Workspace) -> None:
    """Reads and writes of each kind: train, register, attach, approve, resolve."""
    new = workspace.candidate(9, **train(workspace.root, 9, "icd"))
    pair = pairs.register_candidate(new, PASSED)
    (workspace.root / "page.html").write_text("page")
    attachments.attach("icd", pair.version, {"report.html": workspace.root / "page.html"})
    assert attachments.attached("icd", pair.version, "report.html", workspace.root / "fetched") is not None
    release.approve("icd", "ana", "better")
    for version in (pair.version, "1"):
        bundle = pair_files.resolve("icd", version)
        assert bundle.base_dir.is_relative_to(workspace.root)
    assert pair_files.resolve("icd").version == pair.version


def test_a_copy_is_a_store_of_its_own(complete: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(complete.root)
    copy = Workspace(tmp_path / "copy", complete.trained)
    shutil.copytree(complete.root, copy.root)
    with caplog.at_level(logging.WARNING):
        tracking.configure(copy.uri, "coefvq")
    told = f"{copy.root / 'mlflow.db'} was moved or copied: its artifacts are those in {copy.root / 'mlartifacts'} now"
    assert [told in line for line in caplog.messages] == [True]
    use_everything(copy)
    assert contents(complete.root) == before
    shutil.rmtree(complete.root)
    assert pair_files.resolve("icd").version == champion()
    assert pair_files.resolve("icd", "1").base_dir.is_relative_to(copy.root)
    caplog.clear()
    tracking.configure(copy.uri, "coefvq")  # once is enough
    assert caplog.messages == []


def test_a_moved_store_goes_on_in_a_folder_of_any_name(complete: Workspace) -> None:
    moved = Workspace(complete.root.with_name("50%25 & 'more'?a=1"), complete.trained)
    complete.root.rename(moved.root)
    tracking.configure(None, "coefvq", root=moved.root)
    use_everything(moved)
    assert not complete.root.exists()
    assert sorted(path.name for path in moved.root.parent.iterdir()) == ["50%25 & 'more'?a=1"]


def test_a_database_without_its_artifacts_says_what_to_copy(complete: Workspace, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    database = Path(shutil.copy(complete.root / "mlflow.db", tmp_path / "alone"))
    before = database.read_bytes()
    with pytest.raises(RegistryError, match=r"came here without its artifacts; copy .*mlartifacts to .*alone/mlartif"):
        tracking.configure(f"sqlite:///{database}", "coefvq")
    assert database.read_bytes() == before


def test_a_move_that_is_cut_off_changes_nothing(complete: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from coefvq.registry.tracking import local

    moved = complete.root.with_name("moved")
    complete.root.rename(moved)
    places = local._PLACES
    with monkeypatch.context() as patch:
        patch.setattr(local, "_PLACES", (*places[:2], ("no_such_table", "x")))
        with pytest.raises(RegistryError, match="no such table"):
            tracking.configure(f"sqlite:///{moved / 'mlflow.db'}", "coefvq")
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        assert not connection.execute("SELECT 1 FROM runs WHERE artifact_uri LIKE '%/moved/%'").fetchone()
    tracking.configure(f"sqlite:///{moved / 'mlflow.db'}", "coefvq")
    assert pair_files.resolve("icd").base_dir.is_relative_to(moved)


def test_status_says_when_the_champion_s_files_are_gone(complete: Workspace) -> None:
    assert overview.status()[0].missing is None
    shutil.rmtree(pair_files.resolve("icd").mllm_dir)
    assert "icd version 1: its model m-" in str(overview.status()[0].missing)
    shutil.rmtree(complete.root / "mlartifacts")
    assert "its files are gone" in str(overview.status()[0].missing)
    with pytest.raises(RegistryError, match=r"its files are gone .* restore that folder from a backup"):
        pair_files.resolve("icd")
    complete.register(2)
    with pytest.raises(RegistryError, match="files are gone"):
        release.approve("icd", "ana", "why")


def of_another_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 3")


def of_a_newer_mlflow(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in (
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('ffff00001111')",
            "CREATE TABLE experiments (name TEXT, artifact_location TEXT)",
            "CREATE TABLE runs (artifact_uri TEXT)",
        ):
            connection.execute(statement)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.touch, "empty"),
        (lambda path: path.write_text("not a database, but long enough to be taken for one" * 99), "not an SQLite"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\1" * 4000), "mlflow.db: "),
        (of_another_application, "a database of another application"),
        (without_tables, "without tables"),
        (of_a_newer_mlflow, r"written by another version of MLflow \(schema 'ffff00001111'\)"),
        (Path.mkdir, "not a file"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_what_is_no_store_is_refused_and_left_alone(
    make: Callable[[Path], object], message: str, create: bool, isolated: Path
) -> None:
    database = isolated / "mlflow.db"
    make(database)
    before = contents(isolated)
    with pytest.raises(RegistryError, match=message) as caught:
        tracking.configure(None, "coefvq", root=isolated, create=create)
    assert str(caught.value).startswith(str(database))
    assert "\n" not in str(caught.value)
    assert contents(isolated) == before


def test_a_new_store_is_whole_and_the_owner_s(isolated: Path) -> None:
    (isolated / ".mlflow.db.new").write_text("what a killed process left")
    tracking.configure(None, "coefvq", root=isolated)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in isolated.glob("*ml*[!k]")} == {
        "mlflow.db": 0o600,
        "mlartifacts": 0o700,
    }
    assert not list(isolated.glob(".mlflow*"))


def test_reading_makes_no_store(isolated: Path) -> None:
    tracking.configure(None, "coefvq", root=isolated, create=False)
    with pytest.raises(RegistryError, match=r"mlflow\.db: no tracking store is there yet; register a candidate first"):
        pairs.aliases("icd")
    assert list(isolated.iterdir()) == []


def test_a_relative_setting_starts_in_the_workspace(
    complete: Workspace, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = isolated / "clone"
    clone.mkdir()
    monkeypatch.chdir(clone)
    monkeypatch.setenv("COEFVQ_WORKSPACE", str(complete.root))
    assert tracking.configure("sqlite:///mlflow.db", "coefvq").database == complete.root / "mlflow.db"
    assert tracking.configure(None, "coefvq").database == complete.root / "mlflow.db"
    assert tracking.configure(None, "coefvq", root=isolated, create=False).database == isolated / "mlflow.db"
    assert list(clone.iterdir()) == []


def test_one_process_may_work_for_two_workspaces(
    complete: Workspace, empty_database: Path, isolated: Path, repository: Path
) -> None:
    from tasks.release import connect
    from tasks.workspace import run_environment

    other = isolated / "other"
    other.mkdir()
    shutil.copy(empty_database, other)
    for root in (complete.root, other, complete.root):
        for name in ("params.yaml", "recipe.yaml"):
            (root / name).write_text((repository / name).read_text())
        connect(root, run_environment(root))
        assert tracking.store().database == root / "mlflow.db"
    assert champion() == "1"
