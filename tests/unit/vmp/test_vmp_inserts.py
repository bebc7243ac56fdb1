"""Batches are read and written with few statements, whatever their size."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from coefvq.vmp import loop, schema
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.inserts import Insert, chosen, powers_of_two
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.records import Event, SinkRow
from tests.vmp_world import NOW, FixedDeployment, Pair, deployment, work

TABLE = Insert("t", ("a", "b"), ("c",), "ON CONFLICT (a) DO UPDATE SET b = excluded.b")


@pytest.mark.parametrize("rows", [0, 1, 2, 31, 64, 71])
def test_rows_arrive_in_their_order_with_what_they_share(rows: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a INTEGER UNIQUE, b INTEGER, c TEXT)")
    TABLE.run(connection, [(-number, number) for number in range(rows)], ("x",))
    assert connection.execute("SELECT a, b, c FROM t ORDER BY rowid").fetchall() == [
        (-number, number, "x") for number in range(rows)
    ]


@pytest.mark.parametrize("count", [1, 3, 32, 64, 65, 200])
def test_parts_cover_all_items_and_come_in_few_sizes(count: int) -> None:
    items = list(range(count))
    parts = list(powers_of_two(items))
    assert [one for part in parts for one in part] == items
    assert all(len(part) & (len(part) - 1) == 0 and len(part) <= 64 for part in parts)
    conditions = list(chosen("a", items))
    assert {value for _, values in conditions for value in values} == set(items)
    assert all(condition.count("?") == len(values) <= 64 for condition, values in conditions)


def row(number: int, version: int, views: int | None) -> SinkRow:
    offset = 32 * (version - 1) + number + 1
    event = Event(f"v{number}", title="t", views=views, source_version=version, offset=offset)
    return SinkRow(offset, event.video_id, version, 1, 2, "icd=1-ab", "live", "live", "default", "{}", NOW.isoformat(),
                   event, views)  # fmt: skip


def test_any_text_and_number_arrives_as_it_is(index_place: Path | str) -> None:
    texts = ["a'b", 'a"b', "a\\u0041", "\t\n\x01\x7f", "%s ?1 :a", "ß\U0001f600\u2028", "{}", "null", ""]
    rows = [(text, 2**62 - number, None if number % 2 else number) for number, text in enumerate(texts)]
    with open_index(index_place) as index:
        with index.database.transaction() as connection:
            schema.SEE_VIDEO.run(connection, [(*cells, None) for cells in rows])
            own = [(offset, text, offset) for offset, text in enumerate(texts)]
            shared = ("c", "2026-01-01T00:00:00Z", True, None, 1e-300, 1, 2, "b", "live", "r", "{}", 0.1)
            schema.WRITE_EFFECT.run(connection, own, shared)
        found = index.database.query("SELECT video_id, seen_version, views FROM videos")
        assert sorted(found) == sorted(rows)
        effects = "SELECT offset, video_id, source_version, waited, written, effective FROM effects ORDER BY number"
        assert index.database.query(effects) == [(*cells, 0.1, 1, 1e-300) for cells in own]


@contextmanager
def counted(index: IndexStore) -> Iterator[Counter[str]]:
    """The statements that the index runs meanwhile, by their first words."""
    seen: Counter[str] = Counter()
    connection = index.database.connection
    assert isinstance(connection, sqlite3.Connection)
    connection.set_trace_callback(lambda sql: seen.update([" ".join(sql.split()[:3])]))
    yield seen
    connection.set_trace_callback(None)


def test_a_batch_takes_as_many_statements_as_one_event(tmp_path: Path) -> None:
    with open_index(tmp_path / "index.sqlite") as index:
        for version, views in ((1, 5), (2, 9)):
            with counted(index) as one:
                index.known(["v0"])
                index.apply([row(0, version, views)], "one", 32 * version - 31)
            with counted(index) as many:
                index.known([f"v{number}" for number in range(1, 33)])
                index.apply([row(number, version, views) for number in range(1, 33)], "vmp", 32 * version + 1)
            assert many.total() <= one.total(), many - one
        assert index.states() == {"live": 33}


def test_audit_rows_that_differ_are_one_statement_too(index_place: Path | str) -> None:
    rows = [row(number, 1, 5)._replace(rule=f"rule {number % 3}", routes=f'{{"icd": {number}}}') for number in range(8)]
    asked = "SELECT offset, video_id, rule, routes, written, consumer, rank FROM effects ORDER BY number"
    with open_index(index_place) as index:
        if isinstance(index_place, Path):
            with counted(index) as seen:
                index.apply(rows, "vmp", 8)
            assert seen["INSERT INTO effects"] == 1
        else:
            index.apply(rows, "vmp", 8)
        assert index.database.query(asked) == [
            (one.offset, one.video_id, one.rule, one.routes, 1, "vmp", 2) for one in rows
        ]


def run_over(log: EventLog, index: IndexStore, scores: Sequence[float], queue: bool) -> Counter[str]:
    """The statements of a run over eight new events of each base score, batch by batch, to the end of the log."""
    first, by_id = log.last_offset(), {}
    for number in range(8 * len(scores)):
        by_id[f"v{first + number}"] = scores[number // 8]
    log.publish(Event(name, uri="/v.mp4") for name in by_id)
    used = FixedDeployment(deployment(Pair(base=lambda video: by_id[video.video_id])))
    with counted(index) as seen:
        loop.run(log, used, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=8, once=True,
                 work=work(log, index) if queue else (), clock=lambda: NOW)  # fmt: skip
    return seen


def test_a_batch_says_what_waits_so_that_nobody_asks_the_index(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log, open_index(tmp_path / "index.sqlite") as index:
        alone = run_over(log, index, [0.1, 0.1, 0.1], queue=False)
        beside = run_over(log, index, [0.1, 0.1, 0.1], queue=True)
        # the first look at the clock of waiting; at the end of the log: what is due, what waits, a campaign
        assert (beside - alone).total() <= 4, beside - alone


def test_a_task_that_a_batch_leaves_is_served_before_the_next_batch(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log, open_index(tmp_path / "index.sqlite") as index:
        run_over(log, index, [0.1, 0.7, 0.1], queue=True)
        order = index.database.query("SELECT consumer, count(*) FROM effects GROUP BY (number - 1) / 8, consumer")
        assert order == [("vmp", 8), ("vmp", 8), ("mllm", 8), ("vmp", 8)]
