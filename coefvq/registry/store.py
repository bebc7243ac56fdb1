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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from coefvq.errors import RegistryError
from coefvq.redaction import redact

DEFAULT_URI = "sqlite:///mlflow.db"
LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Store:
    """A tracking store.

    ``artifact_root`` is the folder beside a local database; None where a server keeps the artifacts.
    """

    uri: str
    artifact_root: Path | None
    lock: Path

    @property
    def shown(self) -> str:
        """The URI without credentials, for messages."""
        return redact(self.uri)


def locate(uri: str | None, environment: str | None, cwd: Path) -> Store:
    """Resolve the configured URI, else ``environment`` (MLFLOW_TRACKING_URI), else the default.

    A relative database path is taken from ``cwd``.

    Raises:
        RegistryError: neither ``sqlite:///FILE`` nor ``http(s)://HOST``, or the database's folder is missing.
    """
    chosen = uri or environment or DEFAULT_URI
    if chosen.startswith("sqlite:///"):
        return _local(chosen, cwd)
    if urlsplit(chosen).scheme in ("http", "https"):
        name = hashlib.sha256(chosen.encode()).hexdigest()[:16]
        return Store(chosen, None, user_cache() / "locks" / f"{name}.lock")
    raise RegistryError(
        f"tracking.uri = {redact(chosen)}: expected sqlite:///FILE or http(s)://HOST; "
        "put other databases behind `mlflow server`"
    )


def _local(uri: str, cwd: Path) -> Store:
    name, _, options = uri.removeprefix("sqlite:///").partition("?")
    if name in ("", ":memory:"):
        raise RegistryError(f"tracking.uri = {uri}: expected a file, such as {DEFAULT_URI}")
    database = (cwd / name).resolve()
    if not database.parent.is_dir():
        raise RegistryError(f"tracking.uri = {uri}: folder {database.parent} does not exist; create it first")
    absolute = f"sqlite:///{database}" + (f"?{options}" if options else "")
    return Store(absolute, database.parent / "mlartifacts", database.with_name(f"{database.name}.lock"))


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

    store.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.lock)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise RegistryError(
            f"{store.lock}: another release action has held the lock for {LOCK_TIMEOUT_S:g} s; try again when it ends"
        ) from error
    try:
        yield
    finally:
        lock.release()
