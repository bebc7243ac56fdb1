"""Databases of others, through SQLAlchemy: they are only read, and each statement has an end in time."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from coefvq.errors import ConfigError
from coefvq.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.exc import SQLAlchemyError

_SQLITE_STEPS = 10_000
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
#: what pymysql calls an OperationalError is also a column that is not there; these go by themselves: too many
#: connections, shutdown, killed, lock wait, deadlock, out of time, and all of the client's own, such as no connection
_MYSQL_PASSING = frozenset({1040, 1053, 1077, 1205, 1213, 1317, 1927, 1969, 3024})


def open_engine(url: str) -> Engine:
    """The engine of a database; connections are made at the first question.

    Raises:
        ConfigError: the URL or its driver does not fit.
    """
    import sqlalchemy as sa

    try:
        return _engine(url)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError) as error:
        raise ConfigError(f"{redact(url)}: {error}; correct the url or install its driver") from error


def url_below(url: str, folder: Path) -> str:
    """``url`` with the file of SQLite below ``folder``, where it is a relative path; another URL as it is."""
    found = re.fullmatch(r"(sqlite[+a-z0-9]*:///)(?!file:|:memory:)(.+)", url, re.DOTALL)
    return url if found is None else f"{found[1]}{folder / found[2]}"


def _engine(url: str) -> Engine:
    import sqlalchemy as sa

    made = sa.make_url(url)
    if made.drivername in _DRIVERS:
        made = made.set(drivername=f"{made.drivername}+{_DRIVERS[made.drivername]}")
    if made.get_backend_name() == "sqlite" and made.database and not made.database.startswith("file:"):
        # a file that is missing must not be made
        made = made.set(database=f"file:{quote(made.database)}").update_query_dict({"mode": "ro", "uri": "true"})
    # a connection that the server closed is replaced, not handed out
    options: dict[str, Any] = {"pool_pre_ping": True}
    if made.get_backend_name() != "sqlite" and "connect_timeout" not in made.query:
        options["connect_args"] = {"connect_timeout": 2}
    return sa.create_engine(made, **options)


def limit(connection: Connection, seconds: float) -> None:
    """End a statement that runs longer, in the database itself; each statement sees what is committed before it."""
    from sqlalchemy.dialects.mysql.base import MySQLDialect

    backend = connection.engine.dialect.name
    milliseconds = max(1, math.ceil(seconds * 1000))
    if backend == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    elif isinstance(connection.dialect, MySQLDialect):
        # times come in the session's zone, without saying so
        connection.exec_driver_sql("SET SESSION time_zone = '+00:00'")
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")
        is_mariadb = connection.dialect.is_mariadb
        most = f"max_statement_time = {seconds}" if is_mariadb else f"max_execution_time = {milliseconds}"
        connection.exec_driver_sql(f"SET SESSION {most}")
    elif backend == "sqlite":
        end = time.monotonic() + seconds
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: time.monotonic() > end, _SQLITE_STEPS)
        driver.execute(f"PRAGMA busy_timeout = {milliseconds}")


def is_passing(error: SQLAlchemyError) -> bool:
    """Whether the database may answer the same question a moment later."""
    import sqlalchemy as sa

    if not isinstance(error, sa.exc.OperationalError):
        return False
    words = getattr(error.orig, "args", ())
    if type(error.orig).__module__.startswith("pymysql") and words and isinstance(words[0], int):
        return words[0] in _MYSQL_PASSING or 2000 <= words[0] < 3000
    return True


def driver_words(error: SQLAlchemyError) -> str:
    """What the driver itself says, in one line: SQLAlchemy adds the statement with all its values."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
