"""The raw folder of a clone: bring what is needed of it, put new clips and rows in, give it to DVC.

Old clips are never checked out: DVC adds to a tracked folder piece by piece.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path

import pyarrow as pa

from coefvq.data.batches import Batch, Survey, in_threads
from coefvq.data.locations import open_regular
from coefvq.data.raw_table import READABLE, to_chunks, write_table
from coefvq.errors import CoefVQError, DataError
from coefvq.files import sha256_file
from tasks.isolation import RemoteError
from tasks.workspace import dvc

_BUFFER = 2**20


def bring_table(clone: Path, raw: str, remote: str | None) -> frozenset[str]:
    """Check out the table at the top of a raw folder, or the whole folder if it has none; returns names in it.

    Raises:
        RemoteError: neither DVC's cache nor its remote has them.
    """
    shutil.rmtree(clone / raw, ignore_errors=True)  # an earlier attempt's
    if not (clone / f"{raw}.dvc").is_file():
        (clone / raw).mkdir(parents=True)
        return frozenset()
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.index import DataIndexDirError

    try:
        with Repo(str(clone)) as repo:
            tracked = frozenset(Path(name).name for name in repo.dvcfs.ls(raw, detail=False))
        _bring(clone, [f"{raw}/{name}" for name in READABLE if name in tracked] or [raw], remote)
    except (CoefVQError, DvcException, DataIndexDirError, OSError) as error:
        where = f"the DVC remote '{remote}'" if remote else "the DVC cache, and no DVC remote is configured"
        raise RemoteError(f"the table of {raw} is not to be had from {where}: {error.__cause__ or error}") from error
    return tracked


def _bring(clone: Path, targets: list[str], remote: str | None) -> None:
    try:
        dvc(clone, "checkout", *targets)  # as a rule all is in the cache, and the remote need not be asked
    except CoefVQError:
        if remote is None:
            raise
        dvc(clone, "pull", *targets)


def add_batch(
    clone: Path, raw: str, batch: Batch, seen: Survey, tracked: frozenset[str], old: Iterable[pa.Table], workers: int
) -> Path:
    """Place new clips, write the new table (``old`` chunks, then new), `dvc add` both; returns the table's path.

    Raises:
        DataError: a clip is not what it was when it was hashed.
        CoefVQError: DVC failed, for instance because the disk is full.
    """
    folder = _free_name(batch.name, tracked)
    rows = (row for row, _ in batch.new_rows())
    if batch.layout == "files":
        rows = (row | {"uri": f"{folder}/{row['uri']}"} for row in rows)
    # the table first: a folder without one is read as what lies in it, and that must not be the new clips
    chunks = chain(old, to_chunks(rows))
    table = write_table(clone / raw, batch.layout, chunks, seen.columns)
    if batch.layout == "files":
        _place_clips(batch, clone / raw / folder, workers)
    old_tables = [name for name in READABLE if name in tracked]
    if not old_tables:  # whatever there is, is checked out
        dvc(clone, "add", raw)
    else:  # a table that was replaced by one in another format is named too: DVC then drops it
        names = {*old_tables, table.name, *([folder] if batch.layout == "files" else [])}
        dvc(clone, "add", *(f"{raw}/{name}" for name in sorted(names)))
    return table


def _free_name(name: str, tracked: frozenset[str]) -> str:
    # always a folder of its own: `dvc add` of one that is not checked out would drop the clips it holds
    free = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(candidate for candidate in free if candidate not in tracked)


def _place_clips(batch: Batch, folder: Path, workers: int) -> None:
    staged_clips = batch.store.parent / "staged"

    def place(clip: tuple[str, str, str]) -> None:
        uri, source, digest = clip
        staged, target = staged_clips / uri, folder / uri
        for path in (staged, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not staged.exists():  # an earlier attempt has copied and checked it
            _copy(Path(source), staged)
            if sha256_file(staged) != digest:
                raise DataError(f"{source}: changed while it was read; take the snapshot when the batch is complete")
        os.link(staged, target)

    clips = ((row["uri"], source, row["sha256"]) for row, source in batch.new_rows())
    for _ in in_threads(place, clips, workers):
        pass


def _copy(source: Path, target: Path) -> None:
    """Copy-on-write where the file system can. No hard link: DVC's cache would share the inode of the user's file."""
    from dvc_objects.fs.system import reflink

    partial = target.with_name(target.name + ".partial")
    with open_regular(source) as stream:
        try:
            reflink(str(source), str(partial))  # type: ignore[no-untyped-call]
        except OSError:
            with partial.open("wb") as copy:
                shutil.copyfileobj(stream, copy, _BUFFER)
    partial.replace(target)
