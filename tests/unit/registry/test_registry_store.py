"""Where the store lies, and its lock."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import sqlalchemy

from coefvq.errors import RegistryError
from coefvq.registry import store
from coefvq.registry.store import exclusive, locate, sqlite_uri


def test_the_setting_wins_over_the_environment_and_that_over_the_default(tmp_path: Path) -> None:
    assert locate("http://a", "http://b", tmp_path).uri == "http://a"
    assert locate(None, "http://b", tmp_path).uri == "http://b"
    assert locate(None, None, tmp_path).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert locate(None, "", tmp_path).uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_artifacts_and_lock_lie_beside_a_local_database(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    elsewhere = Path("/")
    for uri, cwd in (
        (f"sqlite:///{tmp_path}/deep/x.db?timeout=9", elsewhere),
        ("sqlite:///deep/x.db?timeout=9", tmp_path),
    ):
        found = locate(uri, None, cwd)
        assert found.uri == f"sqlite:///{tmp_path}/deep/x.db?timeout=9"
        assert found.artifact_root == tmp_path / "deep" / "mlartifacts"
        assert found.lock == tmp_path / "deep" / "x.db.lock"


@pytest.mark.parametrize("folder", ["q?x", "q?a=1", "a%b", "50%25", "a#b", "a b", "ü", "a&b"])
def test_a_folder_of_any_name_is_itself(folder: str, tmp_path: Path) -> None:
    root = tmp_path / folder
    root.mkdir()
    found = locate(None, None, root)
    assert found.database == root / "mlflow.db"
    assert found.artifact_root == root / "mlartifacts"
    # what a run hands on to its stages is understood there, and by SQLite
    assert locate(None, found.uri, Path("/")) == found
    made = sqlalchemy.create_engine(found.uri)
    with made.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (n)"))
    made.dispose()
    assert [path.name for path in root.iterdir()] == ["mlflow.db"]
    assert locate(f"{sqlite_uri(root / 'x.db', 'timeout=9')}", None, tmp_path).uri.endswith("timeout=9")


def test_a_question_mark_begins_options_only_where_options_follow(tmp_path: Path) -> None:
    (tmp_path / "q?x").mkdir()
    assert locate(f"sqlite:///{tmp_path}/q?x/mlflow.db", None, tmp_path).database == tmp_path / "q?x" / "mlflow.db"
    assert locate("sqlite:///q?x/mlflow.db?timeout=9", None, tmp_path).database == tmp_path / "q?x" / "mlflow.db"


def test_a_server_keeps_its_own_artifacts_and_has_its_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = (locate(uri, None, tmp_path) for uri in ("https://a", "https://b"))
    assert one.artifact_root is None
    assert one.lock.parent == tmp_path / "coefvq" / "locks"
    assert one.lock != other.lock


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://me:secret@host/db", r"tracking\.uri = postgresql://\*\*\*@host/db: expected sqlite"),
        ("mlruns", "tracking.uri = mlruns: expected sqlite"),
        ("sqlite://", "tracking.uri = sqlite://: expected sqlite"),
        ("sqlite:///:memory:", "expected a file"),
        ("sqlite:///", "expected a file"),
        ("sqlite:///nowhere/x.db", "folder .*nowhere does not exist"),
    ],
)
def test_other_stores_are_refused_with_a_remedy(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        locate(uri, None, tmp_path)
    assert "secret" not in str(caught.value)


def test_credentials_are_not_shown() -> None:
    assert locate("https://me:secret@host", None, Path()).shown == "https://***@host"


def test_the_lock_is_held_by_one_and_freed_by_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.01)
    found = locate(None, None, tmp_path)
    with exclusive(found):
        second = exclusive(found)
        with pytest.raises(RegistryError, match=r"mlflow\.db\.lock: another release action"):
            second.__enter__()
    with contextlib.suppress(ZeroDivisionError), exclusive(found):
        raise ZeroDivisionError
    with exclusive(found):
        pass
