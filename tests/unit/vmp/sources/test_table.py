"""A table as source, on SQLite, PostgreSQL and MariaDB: ties, late commits, deletions, views, bad rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from coefvq.data.locations import root_at
from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.configuration import Columns, Configuration, Store, TableSource
from coefvq.vmp.index import IndexStore
from coefvq.vmp.records import Event
from coefvq.vmp.sources.engines import open_source
from coefvq.vmp.sources.messages import Reading
from coefvq.vmp.sources.table import TableStream
from coefvq.vmp.sources.table_check import look
from coefvq.vmp.sources.table_pages import Table, UnavailableError, mark_place, mark_text
from coefvq.vmp.state import open_state
from coefvq.vmp.stores import contents, poison
from tests.mariadb import database_of, with_driver
from tests.postgres import schema_of
from tests.scanned_table import ScannedTable, long_ago, scanned_table, write
from tests.vmp_world import NOW, fixed, work


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ScannedTable]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'app.sqlite'}"
    elif request.param == "mariadb":
        url = database_of(request.getfixturevalue("mariadb_url"), "app")
    else:
        url = schema_of(request.getfixturevalue("postgres_url"), "app")
    with scanned_table(url) as made:
        yield made


@dataclass
class World:
    """A state that reads the table."""

    source: TableSource
    state: Path
    told: list[str]
    scored: list[str]

    def score(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        self.scored += [video.video_id for video in videos]
        return [ScoredVideo(video.video_id, "icd", 0.1, None, False, "base", "1-ab") for video in videos]

    @contextmanager
    def index(self) -> Iterator[IndexStore]:
        with open_state(self.state) as (_, index):
            yield index

    def run(self, batch_size: int = 3) -> dict[str, tuple[str, int]]:
        """A run from the index's position to the end of the table; state and version of each video."""
        configuration = Configuration(source=self.source, store=Store(state=self.state))
        with (
            open_state(self.state) as (log, index),
            open_source(configuration, log, index, stop=threading.Event(), once=True, say=self.told.append,
                        on_poison=lambda report: None) as (source, sink),
        ):  # fmt: skip
            loop.run(source, fixed(self.score), sink, stop=threading.Event(), on_batch=lambda report: None, once=True,
                     batch_size=batch_size, clock=lambda: NOW, work=work(log, index))  # fmt: skip
            rows = index.database.query("SELECT video_id FROM entries ORDER BY video_id")
            entries = {name: index.get(name) for (name,) in rows}
            return {name: (entry.state, entry.source_version) for name, entry in entries.items() if entry is not None}


@pytest.fixture
def world(table: ScannedTable, tmp_path: Path) -> World:
    return World(table.source(tmp_path), tmp_path / "vmp", [], [])


def video(name: str, version: int = 1, **facts: object) -> Event:
    return Event(name, uri=f"{name}.mp4", source_version=version, **facts)


def naive(table: ScannedTable, mark: str, size: int) -> list[tuple[str, str]]:
    """Ids and times behind a time alone, as a scan without this module's care reads them."""
    text = f"CAST(changed_at AS {'CHAR' if table.engine.dialect.name == 'mariadb' else 'TEXT'})"
    with table.engine.connect() as connection:
        rows = connection.execute(
            sa.text(f"SELECT id, {text} FROM videos WHERE {text} > :mark ORDER BY changed_at LIMIT :size"),  # noqa: S608
            {"mark": mark, "size": size},
        )
        return [(str(name), str(at)) for name, at in rows]


def test_ties_across_the_edge_of_a_page_are_all_read(table: ScannedTable, world: World) -> None:
    for number in range(8):
        table.put(video(f"v{number}"), long_ago(number // 5))
    assert len(world.run(batch_size=3)) == 8
    assert sorted(world.scored) == [f"v{number}" for number in range(8)]
    # the control reads three of the five with one time, then goes on behind that time
    first = naive(table, "", 3)
    rest = naive(table, first[-1][1], 100)
    assert len(first) + len(rest) == 6


def test_a_transaction_that_commits_late_is_read(table: ScannedTable, world: World) -> None:
    at = datetime.now(UTC)
    table.put(video("old"), long_ago())
    if table.engine.dialect.name == "sqlite":
        # one writer at a time: the stamp is older than the commit before
        table.put(video("prompt"), at - timedelta(seconds=1))
        assert set(world.run()) == {"old", "prompt"}
        table.put(video("late"), at - timedelta(seconds=2))
    else:
        with table.engine.connect() as early, early.begin():
            write(early, video("late"), at - timedelta(seconds=2))
            table.put(video("prompt"), at - timedelta(seconds=1))
            assert set(world.run()) == {"old", "prompt"}
            mark = naive(table, "", 10)[-1][1]
    if table.engine.dialect.name == "sqlite":
        mark = (at - timedelta(seconds=1)).isoformat(sep=" ", timespec="microseconds")
    assert naive(table, mark, 10) == []  # the control went past it
    assert set(world.run()) == {"old", "prompt", "late"}
    assert sorted(world.scored) == ["late", "old", "prompt"]  # what is read again is not scored again


def test_without_time_to_settle_a_late_commit_is_lost(table: ScannedTable, world: World, tmp_path: Path) -> None:
    world.source = table.source(tmp_path, settle=0.0)
    at = datetime.now(UTC)
    table.put(video("prompt"), at - timedelta(seconds=1))
    world.run()
    table.put(video("late"), at - timedelta(seconds=2))
    assert set(world.run()) == {"prompt"}


def test_changes_deletions_and_views(table: ScannedTable, world: World) -> None:
    for name in "abc":
        table.put(video(name, views=5), long_ago())
    world.run()
    table.put(video("a", 2, title="new"), long_ago(1))
    table.put(Event("b", "delete", source_version=2), long_ago(2))
    table.put(video("c", views=500), long_ago(3))
    assert world.run() == {"a": ("live", 2), "b": ("deleted", 2), "c": ("live", 1)}
    assert world.scored == ["a", "b", "c", "a"]
    with world.index() as index:
        assert index.known(["c"])["c"].views == 500
        assert contents.newest(index.database, ["a", "c"])["c"].views == 500
        effects = index.database.query("SELECT count(*), count(DISTINCT offset) FROM effects WHERE consumer = 'vmp'")
    assert effects == [(6, 6)]
    table.put(video("c", views=3), long_ago(4))  # fewer views are no news
    world.run()
    assert len(world.scored) == 4


def test_rows_that_make_no_event_are_dead_letters_once(table: ScannedTable, world: World, tmp_path: Path) -> None:
    now = datetime.now(UTC)  # not settled: they are read by each run
    table.put(video("good"), now)
    table.put(Event("outside", uri="../x.mp4", source_version=1), now)
    table.put(video("long", title="x" * 200_000), now)
    table.put(video("zero", 0), now)
    for _ in range(2):
        assert world.run() == {"good": ("live", 1)}
        with world.index() as index:
            dead = poison.read(index.database)
        assert [one.poison.key for one in dead] == [b"default/long", b"default/outside", b"default/zero"]
    assert all(one.poison.topic == "table:videos" and one.poison.value for one in dead)
    table.put(video("outside", 2), now)
    assert world.run()["outside"] == ("live", 2)


def test_a_version_that_shrinks_is_said_and_passed_over(table: ScannedTable, world: World, tmp_path: Path) -> None:
    table.put(video("a", 5), long_ago())
    world.run()
    table.put(video("a", 4, title="other"), long_ago(1))
    assert world.run() == {"a": ("live", 5)}
    (line,) = world.told
    assert "'a' has version 4, the index has seen 5: it is passed over; revision has to grow" in line
    with world.index() as index, pytest.raises(DataError, match="has revision 4, the index has seen 5"):
        look(world.source, Reading(root_at(tmp_path)), index.known)


def test_what_could_not_be_scored_is_judged_again_from_its_content(table: ScannedTable, world: World) -> None:
    table.put(video("a"), long_ago())
    score = world.score
    world.score = lambda videos: [  # type: ignore[method-assign]
        ScoredVideo(one.video_id, "icd", None, None, None, "none", "1-ab", error="missing") for one in videos
    ]
    world.run()
    world.score = score  # type: ignore[method-assign]
    with world.index() as index:
        (letter,) = index.dead_letters()
        assert contents.retry(index.database, {"a": 2}) == 0  # newer content came: no retry
        assert contents.retry(index.database, {letter.key: letter.source_version}) == 1
    assert world.run() == {"a": ("live", 1)}
    with world.index() as index:
        assert index.dead_letters() == []


def test_a_query_with_casts_and_a_changed_query(table: ScannedTable, world: World, tmp_path: Path) -> None:
    casts = {"sqlite": "CAST(path AS TEXT)", "mariadb": "CAST(path AS CHAR)"}
    cast = casts.get(table.engine.dialect.name, "path::text")
    columns = f"id, {cast} AS path, revision, changed_at"
    query = f"SELECT {columns} FROM videos WHERE title <> 'at 12:30 %s';"  # noqa: S608
    names = {"table": None, "deleted_at": None, "columns": Columns(video_id="id", uri="path")}
    world.source = table.source(tmp_path, query=query, **names)
    table.put(video("a"), long_ago(5))
    table.put(video("b", title="at 12:30 %s"), long_ago())
    assert set(world.run()) == {"a"}
    world.source = table.source(tmp_path, query=query.replace("12:30", "12:31"), **names)
    assert set(world.run()) == {"a", "b"}
    assert world.scored == ["a", "b"]
    world.source = table.source(tmp_path, query="DELETE FROM videos", **names)
    with pytest.raises(DataError, match=r"correct source\.url, table or columns"):
        world.run()
    assert table.count() == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": "nothing"}, "nothing"),
        ({"version": "nothing"}, "nothing"),
        ({"updated_at": "Nothing"}, "Nothing"),  # SQLite reads a quoted name that is none as a text
        ({"updated_at": "path"}, "expected a time"),
        ({"version": "title"}, "its rows make no events"),
    ],
)
def test_check_names_what_does_not_fit(
    table: ScannedTable, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    table.put(video("a", title="t"), long_ago())
    with pytest.raises(DataError, match="table:") as error:
        look(table.source(tmp_path, **changes), Reading(root_at(tmp_path)), lambda names: {})
    # SQLite's driver has one word for a table that is not there and one that cannot be read now
    assert table.engine.dialect.name == "sqlite" or not isinstance(error.value, UnavailableError)
    assert words in str(error.value)
    assert "not-shown" not in str(error.value)


def test_check_names_rows_that_are_lost_and_clocks_that_are_wrong(table: ScannedTable, tmp_path: Path) -> None:
    def looked() -> str:
        return look(table.source(tmp_path), Reading(root_at(tmp_path)), lambda names: {})

    assert "0 of 0 rows" in looked()
    table.put(video("a"), long_ago())
    assert "1 of 1 rows looked at are new to group vmp" in looked()
    table.put(video("b"), datetime.now(UTC) + timedelta(hours=8))
    with pytest.raises(DataError, match="lies in the future"):
        looked()
    with table.engine.begin() as connection:
        connection.execute(sa.text("UPDATE videos SET changed_at = NULL WHERE id = 'b'"))
    with pytest.raises(DataError, match="'b' and updated_at None would never be read"):
        looked()


def test_a_user_without_rights_is_told(postgres_url: str, tmp_path: Path) -> None:
    url = schema_of(postgres_url, "app")
    with scanned_table(url) as table:
        with table.engine.begin() as connection:
            connection.execute(sa.text("DROP ROLE IF EXISTS stranger"))
            connection.execute(sa.text("CREATE ROLE stranger LOGIN"))
            connection.execute(sa.text("GRANT USAGE ON SCHEMA app TO stranger"))
        source = table.source(tmp_path).model_copy(update={"url": url.replace("coefvq:not-shown", "stranger")})
        with pytest.raises(DataError, match=r"permission denied for table videos; .* or grant SELECT"):
            look(source, Reading(root_at(tmp_path)), lambda names: {})


def test_a_timestamp_of_mariadb_does_not_depend_on_the_server_s_zone(mariadb_url: str, tmp_path: Path) -> None:
    url = database_of(mariadb_url, "app")
    engine = sa.create_engine(with_driver(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stamped (id INT, path TEXT, revision INT, changed_at TIMESTAMP(6))")
        connection.exec_driver_sql("INSERT INTO stamped VALUES (1, 'a.mp4', 1, from_unixtime(1767225600.25))")
    engine.dispose()
    source = TableSource(kind="table", url=url, root=tmp_path, table="app.stamped", version="revision",
                         updated_at="changed_at", columns=Columns(video_id="id", uri="path"))  # fmt: skip
    reader = Table(source)
    (row,) = reader.page((), 5).rows
    assert row.changed_at == 1767225600.25
    assert reader.page(row.place, 5).rows == []
    assert abs(reader.page((), 1).read_at - datetime.now(UTC).timestamp()) < 3600
    reader.close()


def test_times_in_two_forms_are_refused(tmp_path: Path) -> None:
    with scanned_table(f"sqlite:///{tmp_path / 'app.sqlite'}") as table:
        for name, text in (("a", "2026-01-01T10:00:00+08:00"), ("b", "2026-01-01T09:00:00Z"), ("c", "2026-01-02")):
            table.put(video(name), long_ago())
            with table.engine.begin() as connection:
                connection.execute(
                    sa.text("UPDATE videos SET changed_at = :at WHERE id = :id"), {"at": text, "id": name}
                )
        reader = Table(table.source(tmp_path))
        with pytest.raises(DataError, match="not in the order of their times"):
            reader.page((), 10)
        reader.close()


def test_a_database_that_is_away_is_named(table: ScannedTable, tmp_path: Path) -> None:
    away = f"sqlite:///{tmp_path / 'none.sqlite'}"
    if table.engine.dialect.name == "postgresql":
        away = "postgresql://coefvq:not-shown@127.0.0.1:9/postgres"
    elif table.engine.dialect.name == "mariadb":
        away = "mariadb://coefvq:not-shown@127.0.0.1:9/app"
    reader = Table(table.source(tmp_path).model_copy(update={"url": away}))
    with pytest.raises(UnavailableError, match="start the database") as error:
        reader.page((), 1)
    reader.close()
    assert "not-shown" not in str(error.value)
    assert error.value.exit_code == DataError.exit_code


@pytest.mark.parametrize("once", [True, False])
def test_an_outage_ends_a_single_run_and_is_waited_for_by_others(
    tmp_path: Path, once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with scanned_table(f"sqlite:///{tmp_path / 'app.sqlite'}") as table:
        table.put(video("a"), long_ago())
        with TableStream(
            table.source(tmp_path), Reading(root_at(tmp_path)), lambda: (0, ""), lambda names: {}, lambda one: False,
            stop=threading.Event(), once=once, say=told.append,
        ) as stream:  # fmt: skip
            page = Table.page

            def away(*_: object) -> None:
                raise UnavailableError("the database is away")

            monkeypatch.setattr(Table, "page", away)
            if once:
                with pytest.raises(UnavailableError):
                    stream.take(3)
                return
            assert [stream.take(3), stream.take(3)] == [None, None]
            assert told == ["the database is away; trying again"]
            monkeypatch.setattr(Table, "page", page)
            batch = stream.take(3)
            assert batch is not None
            assert [event.video_id for event in batch.events] == ["a"]
            assert stream.take(3) is batch


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("2026-01-01 00:00:00.123", "v\u00e9'\"1"),
        (1767225600.1234567, 5_000_000_000),
        (datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC), "acme", UUID(int=7)),
        (Decimal("1767225600.123456789"), 7),
    ],
)
def test_a_mark_comes_back_exactly(place: tuple[object, ...]) -> None:
    text = mark_text(place, "t") if place else ""
    assert mark_place(text) == place
    assert [type(cell) for cell in mark_place(text)] == [type(cell) for cell in place]


@pytest.mark.parametrize("text", ['[{"datetime": "x"}]', "[{}]", "{bad", "5", '[{"os": "x"}]'])
def test_a_damaged_mark_is_named(text: str) -> None:
    with pytest.raises(DataError, match="stream_marks"):
        mark_place(text)


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("BIGINT", ["5", "5000000000", "6000000000"]),
        ("UUID", [str(UUID(int=number)) for number in (1, 2, 3)]),
        ("colour", ["red", "green", "blue"]),  # in the order of the type, not of the letters
    ],
)
def test_keys_of_any_type_go_on_where_a_page_ended(
    postgres_url: str, tmp_path: Path, kind: str, ids: list[str]
) -> None:
    url = schema_of(postgres_url, "app")
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TYPE colour AS ENUM ('red', 'green', 'blue')"))
        connection.execute(sa.text(f"CREATE TABLE keyed (id {kind}, path TEXT, revision INT, changed_at TIMESTAMPTZ)"))
        for name in ids:
            sql = f"INSERT INTO keyed VALUES ('{name}', 'a.mp4', 1, '2026-10-25 02:30:00.123456+01')"  # noqa: S608
            connection.execute(sa.text(sql))
    engine.dispose()
    source = TableSource(kind="table", url=url, root=tmp_path, table="app.keyed", version="revision",
                         updated_at="changed_at", columns=Columns(video_id="id", uri="path"))  # fmt: skip
    reader = Table(source)
    found, place = list[str](), ()
    while rows := reader.page(place, 1).rows:
        found.append(str(rows[0].place[1]))
        place = mark_place(mark_text(rows[0].place, "t"))
    reader.close()
    assert found == ids
