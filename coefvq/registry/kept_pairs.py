"""What the registry said about the pairs to score with, kept beside its database until that changes.

To import MLflow and to open a store takes about 3 s of CPU time, which is more than the scores of a clip. SQLite counts
the transactions of a database in its header, so a process can see that nothing was written since. Models are checked
against their hashes all the same. A tracking server, and a database in WAL mode (whose header does not count), are
asked each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from coefvq.errors import CoefVQError
from coefvq.files import atomic_path, canonical_json, read_json, sha256_json
from coefvq.registry import pairs, tracking
from coefvq.registry.bundle import bundle_version, parse_candidate
from coefvq.registry.pair_files import LoadedBundle, unchecked, verify
from coefvq.registry.pairs import CHAMPION
from coefvq.registry.store import Store
from coefvq.version import __version__

#: bytes 18 and 19 of the header: written and read with a rollback journal; 24 to 27 count the transactions
_ROLLBACK, _COUNTER = b"\x01\x01", slice(24, 28)


def database_state(store: Store) -> str | None:
    """What every transaction on a store's database changes; None where a look at the file cannot tell.

    The place belongs to it, since a database that was moved names the former folders of its artifacts.
    """
    if store.database is None:
        return None
    journal = store.database.with_name(f"{store.database.name}-journal")
    try:
        with store.database.open("rb") as stream:
            header, facts = stream.read(100), os.fstat(stream.fileno())
        # a journal that is not empty: somebody writes, or was killed while writing
        if header[18:20] != _ROLLBACK or (journal.exists() and journal.stat().st_size):
            return None
    except OSError:
        return None
    described = [str(store.database), facts.st_ino, facts.st_size, facts.st_mtime_ns, header[_COUNTER].hex()]
    return sha256_json([*described, __version__, installed("mlflow")])


def find(store: Store, state: str | None, asked: str) -> list[LoadedBundle] | None:
    """The pairs that were kept for what is ``asked``, their files checked; None: ask the registry.

    Also where the files are not those that were registered: the registry then says what is wrong.
    """
    if state is None or not _place(store).is_file():
        return None
    with suppress(CoefVQError, KeyError, TypeError, AttributeError):
        kept = read_json(_place(store))
        if kept["state"] == state:
            return [_bundle(row) for row in kept["pairs"][asked]]
    return None


def _bundle(row: dict[str, Any]) -> LoadedBundle:
    candidate = parse_candidate(row["candidate"], "kept pair")
    base, mllm = Path(row["base"]), Path(row["mllm"])
    verify(candidate, {"base": base, "mllm": mllm})
    stamp = bundle_version(row["version"], candidate.content_hash)
    return LoadedBundle(candidate.issue, row["version"], stamp, base, mllm, candidate)


def keep(store: Store, state: str | None, asked: str, bundles: Sequence[LoadedBundle]) -> None:
    """Keep what the registry said, in place of what was kept before; ``state`` is that before it was asked.

    Where the database has changed meanwhile, or the disk does not take the file, nothing is kept.
    """
    if state is None or database_state(store) != state:
        return
    rows = [
        {"version": bundle.version, "base": str(bundle.base_dir), "mllm": str(bundle.mllm_dir),
         "candidate": bundle.candidate.to_json()}
        for bundle in bundles
    ]  # fmt: skip
    with suppress(OSError, CoefVQError), atomic_path(_place(store), private=True) as temporary:
        temporary.write_text(canonical_json({"state": state, "pairs": {asked: rows}}), encoding="ascii")


def question(issues: Sequence[str] | None, version: str) -> str:
    """What ``asked`` is for the pairs of these issues (None: all that have one)."""
    return f"{version} of {' '.join(issues or ()) or 'all'}"


def keep_champions() -> None:
    """Keep what all champions are, from a process that has MLflow anyway; the next one then needs none.

    What cannot be found is left to whoever asks. Files are checked when they are read.
    """
    store = tracking.store()
    state = database_state(store)
    if state is None:
        return
    with suppress(CoefVQError):
        champions = [issue for issue in pairs.issues() if CHAMPION in pairs.aliases(issue)]
        keep(store, state, question(None, CHAMPION), [unchecked(issue) for issue in champions])


def _place(store: Store) -> Path:
    database = store.database or store.lock
    return database.with_name(f"{database.name}.pairs")
