"""Log and index opened together, after a check that they belong together.

The index holds the offset up to which it has read the log. With another log beside it, such as a new one
after the old was lost or an older backup, events at or below that offset would never be read. So both files
carry one id, and the index keeps the digest of the last event it has read.

An index that is missing or older than its log is right by design: the missing part is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from coefvq.errors import ConfigError, DataError
from coefvq.files import read_yaml
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.stores import contents

LOG, INDEX, CONFIG = "log.sqlite", "index.sqlite", "state.yaml"


@contextmanager
def open_state(folder: Path, create: bool = True) -> Iterator[tuple[EventLog, IndexStore]]:
    """Open the log and the index of a state; a state of schema version 1 gets its id here.

    Raises:
        DataError: there is no state and ``create`` is off, or the log is not the one the index was made from.
    """
    log_path, place = folder / LOG, index_place(folder)
    # in this order: whoever makes a state makes the log first
    if isinstance(place, Path) and place.is_file() and not log_path.is_file():
        raise _refusal(folder, f"{LOG} is missing, but {INDEX} was made from one", f"move {INDEX}* away")
    with open_log(log_path, create) as log, open_index(place) as index:
        _check(folder, log, index)
        yield (
            replace(log, elsewhere=partial(contents.newest, index.database)),
            replace(index, digest_at=lambda offset: _digest(log, offset)),
        )


def index_place(folder: Path) -> Path | str:
    """Where the index of a state is: ``index.sqlite``, or the PostgreSQL URL that ``state.yaml`` names.

    Raises:
        ConfigError: state.yaml is there and says something else.
    """
    path = folder / CONFIG
    if not path.exists():
        return folder / INDEX
    remedy = "write one line, index: postgresql://HOST/DATABASE, or delete the file"
    raw = read_yaml(path, missing=remedy, remedy=remedy)
    url = raw.get("index") if isinstance(raw, dict) and len(raw) == 1 else None
    if not isinstance(url, str) or not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(f"{path}: expected the key index with a postgresql:// URL and no other key; {remedy}")
    return url


def _check(folder: Path, log: EventLog, index: IndexStore) -> None:
    bound = index.state_id()
    if bound is None:
        _bind(folder, log, index)
        bound = index.state_id()
    if bound != log.state_id():
        what = f"{LOG} is not the log that {index.database.name} was made from (another id)"
        raise _refusal(folder, what, index.database.discard)
    _check_positions(folder, log, index)


def _check_positions(folder: Path, log: EventLog, index: IndexStore) -> None:
    name, discard = index.database.name, index.database.discard
    for consumer, offset, digest in index.positions():
        event = log.event_at(offset)
        if event is None and log.was_cut(offset):
            continue
        if event is None:
            raise _refusal(
                folder,
                f"{LOG} ends at offset {log.last_offset()}, but {name} has read up to {offset} ({consumer}): "
                "it is an older copy, or one without its -wal file",
                discard,
            )
        video_id, source_version, found = event
        # schema version 1 kept no digest, but its audit rows name the event
        applied = index.applied_at(consumer, offset) if digest is None else None
        if (digest or found) != found or (applied or (video_id, source_version)) != (video_id, source_version):
            what = f"the event at offset {offset} of {LOG} is not the one that {name} has read"
            raise _refusal(folder, what, discard)


def _bind(folder: Path, log: EventLog, index: IndexStore) -> None:
    """Give an index without an id that of the log, and each offset its digest."""
    _check_positions(folder, log, index)
    with index.database.transaction() as connection:
        # read again: another process may have bound it while this one waited for the lock
        if index.state_id() is None:
            connection.execute("INSERT INTO state VALUES (?)", (log.state_id(),))
            for consumer, offset, _ in index.positions():
                connection.execute("UPDATE offsets SET digest = ? WHERE consumer = ?", (_digest(log, offset), consumer))


def _digest(log: EventLog, offset: int) -> str | None:
    event = log.event_at(offset)
    return None if event is None else event[2]


def _refusal(folder: Path, what: str, discard: str) -> DataError:
    return DataError(
        f"{folder}: {what}; events would be lost. Restore the newest {LOG} (with its -wal file), or {discard}: "
        "the next `coefvq vmp run` builds the index from the log that is there, and what that log lacks has "
        "to be published again"
    )
