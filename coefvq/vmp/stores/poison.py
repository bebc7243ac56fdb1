"""Messages that are no events, kept byte for byte beside the index, in the transaction that passes over them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coefvq.documents import parse_json
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.sources.batches import Poison
from coefvq.vmp.stores.tables import have_tables

#: how many messages of one call are read into memory
PAGE = 1000


@dataclass(frozen=True)
class DeadEvent:
    """A message that was passed over, and when."""

    poison: Poison
    failed_at: str

    @property
    def name(self) -> str:
        """How a person names it: topic/partition/offset."""
        return f"{self.poison.topic}/{self.poison.partition}/{self.poison.offset}"


def write(connection: Connection, found: Iterable[Poison], now: datetime) -> None:
    """Keep messages; one that is there stays as it is."""
    connection.executemany(
        "INSERT INTO stream_poison (stream, partition, offset, reason, key, value, headers, produced_at, failed_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream, partition, offset) DO NOTHING",
        [
            (one.topic, one.partition, one.offset, one.reason, one.key, one.value, _headers_text(one.headers),
             one.produced_at, now.astimezone(UTC).isoformat(timespec="seconds"))
            for one in found
        ],
    )  # fmt: skip


def read(database: Database, limit: int = PAGE) -> list[DeadEvent]:
    """The oldest ones of each stream and partition, by place."""
    if not have_tables(database):
        return []
    rows = database.query(
        "SELECT stream, partition, offset, reason, key, value, headers, produced_at, failed_at FROM stream_poison "
        "ORDER BY stream, partition, offset LIMIT ?",
        (limit,),
    )
    return [DeadEvent(_poison(row[:-1]), str(row[-1])) for row in rows]


def count(database: Database) -> int:
    """How many there are."""
    return database.query("SELECT count(*) FROM stream_poison")[0][0] if have_tables(database) else 0


def find(database: Database, name: str) -> DeadEvent | None:
    """The one of that name, None if it is not there."""
    stream, _, rest = name.rpartition("/")
    stream, _, partition = stream.rpartition("/")
    if not (have_tables(database) and partition.isdecimal() and rest.isdecimal() and len(partition + rest) < 30):
        return None
    rows = database.query(
        "SELECT stream, partition, offset, reason, key, value, headers, produced_at, failed_at FROM stream_poison "
        "WHERE stream = ? AND partition = ? AND offset = ?",
        (stream, int(partition), int(rest)),
    )
    return DeadEvent(_poison(rows[0][:-1]), str(rows[0][-1])) if rows else None


def holds(database: Database, stream: str, key: bytes | None, value: bytes | None) -> bool:
    """Whether a message of these bytes is kept, wherever it stood."""
    sql = "SELECT 1 FROM stream_poison WHERE stream = ? AND key = ? AND value = ? LIMIT 1"
    return bool(database.query(sql, (stream, key, value)))


def drop(database: Database, found: Iterable[DeadEvent]) -> int:
    """Remove these; how many were there."""
    with database.transaction() as connection:
        return sum(
            connection.execute(
                "DELETE FROM stream_poison WHERE stream = ? AND partition = ? AND offset = ?",
                (one.poison.topic, one.poison.partition, one.poison.offset),
            ).rowcount
            for one in found
        )


def _headers_text(headers: Iterable[tuple[str, bytes | None]]) -> str:
    pairs = [[name, None if value is None else base64.b64encode(value).decode("ascii")] for name, value in headers]
    return json.dumps(pairs)


def _poison(row: tuple[Any, ...]) -> Poison:
    stream, partition, offset, reason, key, value, headers, produced_at = row
    pairs = parse_json(headers, f"dead event {stream}/{partition}/{offset}", "restore the index from a copy")
    decoded = tuple((name, None if text is None else base64.b64decode(text)) for name, text in pairs)
    return Poison(stream, partition, offset, reason, _bytes(key), _bytes(value), decoded, produced_at)


def _bytes(cell: Any) -> bytes | None:
    return None if cell is None else bytes(cell)
