"""A local database before MLflow opens it: made whole or not at all, checked, and moved with its folder.

MLflow makes its tables in whatever file it is given, and it records the absolute folder of every artifact.
So a file that is no database of MLflow is refused here, and the recorded folders follow the database.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from coefvq.errors import RegistryError
from coefvq.registry.store import Store, exclusive, sqlite_uri

_log = logging.getLogger(__name__)
_HEADER = b"SQLite format 3\0"
_TABLES = {"alembic_version", "experiments", "runs"}
_BUSY_SECONDS = 10.0
#: columns in which MLflow keeps absolute places of artifacts
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def prepare(store: Store) -> None:
    """Make the database of a local store if it is missing, check it, and let its artifacts lie beside it.

    Raises:
        RegistryError: the file is no MLflow database that this MLflow knows, or it was moved without its artifacts.
    """
    database, artifacts = store.database, store.artifact_root
    if database is None or artifacts is None:
        return
    if not database.exists():
        with exclusive(store):
            # another process may have made it while this one waited for the lock
            if not database.exists():
                _make(database, artifacts)
    _check(database)
    if _former_roots(database, artifacts):
        with exclusive(store):
            _relocate(database, artifacts)


def _make(database: Path, artifacts: Path) -> None:
    """Make the tables under another name first: a process that is killed leaves no half database."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    # decisions, parameters and paths are for the owner; give others rights where a store is shared
    artifacts.mkdir(mode=0o700, exist_ok=True)
    temporary = database.with_name(f".{database.name}.new")
    for left in (temporary, temporary.with_name(f"{temporary.name}-journal")):
        left.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    try:
        SqlAlchemyStore(sqlite_uri(temporary), artifacts.as_uri()).engine.dispose()
        temporary.replace(database)
    except (MlflowException, SQLAlchemyError) as error:
        why = (str(error).splitlines() or ["no message"])[0][:300]
        raise RegistryError(f"{database}: cannot be made ({why}); free some disk space, then try again") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check(database: Path) -> None:
    """Refuse a file that MLflow would fill with its tables or cannot read, without changing it."""
    if not database.is_file():
        raise _refused(database, "not a file")
    with database.open("rb") as stream:
        header = stream.read(len(_HEADER))
    if not header:
        raise _refused(database, "empty")
    if header != _HEADER:
        raise _refused(database, "not an SQLite file")
    with _opened(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= _TABLES:
            raise _refused(database, "a database of another application" if tables else "a database without tables")
        revision = str(next(connection.execute("SELECT version_num FROM alembic_version"), ("none",))[0])
    if not _known(revision):
        raise _refused(database, f"written by another version of MLflow (schema {revision[:40]!r})")


def _known(revision: str) -> bool:
    """Whether the installed MLflow has the migration that led to this schema."""
    import mlflow

    versions = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    return re.fullmatch(r"[0-9a-f]+", revision) is not None and any(versions.glob(f"{revision}_*.py"))


def _refused(database: Path, what: str) -> RegistryError:
    return RegistryError(
        f"{database}: {what}, expected an MLflow database; restore it from a backup, set tracking.uri to another "
        "file, or move it away to begin an empty registry"
    )


def _former_roots(database: Path, artifacts: Path) -> list[Path]:
    """Artifact folders that our experiments record although they do not lie beside the database."""
    with _opened(database) as connection:
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    roots = {_root(str(name), str(location)) for name, location in rows} - {None, artifacts}
    return sorted(root for root in roots if root is not None)


def _root(experiment: str, location: str) -> Path | None:
    """``/w/mlartifacts`` of ``file:///w/mlartifacts/<experiment>``; None for a place that we did not choose."""
    if not location.startswith("file:///"):
        return None
    folder = Path(unquote(urlsplit(location).path))
    depth = len(Path(experiment).parts)
    if folder.parts[-depth:] != Path(experiment).parts or folder.parts[-depth - 1 : -depth] != ("mlartifacts",):
        return None
    return folder.parents[depth - 1]


def _relocate(database: Path, artifacts: Path) -> None:
    """Let every recorded place below a former root point to the folder beside the database: all or nothing."""
    moved: list[Path] = []
    with _opened(database, write=True) as connection:
        # IMMEDIATE: another process may have done it already, or may be writing
        connection.execute("BEGIN IMMEDIATE")
        for root in _former_roots(database, artifacts):
            old, new = f"{root.as_uri()}/", f"{artifacts.as_uri()}/"
            models = "SELECT count(*) FROM logged_models WHERE substr(artifact_location, 1, ?) = ?"
            if not artifacts.is_dir() and connection.execute(models, (len(old), old)).fetchone()[0]:
                raise RegistryError(
                    f"{database}: came here without its artifacts; copy {root} to {artifacts}, then try again"
                )
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                    (new, len(old) + 1, len(old), old),
                )
            moved.append(root)
        connection.execute("COMMIT")
    for root in moved:
        _log.warning("%s was moved or copied: its artifacts are those in %s now, not in %s", database, artifacts, root)


@contextmanager
def _opened(database: Path, write: bool = False) -> Iterator[sqlite3.Connection]:
    # read-only where possible; what a killed writer left in a journal can only be undone by a writer
    write = write or database.with_name(f"{database.name}-journal").exists()
    uri = f"{database.as_uri()}?mode={'rw' if write else 'ro'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        need = "; it was moved, and its first use after that needs the right to write" if write else ""
        raise RegistryError(f"{database}: {error}{need}; free the lock, or restore the file from a backup") from error
