"""What readers ask for again and again is found in order: no walk over the whole index, and nothing sorted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import pytest

from coefvq.vmp import feed, served
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.keys import key
from coefvq.vmp.mirror import rows
from coefvq.vmp.records import SinkRow
from tests.vmp_world import NOW, promote

SINCE = 1_990


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexStore]:
    with open_index(tmp_path_factory.mktemp("plans") / "index.sqlite") as opened:
        epoch = promote(opened, 1, "1-ab")
        names = [key("acme" if number % 2 else "default", f"v{number}") for number in range(2_000)]
        opened.apply(
            [SinkRow(number, name, 1, epoch, 2, "icd=1-ab", "live", "live", "default", "{}", NOW.isoformat(), "")
             for number, name in enumerate(names, start=1)],
            "vmp", 2_000,
        )  # fmt: skip
        promote(opened, 2, "2-cd")
        Campaigns(opened.database).start(NOW)
        yield opened


def plan(index: IndexStore, read: Callable[[IndexStore], object]) -> list[str]:
    """How SQLite would find what ``read`` asks for."""
    connection, asked = index.database.connection, []
    assert isinstance(connection, sqlite3.Connection)
    connection.set_trace_callback(asked.append)
    assert read(index)
    connection.set_trace_callback(None)
    steps = [row[3] for sql in asked if " entries " in sql or " served " in sql
             for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]  # fmt: skip
    assert steps
    return [step for step in steps if not step.startswith(("SCAN feed", "SCALAR", "SEARCH entries"))]


def walks(steps: list[str]) -> list[str]:
    return [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step]


READS: dict[str, Callable[[IndexStore], object]] = {
    "get": lambda index: index.get("v8"),
    "page": lambda index: served.page(index.database, "v5", 9),
    "page of a tenant": lambda index: served.page(index.database, "v5", 9, tenant="acme"),
    "known": lambda index: index.known(["v8"]),
    "changes": lambda index: feed.read(index.database, SINCE, 9).changes,
    "changes of a tenant": lambda index: feed.read(index.database, SINCE, 9, "acme").changes,
    "mirror's changes": lambda index: rows.since(index.database, SINCE, 9),
    "mirror's walk": lambda index: rows.after(index.database, "v5", 9),
    "mirror's head": lambda index: rows.head(index.database).newest,
    "campaign": lambda index: Campaigns(index.database).next_step(2, 9),
    "verdicts": lambda index: next(index.verdicts("e.rule", (), None, None, "default", 9)),
}


@pytest.mark.parametrize("name", READS)
def test_no_reader_walks_over_the_index(index: IndexStore, name: str) -> None:
    assert walks(plan(index, READS[name])) == []


def test_a_walk_would_be_seen(index: IndexStore) -> None:
    assert walks(plan(index, lambda index: index.states()))
    by_name = "SELECT video_id FROM entries ORDER BY video_id LIMIT 1"
    assert walks(plan(index, lambda index: index.database.query(by_name)))
