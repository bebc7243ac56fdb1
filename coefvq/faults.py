"""Foreign exceptions -> one error of ours: the last net under every command.

Readers name file, row and key where they know them; what slips through to the top is explained here, in one line and
with a documented exit code. What is left is a mistake of ours, and says so.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import sys
import traceback

from coefvq.errors import CoefVQError, DataError, ModelError, RegistryError, StorageError
from coefvq.terminal import DEBUG, clean, say

#: of one printed error line; a name or value may be as long as the file it stands in
_LONGEST = 4000

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NO_RIGHT = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "give a folder",
    errno.EEXIST: "remove it or give another path",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "remove the link that leads to itself",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
# by the package that raised: none of them is imported to ask
_PACKAGES: dict[str, tuple[type[CoefVQError], str]] = {
    "pyarrow": (DataError, "a table is damaged or not what its suffix says; make it again"),
    "pydantic_core": (DataError, "a file of ours has another shape; make it again"),
    "pandas": (DataError, "a table is not what was expected; make it again"),
    "yaml": (DataError, "a YAML file is damaged; correct it or make it again"),
    "ruamel": (DataError, "a YAML file is damaged; correct it or make it again"),
    "safetensors_rust": (ModelError, "a safetensors file is damaged; fetch or train it again"),
    "safetensors": (ModelError, "a safetensors file is damaged; fetch or train it again"),
    "dvc": (CoefVQError, "correct what it names; `dvc status` says the same"),
    "mlflow": (RegistryError, "check that the tracking store is reachable and not damaged"),
    "sqlalchemy": (RegistryError, "check that the tracking store is reachable and not damaged"),
    "alembic": (RegistryError, "check that the tracking store is reachable and not damaged"),
}


def explained(error: BaseException) -> CoefVQError:
    """An error of ours that says in one line what a foreign exception means, and what to do."""
    if isinstance(error, CoefVQError):
        return error
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error)
    if isinstance(error, UnicodeError):
        return DataError(f"a file or name is not UTF-8 text ({error}); save it as UTF-8")
    if isinstance(error, RecursionError):
        return DataError("a value is nested too deeply; flatten the file it comes from")
    if isinstance(error, MemoryError):
        return StorageError(f"not enough memory ({error or 'no more is given'}); use smaller batches or files")
    if isinstance(error, json.JSONDecodeError):
        return DataError(f"a JSON file is damaged ({error}); make it again")
    if (known := _PACKAGES.get(type(error).__module__.partition(".")[0])) is not None:
        kind, remedy = known
        return kind(f"{_first_line(error)}; {remedy}")
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    what = f"{type(error).__name__}: {_first_line(error)}"
    return CoefVQError(f"internal error: {what}; this is a bug: set {DEBUG}=1 for the traceback and report it")


def report(error: BaseException) -> int:
    """Print an error as one line on stderr, with its traceback if COEFVQ_DEBUG=1; returns the exit code."""
    if os.environ.get(DEBUG) == "1":
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line)
    ours = explained(error)
    line = clean(f"error: {ours}")
    print(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …", file=sys.stderr)
    return ours.exit_code


def _of_system(error: OSError) -> CoefVQError:
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    place = " -> ".join(map(os.fsdecode, names)) or "a file"
    what = error.strerror or type(error).__name__
    if error.errno in _NO_ROOM:
        return StorageError(f"{place}: {what}; make room there and run it again")
    if error.errno in _NO_RIGHT:
        return StorageError(f"{place}: {what}; give this user the right, or use another folder")
    return DataError(f"{place}: {what}; {_REMEDIES.get(error.errno or 0, 'check it and run this again')}")


def _of_sqlite(error: sqlite3.Error) -> CoefVQError:
    text = str(error)
    if "full" in text or "readonly" in text or "disk I/O" in text:
        return StorageError(f"an SQLite file cannot be written ({text}); make room or give this user the right")
    return DataError(f"an SQLite file is locked or damaged ({text}); close what uses it, or delete it if it is a cache")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")[:500]
