"""What a service may send: late answers, garbage, too much. What a cache keeps and how long. What a message hides."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.errors import ConfigError
from coefvq.vmp.features import thrift_store
from coefvq.vmp.features.guarded import breaker
from coefvq.vmp.features.redis_store import ReadThrough, RedisRows
from coefvq.vmp.features.sql_store import SqlStore
from coefvq.vmp.features.thrift_store import ThriftStore, protocol
from coefvq.vmp.features.values import StoreError, Unusable, checked
from tests.feature_stores import redis_server

pytest.importorskip("thriftpy2")

KINDS = {"reputation": "number"}


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections ``serve`` gets, each in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(line,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


class Slow:
    """A service that answers the first question only when ``go`` is set."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0

    def fetch(self, store: str, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        self.asked += 1
        if self.asked == 1:
            self.go.wait(10)
        return {key: {"name": protocol().Value(text=key)} for key in keys}

    def serve(self, line: socket.socket) -> None:
        from thriftpy2.protocol.binary import TBinaryProtocol
        from thriftpy2.thrift import TProcessor
        from thriftpy2.transport import TSocket
        from thriftpy2.transport.base import TTransportException
        from thriftpy2.transport.buffered import TBufferedTransport

        channel = TBinaryProtocol(TBufferedTransport(TSocket(sock=line)))
        try:
            while True:
                TProcessor(protocol().Features, self).process(channel, channel)
        except (TTransportException, OSError):
            line.close()


@contextmanager
def slow_service() -> Iterator[tuple[Slow, int]]:
    slow = Slow()
    with listening(slow.serve) as port:
        yield slow, port
        slow.go.set()


def test_after_a_timeout_the_next_question_gets_its_own_answer() -> None:
    with slow_service() as (slow, port):
        store = ThriftStore("s", "127.0.0.1", port, 4)
        with pytest.raises(StoreError, match="timed out"):
            store.fetch(["first"], 1.0)
        assert slow.asked == 1
        slow.go.set()
        assert store.fetch(["second"], 10.0) == {"second": {"name": "second"}}
        store.close()


def test_a_connection_that_is_kept_after_a_timeout_gives_the_answer_before() -> None:
    """The control: what thriftpy2 does (its issue 130) where nobody drops the connection."""
    with slow_service() as (slow, port):
        line = thrift_store._Line("127.0.0.1", port)
        line.wire.allow(time.monotonic() + 1.0)
        line.wire.open()
        with pytest.raises(TimeoutError):
            line.client.fetch("s", ["first"])
        assert slow.asked == 1
        slow.go.set()
        line.wire.allow(time.monotonic() + 10.0)
        assert set(line.client.fetch("s", ["second"])) == {"first"}
        line.wire.close()


def test_a_connection_that_the_service_closed_meanwhile_costs_no_question() -> None:
    opened: list[socket.socket] = []
    slow = Slow()
    slow.go.set()

    def serve(line: socket.socket) -> None:
        opened.append(line)
        slow.serve(line)

    with listening(serve) as port, closing(ThriftStore("s", "127.0.0.1", port, 4)) as store:
        for number in range(3):
            assert store.fetch([str(number)], 10.0) == {str(number): {"name": str(number)}}
        assert len(opened) == 1  # kept
        opened[0].shutdown(socket.SHUT_RDWR)
        assert store.fetch(["last"], 10.0) == {"last": {"name": "last"}}
        assert len(opened) == 2


def sends(data: bytes) -> Callable[[socket.socket], None]:
    def serve(line: socket.socket) -> None:
        with line:
            line.recv(1)
            line.sendall(data)

    return serve


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\x80\x01\x00\x02\x00\x00\x00\x05fetch\x00\x00\x00\x00",
        b"\x80\x01\x00\x02\x7f\xff\xff\xffx",  # a name of 2 GiB
        b"\x80\x01\x00\x02\x00\x00\x00\x05fetch\x00\x00\x00\x00\x0d\x00\x00\x0b\x0d\x7f\xff\xff\xff",  # as many rows
    ],
)
def test_garbage_is_no_answer(data: bytes) -> None:
    with listening(sends(data)) as port:
        store = ThriftStore("s", "127.0.0.1", port, 4)
        with pytest.raises(StoreError, match=f"127.0.0.1:{port}"):
            store.fetch(["a"], 5.0)
        assert store._idle.empty()


@settings(max_examples=20)
@given(st.binary(max_size=64))
def test_random_bytes_are_no_answer(data: bytes) -> None:
    sent = b"\x80\x01\x00\x02\x00\x00\x00\x05fetch\x00\x00\x00\x00" + data
    with listening(sends(sent)) as port, closing(ThriftStore("s", "127.0.0.1", port, 4)) as store, suppress(StoreError):
        assert isinstance(store.fetch(["a"], 5.0), dict)


def test_an_endless_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thrift_store, "LARGEST_ANSWER", 100_000)
    refused = pytest.raises(StoreError, match="an answer of more than 100000 bytes")
    with listening(sends(b"\x80\x01\x00\x02\x7f\xff\xff\xff" + bytes(1_000_000))) as port, refused:
        ThriftStore("s", "127.0.0.1", port, 4).fetch(["a"], 10.0)


class Behind:
    """A store that counts its questions."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {"ana": {"reputation": 0.5}}
        self.asked: list[str] = []

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, dict[str, Any]]:
        self.asked += keys
        return {key: self.rows[key] for key in keys if key in self.rows}

    def close(self) -> None:
        """Nothing is open."""


def cached(url: str, behind: Behind) -> ReadThrough:
    return ReadThrough(RedisRows(url, "t:", 5.0), behind, KINDS, ttl=100, absent_ttl=7, circuit=breaker(2, 60.0))


def test_rows_and_their_absence_are_kept_each_for_its_time() -> None:
    import redis

    with redis_server() as (_, url), redis.Redis.from_url(url, decode_responses=True) as client:
        behind = Behind()
        store = cached(url, behind)
        for _ in range(2):
            assert store.fetch(["ana", "nobody"], 10.0) == {"ana": {"reputation": 0.5}}
        assert behind.asked == ["ana", "nobody"]
        assert 90 < client.ttl("t:ana") <= 100
        assert 0 < client.ttl("t:nobody") <= 7
        # what others put there is no reason to fail, nor is it believed
        client.mset({"t:ana": "{", "t:nobody": json.dumps({"reputation": "high"})})
        assert store.fetch(["ana", "nobody"], 10.0) == {"ana": {"reputation": 0.5}}
        assert behind.asked == ["ana", "nobody"] * 2
        # garbage is passed on to be named, not kept
        behind.rows["zoe"] = {"reputation": b"\xff"}
        assert store.fetch(["zoe"], 10.0) == {"zoe": {"reputation": b"\xff"}}
        assert client.exists("t:zoe") == 0
        store.close()


def test_a_cache_that_is_down_is_done_without() -> None:
    with redis_server() as (server, url):
        behind = Behind()
        store = cached(url, behind)
        server.kill()
        for _ in range(3):
            assert store.fetch(["ana"], 10.0) == {"ana": {"reputation": 0.5}}
        # an open circuit: the cache is not even tried
        assert store._circuit.current_state == "open"
        assert behind.asked == ["ana"] * 3


@pytest.mark.parametrize("text", ["{", "[1]", '"a"', '{"reputation": NaN}'])
def test_a_redis_value_that_is_no_object_is_garbage(text: str) -> None:
    import redis

    with redis_server() as (_, url), redis.Redis.from_url(url) as client:
        client.set("p:ana", text)
        store = RedisRows(url, "p:", 5.0)
        rows = checked(store.fetch(["ana"], 10.0), ["ana"], KINDS)
        assert isinstance(rows["ana"], Unusable)
        assert "is no row of fields" in rows["ana"].reason
        store.close()


def test_a_database_that_is_missing_is_not_made(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'no.sqlite'}", "people", "who", KINDS, {})
    with pytest.raises(StoreError, match="unable to open database file"):
        store.fetch(["ana"], 1.0)
    assert not (tmp_path / "no.sqlite").exists()


def test_a_long_statement_ends_and_two_rows_of_a_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE twice (who TEXT, reputation REAL)")
        connection.executemany("INSERT INTO twice VALUES (?, ?)", [("ana", 1.0), ("ana", 2.0)])
        connection.execute(
            "CREATE VIEW slow AS SELECT a.who, a.reputation FROM twice a WHERE (WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n) > 0"
        )
    connection.close()
    store = SqlStore(f"sqlite:///{path}", "slow", "who", KINDS, {})
    with pytest.raises(StoreError, match="table slow: interrupted"):
        store.fetch(["ana"], 0.05)
    with pytest.raises(StoreError, match="two rows of 'ana'"):
        SqlStore(f"sqlite:///{path}", "twice", "who", KINDS, {}).fetch(["ana"], 5.0)


def test_no_password_stands_in_a_message() -> None:
    store = SqlStore("postgresql://ana:s3cret@127.0.0.1:1/d", "people", "who", KINDS, {})
    with pytest.raises(StoreError) as caught:
        store.fetch(["ana"], 1.0)
    with pytest.raises(StoreError) as other:
        RedisRows("redis://:s3cret@127.0.0.1:1/0", "p:", 1.0).fetch(["ana"], 1.0)
    assert "s3cret" not in str(caught.value) + str(other.value)
    with pytest.raises(ConfigError) as refused:
        RedisRows("redis://:s3cret@host:port/0", "p:", 1.0)
    assert "s3cret" not in str(refused.value)
