"""Checkpoints of one training as folders: written whole or not at all, checked before they are read.

    <root>/step-00000120/   model.safetensors, best.safetensors, optimizer-0.safetensors, …, manifest.json
    <root>/.step-00000121.tmp/   one that is being written, or was when the process died

Every file is flushed to disk, ``manifest.json`` comes last and holds the SHA-256 of the others, and one rename makes
the folder visible. Only safetensors and JSON; nothing is pickled.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coefvq.errors import DataError, StorageError, TrainingError
from coefvq.files import read_json, sha256_file, storage_errors

_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")
_CHUNK = 1 << 20
#: what a run is: names and values that must be the same to go on with a checkpoint
Identity = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint and the step it was written at."""

    path: Path
    step: int


@dataclass(frozen=True)
class CheckpointFolder:
    """Where the checkpoints of one training lie, which run they belong to, and how many are kept.

    ``steps`` is the distance between checkpoints within an epoch, None for none.
    """

    root: Path
    identity: Identity
    steps: int | None = None
    limit: int = 1

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; damaged ones are passed over with a warning.

        Raises:
            TrainingError: it belongs to another run.
        """
        for step, path in sorted(self._all(), reverse=True):
            if (damage := _damage(path)) is not None:
                warnings.warn(f"checkpoint {path}: {damage}; going on from an older one", stacklevel=2)
                continue
            self._check(path)
            return Checkpoint(path, step)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, taken to be complete."""
        return Checkpoint(self.root / f"step-{step:08d}", step)

    def begin(self, step: int) -> Path:
        """An empty folder to write into; whatever a killed process left of it is removed.

        Raises:
            StorageError: the disk is full or may not be written.
        """
        folder = self.draft(step)
        with self._disk_errors(step):
            for old in self.root.glob(".step-*.tmp"):
                shutil.rmtree(old)
            folder.mkdir(parents=True)
        return folder

    def draft(self, step: int) -> Path:
        """Where `begin` makes the folder of a step."""
        return self.root / f".step-{step:08d}.tmp"

    def write(self, step: int, files: Mapping[str, bytes]) -> None:
        """Write files of a checkpoint begun.

        Raises:
            StorageError: the disk is full or may not be written; the unfinished checkpoint is removed.
        """
        with self._disk_errors(step):
            for name, content in files.items():
                _write(self.draft(step) / name, content)

    def commit(self, step: int) -> None:
        """Make a checkpoint visible and delete those above the limit.

        Raises:
            StorageError: as `write`.
        """
        draft, target = self.draft(step), self.at(step).path
        with self._disk_errors(step):
            hashes = {path.name: sha256_file(path) for path in sorted(draft.iterdir())}
            manifest = {"identity": dict(self.identity), "sha256": hashes}
            _write(draft / _MANIFEST, dumps(manifest, indent=2, sort_keys=True).encode())
            _sync_folder(draft)
            if target.exists():  # a damaged one of this step, which was passed over
                shutil.rmtree(target)
            draft.rename(target)
            _sync_folder(self.root)
        for _, old in sorted(self._all())[: -self.limit]:
            shutil.rmtree(old)

    def remove(self) -> None:
        """Delete all checkpoints: the training has ended and its model is saved."""
        for path in [*self.root.glob("step-*"), *self.root.glob(".step-*.tmp")]:
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # a folder with other things in it stays
            self.root.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process away from these checkpoints; a killed one lets go.

        Raises:
            TrainingError: another training holds them.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root.parent / f".{self.root.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise TrainingError(
                f"checkpoints {self.root}: another process trains this very model; wait for it or stop it"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _all(self) -> list[tuple[int, Path]]:
        folders = [(_NAME.fullmatch(path.name), path) for path in self.root.glob("step-*")]
        return [(int(match.group(1)), path) for match, path in folders if match]

    def _check(self, path: Path) -> None:
        saved, wanted = read_json(path / _MANIFEST)["identity"], loads(dumps(dict(self.identity)))
        differing = [name for name in {**saved, **wanted} if saved.get(name) != wanted.get(name)]
        if differing:
            what = ", ".join(f"{name} {saved.get(name)} (this run: {wanted.get(name)})" for name in differing[:3])
            raise TrainingError(
                f"checkpoint {path} belongs to another run: {what}; restore those settings or data, or give another "
                "folder: runtime.resume_from"
            )

    @contextmanager
    def _disk_errors(self, step: int) -> Iterator[None]:
        newest_step = max((number for number, _ in self._all()), default=None)
        last = "no checkpoint is complete" if newest_step is None else f"step {newest_step} is kept to go on from"
        remedy = f"{last}; free space, or set COEFVQ_CACHE to a folder on another disk"
        try:
            with storage_errors(self.draft(step), remedy):
                yield
        except (OSError, StorageError):
            shutil.rmtree(self.draft(step), ignore_errors=True)
            raise


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words."""
    try:
        manifest = read_json(path / _MANIFEST)
        hashes, _ = manifest["sha256"], manifest["identity"].items()
        bad = [name for name, digest in hashes.items() if sha256_file(path / name) != digest]
    except (DataError, OSError, KeyError, TypeError, AttributeError):
        return "incomplete"
    return f"{bad[0]} is not as it was written" if bad else None


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        for start in range(0, len(content), _CHUNK):
            stream.write(content[start : start + _CHUNK])
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
