"""Small file habits shared by every layer: atomic writes, hashes, paths that stay inside a root."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.documents import parse_json, parse_yaml
from coefvq.errors import CoefVQError, ConfigError, DataError, StorageError

if TYPE_CHECKING:
    from filelock import FileLock

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_MISPLACED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)  # e.g. a file for a folder
_STORAGE_ERRNOS = frozenset((*_FULL, *_MISPLACED))


#: the largest JSON of ours is a list of a data set's clips, some hundred bytes each
_TEXT_LIMIT = 2**28
#: remedy of a write that failed
ROOM = "make room there, give this user the right to write, or use another folder"
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_JSON_WORDS = {
    dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip


@contextmanager
def atomic_path(target: Path, *, durable: bool = False, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it replaces ``target`` in one step.

    A reader sees the old file or the new one, never half of either; a crash leaves the old one. ``durable``
    also holds when the machine loses power: the bytes reach the disk before the name, and the name before this
    returns. A ``private`` file is 0600, and folders made for it 0700; any other gets what the umask leaves.

    Raises:
        DataError: ``target`` is a folder, pipe, socket or device; root could replace /dev/null.
    """
    with suppress(OSError):
        kind = target.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise DataError(f"{target}: a folder, pipe or device, not a file; give another path")
    if private:
        private_folder(target.parent, tighten=False)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    # the kernel applies the umask: reading it means setting it, for all threads
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600 if private else 0o666)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.close(handle)
        yield temporary
        # after the writer, which may have put a file of its own (with rights of its own) in this place
        temporary.chmod(mode)
        if durable:
            _sync(temporary)
        temporary.replace(target)
        if durable:
            _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def private_folder(folder: Path, *, tighten: bool = True) -> None:
    """Make a folder that only its owner may enter, parents included; ``tighten`` closes one that is there already."""
    if not folder.is_dir():
        if folder.parent != folder:
            private_folder(folder.parent, tighten=False)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
    elif tighten and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        with suppress(PermissionError):  # another user's: theirs to close
            folder.chmod(0o700)


def private_file(path: Path) -> None:
    """Make an empty file for its owner only (0600), and its folder (0700), where they are missing.

    What exists keeps its rights. SQLite gives its -wal and -shm files those of the database.
    """
    private_folder(path.parent, tighten=False)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def claim(path: Path, *, wait: bool) -> FileLock | None:
    """Take a piece of work that ``path`` names, until the lock is released or this process ends.

    None if another process has it and nobody is to ``wait``. Any thread may release it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        return None
    return lock


@contextmanager
def storage_errors(place: Path, remedy: str) -> Iterator[None]:
    """Turn what a full, read-only or forbidden disk raises into one line that names ``place`` and ``remedy``.

    Raises:
        StorageError: in the place of such an ``OSError``; every other error passes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_ERRNOS:
            raise
        raise StorageError(f"{place}: {os.strerror(error.errno)}; {remedy}") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    with storage_errors(path, ROOM), atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a CSV table atomically, for its owner only; return the number of rows.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    with (
        storage_errors(path, ROOM),
        atomic_path(path, private=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(header)
        return sum(writer.writerow(row) > 0 for row in rows)


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON atomically; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_text(
    path: Path, *, missing: str, remedy: str, error: type[CoefVQError] = DataError, limit: int = _TEXT_LIMIT
) -> str:
    """UTF-8 text of a regular file of at most ``limit`` bytes; ``missing`` and ``remedy`` say what to do.

    Raises:
        error: no such file, no right to read it, a folder, pipe or device, too large, or not UTF-8.
    """
    try:
        # a pipe that nobody writes to must not stop us here
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise error(f"{path}: is no regular file; {remedy}")
            content = stream.read(limit + 1)
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file; {missing}") from problem
    except (OSError, ValueError) as problem:
        # ValueError: a zero byte in the name
        raise error(f"{path}: not readable ({getattr(problem, 'strerror', None) or problem}); {remedy}") from problem
    if len(content) > limit:
        raise error(f"{path}: larger than {limit:,} bytes; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 text (byte {problem.start}); {remedy}") from problem


def check_regular(path: Path, *, missing: str, remedy: str, error: type[CoefVQError] = DataError) -> None:
    """Refuse what a library would wait for or misread: nothing there, a folder, a pipe, a device.

    Raises:
        error: the path is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise error(f"{path}: no such file; {missing}") from problem
    except (OSError, ValueError) as problem:
        raise error(f"{path}: not readable ({getattr(problem, 'strerror', None) or problem}); {remedy}") from problem
    if not stat.S_ISREG(mode):
        raise error(f"{path}: is no regular file; {remedy}")


def read_json(
    path: Path,
    shape: type[dict[str, Any]] | type[list[Any]] = dict,
    *,
    missing: str = "run the stage that writes it first",
    remedy: str = "delete it and run its stage again",
    error: type[CoefVQError] = DataError,
) -> Any:
    """Read a JSON file whose top level is ``shape``: an object or a list.

    Raises:
        error: the file is missing, is not JSON (``documents.parse_json``) or has another top level.
    """
    value = parse_json(read_text(path, missing=missing, remedy=remedy, error=error), str(path), remedy, error)
    if not isinstance(value, shape):
        words = {dict: "an object", list: "a list"}
        raise error(f"{path}: expected {words[shape]}, got {_JSON_WORDS[type(value)]}; {remedy}")
    return value


def read_yaml(path: Path, *, missing: str, remedy: str, error: type[CoefVQError] = ConfigError) -> Any:
    """Read a YAML file of at most 1 MiB (PyYAML takes about a second for 100 kB).

    Raises:
        error: the file is missing or is not YAML of plain types (``documents.parse_yaml``).
    """
    text = read_text(path, missing=missing, remedy=remedy, error=error, limit=2**20)
    return parse_yaml(text, str(path), remedy, error)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def canonical_json(value: Any) -> str:
    """A JSON value in canonical form, in ASCII (sorted keys, no spaces)."""
    # what is written without an encoder, whose making takes longer
    if type(value) is str:
        return encode_basestring_ascii(value)
    if value is None or type(value) is int:
        return "null" if value is None else str(value)
    return _CANONICAL.encode(value)


def sha256_tree(root: Path) -> str:
    """Hex SHA-256 over the relative names and contents of all files below ``root``."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(root).as_posix(), sha256_file(path)] for path in files])


def inside(root: Path, relative: str) -> Path:
    """Resolve ``relative`` below ``root``, symlinks included.

    Raises:
        DataError: the path leaves the root.
    """
    base = root.resolve()
    try:
        resolved = (base / relative).resolve()
    except (RuntimeError, ValueError, OSError) as error:  # a link to itself, a NUL byte, a name too long
        raise DataError(f"{relative}: leads nowhere below {root} ({error}); use a path below it") from error
    if not resolved.is_relative_to(base):
        raise DataError(f"{relative}: points outside the data root {root}; use a path below it")
    return resolved
