"""What a mirror reads of the index: rows of all tenants with the number of their change, and where the feed stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coefvq.vmp import feed
from coefvq.vmp.database import Database
from coefvq.vmp.inserts import chosen
from coefvq.vmp.records import Override
from coefvq.vmp.served import COLUMNS

_SELECT = f"SELECT s.change, {COLUMNS} FROM served s"  # noqa: S608


@dataclass(frozen=True)
class Row:
    """A video as readers see it; ``key`` is that of the index, ``fields`` are texts, without those that are null."""

    number: int
    key: str
    deleted: bool
    fields: dict[str, str]


@dataclass(frozen=True)
class Head:
    """Which index it is and how far its feed goes.

    ``identity`` is another for each index that was built, also from the same log: it has the time of its first
    deployment. ``newest`` is the number of the newest change, 0 before the first verdict, ``key`` its video.
    ``purged``: as in ``feed``.
    """

    identity: str
    newest: int
    key: str
    purged: int


def head(database: Database) -> Head:
    """Where the feed stands now."""
    with database.reading() as connection:
        made = connection.execute("SELECT issued_at FROM deployments ORDER BY epoch LIMIT 1").fetchone()
        log = connection.execute("SELECT id FROM state").fetchone()
        newest = "SELECT change, video_id FROM entries WHERE change = (SELECT max(change) FROM entries)"
        last = connection.execute(newest).fetchone()
        gone = feed.purged(connection)
    number, key = (0, "") if last is None else last
    identity = " ".join(str(row[0]) for row in (log, made) if row is not None)
    return Head(identity, max(number, gone), key, gone)


def since(database: Database, number: int, limit: int) -> list[Row]:
    """Up to ``limit`` rows that changed above a number, in the order of their changes."""
    return [_row(cells) for cells in database.query(f"{_SELECT} WHERE s.change > ? ORDER BY s.change LIMIT ?",
                                                    (number, limit))]  # fmt: skip


def after(database: Database, key: str, limit: int) -> list[Row]:
    """Up to ``limit`` rows above a key, in the order of their keys."""
    return [_row(cells) for cells in database.query(f"{_SELECT} WHERE s.video_id > ? ORDER BY s.video_id LIMIT ?",
                                                    (key, limit))]  # fmt: skip


def held(database: Database, keys: Iterable[str]) -> set[str]:
    """Those of the keys that the index has a row of."""
    found: set[str] = set()
    for condition, values in chosen("video_id", list(keys)):
        sql = f"SELECT video_id FROM videos WHERE change IS NOT NULL AND {condition}"  # noqa: S608
        found |= {name for (name,) in database.query(sql, values)}
    return found


def knows(database: Database, number: int, key: str) -> bool:
    """Whether this feed can have given that number to that video: no, where the index is an older copy."""
    with database.reading() as connection:
        mine = connection.execute("SELECT change FROM videos WHERE video_id = ?", (key,)).fetchone()
        other = connection.execute("SELECT video_id FROM entries WHERE change = ?", (number,)).fetchone()
        gone = feed.purged(connection)
    reached = gone if mine is None or mine[0] is None else mine[0]
    return bool(reached >= number) and (other is None or other[0] == key)


def _row(cells: Sequence[Any]) -> Row:
    """The stored texts as they are: the value keeps the views of its verdict, for more views alone are no change."""
    number, key, state, verdict, rule, version, epoch, rank, bundle, decided, pinned, by, reason, at, value, _ = cells
    word = None if pinned is None else json.dumps(asdict(Override(pinned, by, reason, at)), ensure_ascii=False)
    fields = {
        "state": state, "verdict": verdict, "rule": rule, "source_version": version, "epoch": epoch, "rank": rank,
        "bundle_version": bundle, "decided_at": decided, "override": word, "value": value,
    }  # fmt: skip
    texts = {name: str(found) for name, found in fields.items() if found is not None}
    return Row(number, key, state == "deleted", texts)
