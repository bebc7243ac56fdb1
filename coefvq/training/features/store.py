"""Feature shards on disk: written atomically, memory-mapped when read, shared by processes, bounded in size.

    <root>/<part digest>/part.json              what the digest stands for
    <root>/<part digest>/<sha256>.safetensors   a shard: entry -> tensor; its name is the hash of its bytes
    <root>/<part digest>/shards.txt             names of shards in the order they came (``index``)
    <root>/leases/<id>.{lock,txt}               shards that a live process uses; the lock dies with the process
    <root>/size                                 bytes of all shards, as the last writer left it
    <root>/lock                                 held while shards are written, leased, evicted or pruned

A shard appears under its name when all its bytes are on disk, so nothing half-written is ever read. The least
recently used shards go first when room is needed; those under a live lease never do.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch

from coefvq.errors import StorageError
from coefvq.files import atomic_path, private_folder, sha256_file, storage_errors, write_json
from coefvq.training.features.index import JOURNAL, SUFFIX, ShardIndex, record
from coefvq.training.features.keys import PartKey
from coefvq.training.features.leases import Lease, remove_unlocked
from coefvq.training.features.shards import entries_of, last_use, oldest, shard_size

# of the limit, freed beyond need: the shards are then listed once for many that are written
_SLACK = 0.02
_REMEDY = "free some space, set runtime.features_gib lower, or runtime.features: off"


@dataclass(frozen=True)
class FeatureStore:
    """Shards below ``root``, together at most ``max_bytes``."""

    root: Path
    max_bytes: int
    _indexes: dict[str, ShardIndex] = field(default_factory=dict, compare=False, repr=False)
    _counted: set[str] = field(default_factory=set, compare=False, repr=False)

    def lookup(self, key: PartKey, wanted: Iterable[str], lease: Lease) -> dict[str, Path]:
        """Shards of the wanted entries that are there; ``lease`` protects them from now on.

        A shard that is no whole safetensors file any more is deleted.
        """
        index = self._indexes.setdefault(key.digest, ShardIndex(self.root / key.digest))
        if damaged := index.refresh(entries_of):
            self._remove_damaged(damaged)
        found = {entry: index.shards[entry] for entry in wanted if entry in index.shards}
        # a shard that is leased already stays; only others need the lock, and may have gone meanwhile
        if new := lease.unknown(found.values()):
            with self._locked():
                gone = lease.protect(new)
            if gone:
                index.forget(gone)
                found = {entry: shard for entry, shard in found.items() if shard not in gone}
        return found

    def write(self, key: PartKey, tensors: Mapping[str, torch.Tensor], lease: Lease) -> Path:
        """Add a shard; the least recently used ones make room.

        Raises:
            StorageError: the disk is full, or the limit would be passed by shards in use.
        """
        from safetensors.torch import save

        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        with self._locked():
            path = self._folder(key) / f"{sha256(content).hexdigest()}{SUFFIX}"
            if not path.is_file():
                size = self._make_room(len(content))
                with atomic_path(path, durable=True, private=True) as temporary:
                    temporary.write_bytes(content)
                record(path)
                self._set_size(size + len(content))
            lease.protect({path})
        return path

    def shards(self, digest: str) -> list[Path]:
        """Shards of a part, oldest use first."""
        return sorted((self.root / digest).glob(f"*{SUFFIX}"), key=last_use)

    def all_shards(self) -> list[Path]:
        """Every shard, oldest use first."""
        return sorted(self.root.glob(f"*/*{SUFFIX}"), key=last_use)

    def size(self) -> int:
        """Bytes of all shards."""
        return sum(map(shard_size, self.all_shards()))

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Protection from eviction, for as long as the block runs and the process lives."""
        lease = self.open_lease()
        try:
            yield lease
        finally:
            lease.close()

    def open_lease(self) -> Lease:
        """As ``lease``, for as long as the caller keeps it open."""
        from filelock import FileLock

        name = self.root / "leases" / uuid.uuid4().hex
        with storage_errors(self.root, _REMEDY):
            private_folder(self.root)
            name.parent.mkdir(exist_ok=True)
            lock = FileLock(name.with_suffix(".lock"), thread_local=False)
            lock.acquire()
        return Lease(name.with_suffix(".txt"), lock)

    def prune(self, max_bytes: int | None = None, before: float | None = None) -> tuple[int, int]:
        """Remove shards above ``max_bytes`` in total or last used ``before`` (seconds since 1970), and left-overs.

        Returns:
            How many shards went, and their bytes. Shards in use stay.
        """
        with self._locked():
            in_use = self._in_use()
            for left_over in self.root.glob("*/.*.tmp"):
                left_over.unlink(missing_ok=True)  # writers hold the lock that we hold: this one's is dead
            remove_unlocked(self.root / "claims")
            shards = self.all_shards()
            chosen = [] if before is None else [path for path in shards if last_use(path) < before]
            gone = self._evict([path for path in chosen if path not in in_use])
            if max_bytes is not None:
                rest = [path for path in shards if path.is_file()]
                excess = sum(map(shard_size, rest)) - max_bytes
                gone += self._evict(oldest([path for path in rest if path not in in_use], excess))
            self._set_size(self.size())
            for journal in self.root.glob(f"*/{JOURNAL}"):
                journal.unlink(missing_ok=True)  # it names shards that are gone; readers list the folder once
        return len(gone), sum(gone)

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[Path]:
        """Shards whose bytes are no longer those they were written with."""
        damaged = []
        for path in self.all_shards():
            with suppress(FileNotFoundError):  # evicted meanwhile
                if sha256_file(path) != path.stem:
                    damaged.append(path)
            progress(1)
        return damaged

    def _folder(self, key: PartKey) -> Path:
        folder = self.root / key.digest
        if not (folder / "part.json").is_file():
            write_json(folder / "part.json", {"name": key.name, **key.facts})
        return folder

    def _remove_damaged(self, shards: Iterable[Path]) -> None:
        with self._locked():
            for shard in shards:
                if entries_of(shard) is None:  # looked at again: somebody may have written it anew
                    shard.unlink(missing_ok=True)

    def _make_room(self, size: int) -> int:
        """Evict until ``size`` more bytes fit; returns the bytes of all shards then."""
        total = self._running_size()
        if total + size <= self.max_bytes:
            return total
        shards = self.all_shards()
        total = sum(map(shard_size, shards))
        excess = total + size - self.max_bytes
        if excess <= 0:
            return total
        in_use = self._in_use()
        free = [path for path in shards if path not in in_use]
        chosen = oldest(free, excess)
        if sum(map(shard_size, chosen)) < excess:
            raise StorageError(
                f"{self.root}: features of this run need more than runtime.features_gib "
                f"({self.max_bytes / 2**30:.2f} GiB); raise it or set runtime.features: off"
            )
        return total - sum(self._evict(oldest(free, max(excess, round(_SLACK * self.max_bytes)))))

    def _running_size(self) -> int:
        """Bytes of all shards: counted once by each process, since a killed writer leaves the file behind."""
        if "size" in self._counted:
            with suppress(OSError, ValueError):
                return int((self.root / "size").read_text(encoding="utf-8"))
        self._counted.add("size")
        return self.size()

    def _set_size(self, size: int) -> None:
        (self.root / "size").write_text(str(size), encoding="utf-8")

    def _evict(self, shards: list[Path]) -> list[int]:
        sizes = [shard_size(path) for path in shards]
        for path in shards:
            path.unlink(missing_ok=True)
        return sizes

    def _in_use(self) -> set[Path]:
        """Shards under live leases; leases of the dead are removed."""
        from filelock import FileLock, Timeout

        used: set[Path] = set()
        for listing in (self.root / "leases").glob("*.lock"):
            lock = FileLock(listing, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                names = listing.with_suffix(".txt")
                lines = names.read_text(encoding="utf-8").splitlines() if names.is_file() else []
                used |= {self.root / line for line in lines}
                continue
            for left_over in (listing.with_suffix(".txt"), listing):
                left_over.unlink(missing_ok=True)
            lock.release()
        return used

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with storage_errors(self.root, _REMEDY):
            private_folder(self.root)
            with FileLock(self.root / "lock"):
                yield
