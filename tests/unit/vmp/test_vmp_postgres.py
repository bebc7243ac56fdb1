"""The index on PostgreSQL beyond the common contract: several workers, a server that is away, secrets, the SQL."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from coefvq.errors import ConfigError, DataError
from coefvq.vmp import feed
from coefvq.vmp import postgres as dialect
from coefvq.vmp.epochs import FencedError
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.records import FULL, SinkRow
from coefvq.vmp.state import open_state
from tests.old_vmp_state import AFTER_FIFTH, AFTER_FOURTH, AFTER_SEVENTH, AFTER_SIXTH
from tests.postgres import schema_of
from tests.vmp_world import NOW, promote


@pytest.fixture
def url(postgres_url: str) -> str:
    """An empty schema."""
    return schema_of(postgres_url, "workers")


def row(video_id: str, epoch: int, version: int = 1, offset: int = 1) -> SinkRow:
    value = json.dumps({"scores": {}, "by": f"{version}/{epoch}"})
    return SinkRow(offset, video_id, version, epoch, FULL, f"icd={epoch}-x", "live", "live", "r", value,
                   NOW.isoformat(), f"v{version}")  # fmt: skip


@contextmanager
def waiting(index: IndexStore, work: Callable[[], object]) -> Iterator[ThreadPoolExecutor]:
    """Begin ``work`` in a thread; inside the block it waits for the writers' lock."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while index.database.query(sql) == [(0,)] and not future.done():
            threading.Event().wait(0.01)
        assert not future.done()
        yield pool
    future.result()


def test_a_worker_that_waited_meets_the_fence_set_meanwhile(url: str) -> None:
    """The rollback holds the lock while a withdrawn worker writes: the worker reads the fence after it got the lock."""
    with open_index(url) as rollback, open_index(url) as worker, open_index(url) as watch:
        old = promote(rollback, 1, "4-cd")
        refused = []

        def write() -> None:
            try:
                worker.apply([row("a", old)], "vmp", 1)
            except FencedError as error:
                refused.append(str(error))

        with rollback.database.transaction() as connection, waiting(watch, write):
            connection.execute("UPDATE deployments SET withdrawn = 1")
            connection.execute(
                "INSERT INTO deployments (epoch, decision, bundles, models, rules, fence) VALUES (2, 2, '', '', '', 1)"
            )
            assert watch.committed("vmp") == 0  # readers do not wait
            # leaving the outer block commits; the inner one, left first, must not wait for the worker before that
            connection.execute("COMMIT")
            connection.execute("BEGIN")
        assert "epoch 1 was withdrawn by a rollback (fence at epoch 2)" in refused[0]
        assert (watch.get("a"), watch.committed("vmp")) == (None, 0)


def test_two_workers_of_one_consumer_repeat_work_and_never_an_effect(url: str) -> None:
    with open_index(url) as first:
        epoch = promote(first, 1, "1-ab")

        def work(seed: int) -> None:
            with open_index(url) as index:
                for start in range(0, 40, 4):
                    rows = [row(f"v{number % 7}", epoch, number, number) for number in range(start + 1, start + 5)]
                    index.apply(rows, "vmp", start + 4)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
        assert first.database.query('SELECT count(*), count(DISTINCT "offset") FROM effects') == [(40, 40)]
        assert first.database.query("SELECT max(source_version) FROM entries GROUP BY video_id ORDER BY 1") == [
            (version,) for version in range(34, 41)
        ]


def test_epochs_are_issued_once_by_workers_that_start_together(url: str) -> None:
    with open_index(url) as first:

        def issue(_: int) -> int:
            with open_index(url) as index:
                return promote(index, 1, "1-ab")

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(issue, range(8))) == {1}
        assert first.database.query("SELECT count(*) FROM deployments") == [(1,)]


def test_tables_are_made_once_by_workers_that_start_together(url: str) -> None:
    def states(_: int) -> dict[str, int]:
        with open_index(url) as index:
            return index.states()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(states, range(4))) == [{}] * 4


def test_a_worker_that_was_stopped_within_a_transaction_holds_nobody_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_IDLE_SECONDS", 0.2)

    def sleep_within(stopped: IndexStore, other: IndexStore) -> None:
        with stopped.database.transaction() as connection:
            connection.execute("DELETE FROM deployments")
            other.apply([row("a", 1)], "vmp", 1)  # waits until the server has ended the other
            connection.execute("SELECT 1")

    with open_index(url) as stopped:
        monkeypatch.undo()
        with open_index(url) as other:
            assert promote(other, 1, "1-ab") == 1
            with pytest.raises(DataError, match=r"postgresql://.*run the command again") as caught:
                sleep_within(stopped, other)
            assert "\n" not in str(caught.value)
            assert (other.states(), other.committed("vmp")) == ({"live": 1}, 1)
            assert other.database.query("SELECT count(*) FROM deployments") == [(1,)]


def test_a_server_that_is_away_is_one_line_without_the_password() -> None:
    with pytest.raises(DataError) as caught, open_index("postgresql://ana:geheim@127.0.0.1:1/vmp"):
        pass
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert str(caught.value).startswith("postgresql://***@127.0.0.1:1/vmp: connection")


def test_a_state_names_its_index(url: str, tmp_path: Path) -> None:
    (tmp_path / "state.yaml").write_text(f"index: {url}\n")
    with open_state(tmp_path) as (log, index):
        assert index.state_id() == log.state_id()
        assert index.database.name == "the index"
    assert not (tmp_path / "index.sqlite").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "state.yaml").write_text(f"index: {url}\n")
    with pytest.raises(DataError, match=r"another id\).*or empty its schema"), open_state(other):
        pass


@pytest.mark.parametrize("text", ["", "index: index.sqlite", "index: 5", "index: mysql://h/d", "index: &a [*a]",
                                  "index: postgresql://h/d\nmore: 1"])  # fmt: skip
def test_a_state_that_names_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"state\.yaml"), open_state(tmp_path):
        pass


def test_tables_of_schema_4_go_on_wherever_a_kill_falls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_index(url) as index:
        index.apply([row("a", promote(index, 1, "1-ab"))], "vmp", 1)
        for statement in (*AFTER_SEVENTH[:-1], *AFTER_SIXTH[:-1], *AFTER_FIFTH[:-1], *AFTER_FOURTH[:-1]):
            index.database.connection.execute(dialect._in_its_types(statement))
        index.database.connection.execute("UPDATE coefvq_vmp_schema SET version = 4")
    execute, deaths = dialect._Translated.execute, 0
    for lives in range(99):
        left = [lives]

        def dying(self: dialect._Translated, sql: str, *rest: object, left: list[int] = left) -> object:
            left[0] -= sql.split()[0] in ("CREATE", "ALTER", "DROP", "DELETE", "INSERT")
            if left[0] < 0:
                raise KeyboardInterrupt
            return execute(self, sql, *rest)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(dialect._Translated, "execute", dying)
            try:
                with open_index(url):
                    break
            except KeyboardInterrupt:
                deaths += 1
    assert deaths > 5
    with open_index(url) as index:
        assert (index.states(), index.committed("vmp")) == ({"live": 1}, 1)
        assert index.database.query("SELECT count(*) FROM tenants") == [(0,)]
        assert [change.number for change in feed.read(index.database, 0, 9).changes] == [1]
        index.apply([row("b", 1, offset=2)], "vmp", 2)
        assert feed.newest(index.database) == 2


def test_a_newer_schema_is_refused(url: str) -> None:
    with open_index(url) as index, index.database.transaction() as connection:
        connection.execute("UPDATE coefvq_vmp_schema SET version = 99")
    with pytest.raises(DataError, match="schema version 99, expected"), open_index(url):
        pass


def test_a_failing_batch_leaves_nothing(url: str) -> None:
    with open_index(url) as index:
        epoch = promote(index, 1, "1-ab")
        with pytest.raises(DataError, match="state"):
            index.apply([row("a", epoch), row("b", epoch)._replace(state="nonsense")], "vmp", 2)  # type: ignore[arg-type]
        assert (index.states(), index.committed("vmp")) == ({}, 0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SELECT offset FROM offsets WHERE consumer = ?", 'SELECT "offset" FROM offsets WHERE consumer = %s'),
        ("SELECT excluded.offset > offsets.offset", "SELECT excluded.offset > offsets.offset"),
        ("SELECT ?1, ?2, ?1", "SELECT %s, %s, %s"),
        ("SELECT a LIMIT :limit", "SELECT a LIMIT %(limit)s"),
        ("SELECT 'a?b:c offset %', a % b", "SELECT 'a?b:c offset %%', a %% b"),
    ],
)
def test_translation(ours: str, theirs: str) -> None:
    assert dialect.translate(ours) == (theirs, (0, 1, 0) if "?1" in ours else ())
