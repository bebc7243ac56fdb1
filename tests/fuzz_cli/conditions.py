"""What surrounds a command: environment, disks that are full or read-only, databases that somebody holds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz_cli.damage import Verdict

SECRET = "hunter2secret"  # noqa: S105 - it is there to be looked for
_NEWNS, _BIND, _REMOUNT, _READ_ONLY, _REC, _PRIVATE = 0x20000, 0x1000, 0x20, 0x1, 0x4000, 0x40000


def _nothing(root: Path) -> None:
    pass


@dataclass(frozen=True)
class Condition:
    """``inside`` runs in the command's own process before it starts, ``held`` is open around it."""

    name: str
    verdict: Verdict
    commands: tuple[str, ...]
    env: Mapping[str, str | None] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    prepare: Callable[[Random, Path], None] = lambda rng, root: None
    inside: Callable[[Path], None] = _nothing
    held: str | None = None
    needs_mount: bool = False
    spawned: bool = False


def can_mount() -> bool:
    """Whether this user may make mounts of its own; tried in a child."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(OSError):
            _own_mounts()
            code = 0
        os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def read_only(root: Path) -> None:
    """The workspace on a file system that takes no writes; rights alone do not stop root."""
    _own_mounts()
    _mount(str(root), str(root), None, _BIND | _REC)
    _mount(str(root), str(root), None, _BIND | _REMOUNT | _READ_ONLY)
    os.chdir(root)


def full_disk(root: Path) -> None:
    """The workspace on a file system of its own with 16 KiB left."""
    _own_mounts()
    place = root.parent / "tmpfs"
    place.mkdir()
    _mount("tmpfs", str(place), "tmpfs", 0, "size=256m")
    shutil.copytree(root, place / "w", symlinks=True)
    free = os.statvfs(place)
    with (place / "ballast").open("wb") as ballast:
        left = free.f_bavail * free.f_frsize - 16 * 1024
        with contextlib.suppress(OSError):
            os.posix_fallocate(ballast.fileno(), 0, left)
    _mount(str(place / "w"), str(root), None, _BIND)
    os.chdir(root)


def small_files(root: Path) -> None:
    """No file may grow beyond 16 KiB: what a quota or a full disk looks like where mounts are not allowed."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def no_output(root: Path) -> None:
    """Standard output that takes nothing."""
    target = os.open("/dev/full", os.O_WRONLY)
    os.dup2(target, 1)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process that writes to the database and does not end."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("begin exclusive")
            os.write(told, b"x")
            signal.pause()
        os._exit(0)
    os.close(told)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _own_mounts() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", None, _REC | _PRIVATE)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if library.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _cache_is_file(rng: Random, root: Path) -> None:
    (root / "afile").write_text("no folder")


CLIP = "data/raw/videos/s7-000001.mp4"
_STORE = (f"score {CLIP} --json", "status --json", "register --issue icd --json")
_WRITERS = (
    "ingest",
    "validate",
    "split",
    "teach --issue icd",
    "train-base --issue icd",
    "predict --issue icd",
    "evaluate --issue icd",
    "thresholds --issue icd",
    "candidate --issue icd",
    "register --issue icd",
    "approve --issue icd --by ana --reason x",
    "report --issue icd",
    "vmp publish near.csv",
    "vmp publish near.csv --state fresh",
    "vmp run --once --consumer again",
    "cascade fit scores.csv --precision 0.3 --out policy.json",
    "data synth --out made --videos 2 --workers 1",
    "data reference",
    "features build --issue icd --kind base",
)
CONDITIONS = (
    Condition(
        "cache_is_file",
        "any",
        (f"score {CLIP} --json", "predict --issue icd", "ingest", "features stats"),
        {"COEFVQ_CACHE": "afile"},
        prepare=_cache_is_file,
    ),
    Condition("cache_is_device", "any", (f"score {CLIP} --json", "ingest"), {"COEFVQ_CACHE": "/dev/null"}),
    Condition("cache_has_nul_length", "any", (f"score {CLIP} --json",), {"COEFVQ_CACHE": "x" * 5000}),
    Condition("store_unknown_scheme", "refuse", _STORE, {"MLFLOW_TRACKING_URI": "nonsense://somewhere"}),
    Condition("store_no_folder", "any", _STORE, {"MLFLOW_TRACKING_URI": "sqlite:///no/such/folder/x.db"}),
    Condition("store_is_folder", "refuse", _STORE, {"MLFLOW_TRACKING_URI": "sqlite:///data"}),
    Condition("store_empty_name", "any", _STORE, {"MLFLOW_TRACKING_URI": "sqlite:///"}),
    Condition(
        "store_secret",
        "refuse",
        _STORE,
        {"MLFLOW_TRACKING_URI": f"postgresql://user:{SECRET}@127.0.0.1:9/x?token={SECRET}"},
    ),
    Condition("store_escape", "refuse", _STORE, {"MLFLOW_TRACKING_URI": "sqlite\x1b[2J:///x"}),
    Condition("no_home", "accept", (f"score {CLIP} --json", "status --json"), {"HOME": None, "XDG_CACHE_HOME": None}),
    Condition("home_nowhere", "accept", ("status --json",), {"HOME": "/nonexistent", "XDG_CACHE_HOME": None}),
    Condition(
        "home_nowhere_fetch",
        "any",
        ("models fetch tiny", "models fetch starter"),
        {"HOME": "/dev/null", "XDG_CACHE_HOME": None},
    ),
    Condition(
        "weights_is_file",
        "refuse",
        ("models fetch starter", "models align --data data/raw --out aligned.safetensors"),
        {"COEFVQ_WEIGHTS": "small.csv"},
    ),
    Condition("no_temporary_folder", "any", (f"score {CLIP} --json", "validate"), {"TMPDIR": "/nonexistent"}),
    Condition("one_column", "accept", ("status", "vmp status", "history", f"score {CLIP}"), {"COLUMNS": "1"}),
    Condition(
        "ascii_output",
        "any",
        (f"score {CLIP}", "vmp get clip0", "status"),
        {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
        spawned=True,
    ),
    Condition("read_only", "refuse", _WRITERS, inside=read_only, needs_mount=True),
    Condition(
        "read_only_reader",
        "any",
        (f"score {CLIP} --json", "status", "vmp status", "vmp get clip0", "history"),
        inside=read_only,
        needs_mount=True,
    ),
    Condition("full_disk", "any", _WRITERS, inside=full_disk, needs_mount=True),
    Condition("small_files", "any", _WRITERS, inside=small_files),
    Condition(
        "no_output",
        "any",
        ("status --json", "models list", "vmp status --json", f"score {CLIP} --json"),
        inside=no_output,
    ),
    Condition("locked_store", "any", ("status --json", "approve --issue icd --by ana --reason x"), held="mlflow.db"),
    Condition("locked_log", "any", ("vmp publish near.csv --json", "vmp status --json"), held="vmp/log.sqlite"),
    Condition("locked_index", "any", ("vmp run --once --consumer again", "vmp status --json"), held="vmp/index.sqlite"),
    Condition("locked_probes", "any", ("ingest",), held=".coefvq/cache/probes.sqlite"),
)
