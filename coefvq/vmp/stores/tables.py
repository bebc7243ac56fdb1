"""Tables that a stream adds to the index's database; an index that reads the log alone does not have them.

They are made when the first stream is opened on an index. A video's key holds its tenant (coefvq/vmp/keys.py).
"""

from __future__ import annotations

from coefvq.vmp.database import Connection, Database

_TABLES = (
    """CREATE TABLE IF NOT EXISTS stream_positions (
        consumer TEXT NOT NULL, stream TEXT NOT NULL, partition BIGINT NOT NULL, next BIGINT NOT NULL,
        PRIMARY KEY (consumer, stream, partition))""",
    # how far a table was read, beside the position of its one partition
    """CREATE TABLE IF NOT EXISTS stream_marks (
        consumer TEXT NOT NULL, stream TEXT NOT NULL, partition BIGINT NOT NULL, mark TEXT NOT NULL,
        PRIMARY KEY (consumer, stream, partition))""",
    # the newest content of each video, for verdicts that no event asks for
    """CREATE TABLE IF NOT EXISTS stream_contents (
        video_id TEXT PRIMARY KEY, source_version BIGINT NOT NULL,
        kind TEXT NOT NULL, uri TEXT NOT NULL, title TEXT NOT NULL, stickers TEXT NOT NULL, views BIGINT, sha256 TEXT,
        published_at TEXT, creator_id TEXT, duration_s DOUBLE PRECISION, place BIGINT NOT NULL)""",
    # SQLite takes any type's name; on PostgreSQL it is the one for bytes
    """CREATE TABLE IF NOT EXISTS stream_poison (
        stream TEXT NOT NULL, partition BIGINT NOT NULL, offset BIGINT NOT NULL, reason TEXT NOT NULL, key BYTEA,
        value BYTEA, headers TEXT NOT NULL, produced_at DOUBLE PRECISION, failed_at TEXT NOT NULL,
        PRIMARY KEY (stream, partition, offset))""",
)
_NAMES = ("stream_positions", "stream_contents", "stream_poison")
#: younger than the others: an index that was made before lacks it until a stream is opened again
_MARKS = "stream_marks"


def make_tables(database: Database) -> None:
    """Make what is missing.

    Raises:
        DataError: the database refuses.
    """
    with database.reading() as connection:
        whole = all(_exists(connection, name) for name in (*_NAMES, _MARKS))
    if not whole:
        with database.transaction() as connection:
            for statement in _TABLES:
                connection.execute(statement)


def have_tables(database: Database) -> bool:
    """Whether a stream was ever opened on this index."""
    with database.reading() as connection:
        return all(_exists(connection, name) for name in _NAMES)


def _exists(connection: Connection, name: str) -> bool:
    # both databases list their tables, each in its own place
    if type(connection).__module__ == "sqlite3":
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    else:
        sql = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?"
    return connection.execute(sql, (name,)).fetchone() is not None
