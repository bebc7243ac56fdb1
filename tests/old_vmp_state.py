"""States of the VMP as earlier versions wrote them: their SQL, frozen here, filled from a present state."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

_NOW = "TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))"
_LOG = """CREATE TABLE events (
    offset INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('upsert', 'delete')),
    uri TEXT NOT NULL, title TEXT NOT NULL, stickers TEXT NOT NULL, views INTEGER, sha256 TEXT,
    published_at TEXT, source_version INTEGER NOT NULL, digest TEXT NOT NULL,
    UNIQUE (video_id, source_version))"""
_INDEX = (
    """CREATE TABLE entries (
        video_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('live', 'removed', 'deleted')),
        rule TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_order INTEGER NOT NULL,
        bundle_version TEXT NOT NULL, value TEXT NOT NULL)""",
    "CREATE TABLE offsets (consumer TEXT PRIMARY KEY, offset INTEGER NOT NULL)",
    f"""CREATE TABLE effects (
        number INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL, offset INTEGER NOT NULL,
        video_id TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_version TEXT NOT NULL,
        outcome TEXT NOT NULL, rule TEXT NOT NULL, written INTEGER NOT NULL, error TEXT, applied_at {_NOW})""",
    "CREATE INDEX effects_by_video ON effects (video_id, source_version)",
    f"""CREATE TABLE dead_letters (
        video_id TEXT PRIMARY KEY, offset INTEGER NOT NULL, source_version INTEGER NOT NULL,
        uri TEXT NOT NULL, reason TEXT NOT NULL, failed_at {_NOW})""",
)
_EVENT_COLUMNS = "offset, video_id, kind, uri, title, stickers, views, sha256, published_at, source_version, digest"
_SECOND = ("CREATE TABLE state (id TEXT NOT NULL)", "ALTER TABLE offsets ADD COLUMN digest TEXT")


_SERVED = """CREATE VIEW served AS
    SELECT e.video_id, CASE WHEN e.held = 1 THEN 'held' ELSE e.state END AS verdict, e.rule, e.source_version,
        e.epoch, e.rank, e.bundle_version, e.value, e.decided_at, v.views, o.state AS pinned, o.by, o.reason, o.at,
        CASE WHEN e.state = 'deleted' THEN 'deleted'
            WHEN o.state IS NOT NULL THEN o.state
            WHEN d.withdrawn = 1 THEN 'withdrawn'
            WHEN e.held = 1 THEN 'held'
            ELSE e.state END AS state
    FROM entries e
    LEFT JOIN videos v ON v.video_id = e.video_id
    LEFT JOIN overrides o ON o.video_id = e.video_id
    LEFT JOIN deployments d ON d.epoch = e.epoch"""
_ENTRIES = "video_id, state, rule, source_version, bundle_version, value, epoch, rank, views, decided_at, held"
AFTER_SEVENTH = (
    "DROP VIEW served",
    """CREATE TABLE entries_7 (
        video_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('live', 'removed', 'deleted')),
        rule TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_version TEXT NOT NULL, value TEXT NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0, rank INTEGER NOT NULL DEFAULT 2, views INTEGER, decided_at TEXT,
        held INTEGER NOT NULL DEFAULT 0)""",
    f"INSERT INTO entries_7 ({_ENTRIES}) SELECT {_ENTRIES} FROM entries",  # noqa: S608
    "DROP TABLE entries", "ALTER TABLE entries_7 RENAME TO entries",
    "CREATE INDEX videos_by_change ON videos (change)", _SERVED, "PRAGMA user_version = 7",
)  # fmt: skip
AFTER_SIXTH = ("CREATE INDEX entries_by_epoch ON entries (epoch)", "PRAGMA user_version = 6")
AFTER_FIFTH = (
    "CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, video_id TEXT NOT NULL UNIQUE)",
    "INSERT INTO changes (number, video_id) SELECT change, video_id FROM videos WHERE change IS NOT NULL",
    "DROP VIEW served",
    "CREATE TABLE videos_5 (video_id TEXT PRIMARY KEY, seen_version INTEGER NOT NULL, views INTEGER)",
    "INSERT INTO videos_5 SELECT video_id, seen_version, views FROM videos",
    "DROP TABLE videos", "ALTER TABLE videos_5 RENAME TO videos", _SERVED,
    "CREATE INDEX effects_by_video ON effects (video_id, source_version)",
    "PRAGMA user_version = 5",
)  # fmt: skip
AFTER_FOURTH = (
    "DROP INDEX pending_by_turn", "DROP TABLE tenants", "ALTER TABLE pending DROP COLUMN tenant",
    "ALTER TABLE audit_draws DROP COLUMN tenant",
    "CREATE INDEX pending_by_priority ON pending (lane, priority DESC, enqueued)",
    "PRAGMA user_version = 4",
)  # fmt: skip
_AFTER_THIRD = (
    "DROP TABLE changes", "DROP TABLE feed", "DROP TABLE audit_draws", "DROP TABLE audit_strata",
    "DROP TABLE audit_labels",
    "DROP VIEW served", "DROP TABLE pending", "DROP TABLE budget", "DROP INDEX recheck_by_time", "DROP TABLE recheck",
    "ALTER TABLE entries DROP COLUMN held", "ALTER TABLE effects DROP COLUMN routes",
    "ALTER TABLE effects DROP COLUMN effective", "ALTER TABLE effects DROP COLUMN waited",
    "CREATE INDEX provisional ON entries (video_id) WHERE rank = 1",
    """CREATE VIEW served AS
        SELECT e.video_id, e.state AS verdict, e.rule, e.source_version, e.epoch, e.rank, e.bundle_version, e.value,
            e.decided_at, v.views, o.state AS pinned, o.by, o.reason, o.at,
            CASE WHEN e.state = 'deleted' THEN 'deleted'
                WHEN o.state IS NOT NULL THEN o.state
                WHEN d.withdrawn THEN 'withdrawn'
                ELSE e.state END AS state
        FROM entries e
        LEFT JOIN videos v ON v.video_id = e.video_id
        LEFT JOIN overrides o ON o.video_id = e.video_id
        LEFT JOIN deployments d ON d.epoch = e.epoch""",
    "PRAGMA user_version = 3",
)  # fmt: skip


def as_version(state: Path, version: Literal[1, 2, 3, 4, 5, 6, 7]) -> None:
    """Rewrite log and index of ``state`` as that schema version would have them.

    Versions 1 and 2 knew no events of views alone: they are left out.
    """
    if version >= 3:
        with closing(sqlite3.connect(state / "index.sqlite")) as connection, connection:
            later_steps = (AFTER_SEVENTH, AFTER_SIXTH, AFTER_FIFTH, AFTER_FOURTH, _AFTER_THIRD)[: 8 - version]
            for statement in (one for step in later_steps for one in step):
                connection.execute(statement)
        return
    later = version == 2
    _rewrite(
        state / "log.sqlite",
        [_LOG, *(_SECOND[:1] if later else ())],
        {"events": _EVENT_COLUMNS} | ({"state": "id"} if later else {}),
        version,
    )
    common = "consumer, offset, video_id, source_version, bundle_version, outcome, rule, written, error, applied_at"
    _rewrite(
        state / "index.sqlite",
        [*_INDEX, *(_SECOND if later else ())],
        {
            "entries": "video_id, state, rule, source_version, bundle_order(bundle_version) AS bundle_order, "
            "bundle_version, value",
            "offsets": "consumer, offset" + (", digest" if later else ""),
            "effects": f"number, {common}",
            "dead_letters": "video_id, offset, source_version, uri, reason, failed_at",
        }
        | ({"state": "id"} if later else {}),
        version,
    )


def bundle_order(bundles: str) -> int:
    """What ordered bundles then: the sum of their numbers."""
    return sum(int(number) for number in re.findall(r"=(\d+)-", bundles))


def _rewrite(path: Path, schema: list[str], columns: dict[str, str], version: int) -> None:
    new = path.with_suffix(".old")
    with closing(sqlite3.connect(path)) as source:
        source.create_function("bundle_order", 1, bundle_order)
        with closing(sqlite3.connect(new)) as target, target:
            for statement in schema:
                target.execute(statement)
            for table, wanted in columns.items():
                where = " WHERE kind != 'views'" if table == "events" else ""
                rows = source.execute(f"SELECT {wanted} FROM {table}{where}").fetchall()  # noqa: S608
                names = [item[0] for item in source.execute(f"SELECT {wanted} FROM {table} LIMIT 0").description]  # noqa: S608
                marks = ", ".join("?" * len(names))
                target.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)  # noqa: S608
            target.execute(f"PRAGMA user_version = {version}")
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    new.rename(path)
