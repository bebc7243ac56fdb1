"""A table of videos in SQLite, PostgreSQL or MariaDB, written as an application would: for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from coefvq.vmp.configuration import Columns, TableSource
from coefvq.vmp.records import Event
from tests.mariadb import with_driver

#: the settings of a source over it
NAMES = {"version": "revision", "updated_at": "changed_at", "deleted_at": "removed_at"}
COLUMNS = Columns(video_id="id", uri="path", title="title", views="views")


_INSERT = (
    "INSERT INTO videos (id, path, title, views, revision, changed_at, removed_at) "
    "VALUES (:id, :path, :title, :views, :revision, :at, :removed)"
)
_ON_CONFLICT = (
    "ON CONFLICT (id) DO UPDATE SET path = excluded.path, title = excluded.title, views = excluded.views, "
    "revision = excluded.revision, changed_at = excluded.changed_at, removed_at = excluded.removed_at"
)
_UPSERT = {
    "mariadb": "ON DUPLICATE KEY UPDATE path = VALUES(path), title = VALUES(title), views = VALUES(views), "
    "revision = VALUES(revision), changed_at = VALUES(changed_at), removed_at = VALUES(removed_at)"
}


@dataclass(frozen=True)
class ScannedTable:
    """The table ``videos``."""

    url: str
    engine: sa.Engine

    def source(self, root: Path, **changes: object) -> TableSource:
        fields: dict[str, Any] = {"table": "videos", "columns": COLUMNS, **NAMES, **changes}
        return TableSource(kind="table", url=self.url, root=root, **fields)

    def put(self, event: Event, at: datetime | None = None) -> None:
        """Insert or replace the row of a video; ``at`` is the time of its change."""
        with self.engine.begin() as connection:
            write(connection, event, at or datetime.now(UTC))

    def count(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM videos")).scalar_one())


def write(connection: sa.Connection, event: Event, at: datetime) -> None:
    """The row of an event, within a transaction."""
    stamp = at.isoformat(sep=" ", timespec="microseconds") if connection.dialect.name == "sqlite" else at
    if connection.dialect.name == "mariadb":
        stamp = at.astimezone(UTC).replace(tzinfo=None)  # DATETIME has no offset: UTC
    connection.execute(
        sa.text(f"{_INSERT} {_UPSERT.get(connection.dialect.name, _ON_CONFLICT)}"),
        {
            "id": event.video_id, "path": event.uri, "title": event.title, "views": event.views,
            "revision": event.source_version, "at": stamp, "removed": stamp if event.kind == "delete" else None,
        },
    )  # fmt: skip


@contextmanager
def scanned_table(url: str) -> Iterator[ScannedTable]:
    """A new table at a URL as settings write it."""
    engine = sa.create_engine(with_driver(url.replace("postgresql://", "postgresql+psycopg://")))
    time = {"postgresql": "TIMESTAMPTZ", "mariadb": "DATETIME(6)"}.get(engine.dialect.name, "TEXT")
    key = "VARCHAR(200)" if engine.dialect.name == "mariadb" else "TEXT"
    title = "MEDIUMTEXT" if engine.dialect.name == "mariadb" else "TEXT"
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"CREATE TABLE videos (id {key} PRIMARY KEY, path TEXT, title {title}, views BIGINT, revision BIGINT, "
                f"changed_at {time}, removed_at {time})"
            )
        )
    try:
        yield ScannedTable(url, engine)
    finally:
        engine.dispose()


def long_ago(seconds: float = 0.0) -> datetime:
    """A time that has settled, so many seconds after a fixed one."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
