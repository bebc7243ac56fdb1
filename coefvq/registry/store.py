"""Where the tracking store lies, and the lock that makes promotions queue.

MLflow moves an alias without compare-and-swap: of two concurrent promotions each could read the old
champion and the later write would win unseen. Every change therefore holds one file lock. Beside a
local database the lock lies next to it, so everyone who shares the file shares the lock. For a
tracking server it lies in the user's cache folder and covers one machine only: with a shared server,
approve and roll back from one place (docs/release.md).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from coefvq.errors import RegistryError
from coefvq.redaction import redact

DATABASE = "mlflow.db"
DEFAULT_URI = f"sqlite:///{DATABASE}"
LOCK_TIMEOUT_S = 60.0

_PLAIN = "sqlite:///"
# an SQLite file URI; with the driver's name, because MLflow makes folders of what follows a plain "sqlite:///"
_QUOTED = "sqlite+pysqlite:///file:"
_OPTIONS = re.compile(r"\w+=[^/&?]*(&\w+=[^/&?]*)*")


@dataclass(frozen=True)
class Store:
    """A tracking store.

    ``artifact_root`` is the folder beside a local ``database``; both are None where a server keeps them.
    """

    uri: str
    artifact_root: Path | None
    lock: Path
    database: Path | None = None

    @property
    def exists(self) -> bool:
        """Whether there is something to read: a server, or a local database."""
        return self.database is None or self.database.exists()

    @property
    def shown(self) -> str:
        """The URI without credentials, for messages."""
        return redact(self.uri)


def locate(uri: str | None, environment: str | None, root: Path) -> Store:
    """Resolve the configured URI, else ``environment`` (MLFLOW_TRACKING_URI), else ``mlflow.db``.

    A relative database path is taken from ``root``, the workspace.

    Raises:
        RegistryError: neither ``sqlite:///FILE`` nor ``http(s)://HOST``, or the database's folder is missing.
    """
    chosen = uri or environment
    if chosen is None or chosen == "":
        return _local(DATABASE, "", root)
    if chosen.startswith((_PLAIN, _QUOTED)):
        return _local(*_file_and_options(chosen), root)
    if urlsplit(chosen).scheme in ("http", "https"):
        name = hashlib.sha256(chosen.encode()).hexdigest()[:16]
        return Store(chosen, None, user_cache() / "locks" / f"{name}.lock")
    raise RegistryError(
        f"tracking.uri = {redact(chosen)}: expected sqlite:///FILE or http(s)://HOST; "
        "put other databases behind `mlflow server`"
    )


def sqlite_uri(database: Path, options: str = "") -> str:
    """URI of a database file for MLflow. A ``?`` in its path would begin the options, so it is quoted."""
    if "?" in str(database):
        options = "&".join(filter(None, ("uri=true", options)))
        return f"{_QUOTED}{quote(str(database))}?{options}"
    return f"{_PLAIN}{database}" + (f"?{options}" if options else "")


def _file_and_options(uri: str) -> tuple[str, str]:
    """Path and options of an SQLite URI; a ``?`` that no options follow belongs to the path."""
    name, _, options = uri.removeprefix(_QUOTED).removeprefix(_PLAIN).rpartition("?")
    if not name or not _OPTIONS.fullmatch(options):
        name, options = f"{name}?{options}" if name else options, ""
    if uri.startswith(_QUOTED):
        rest = [item for item in options.split("&") if item not in ("", "uri=true")]
        return unquote(name), "&".join(rest)
    return name, options


def _local(name: str, options: str, root: Path) -> Store:
    if name in ("", ":memory:"):
        raise RegistryError(f"tracking.uri = {_PLAIN}{name}: expected a file, such as {DEFAULT_URI}")
    database = (root / name).resolve()
    if not database.parent.is_dir():
        raise RegistryError(f"tracking.uri = {_PLAIN}{name}: folder {database.parent} does not exist; create it first")
    return Store(
        sqlite_uri(database, options),
        database.parent / "mlartifacts",
        database.with_name(f"{database.name}.lock"),
        database,
    )


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/coefvq`` or ``~/.cache/coefvq``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coefvq"


@contextmanager
def exclusive(store: Store) -> Iterator[None]:
    """Hold the store's lock; the operating system frees it when a process dies.

    Raises:
        RegistryError: somebody else held it for longer than LOCK_TIMEOUT_S.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(store.lock)
    try:
        store.lock.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise RegistryError(
            f"{store.lock}: another release action has held the lock for {LOCK_TIMEOUT_S:g} s; try again when it ends"
        ) from error
    except OSError as error:
        raise RegistryError(
            f"{store.lock}: {error.strerror}; a change of the store needs this lock: give the folder the right to write"
        ) from error
    try:
        yield
    finally:
        lock.release()
