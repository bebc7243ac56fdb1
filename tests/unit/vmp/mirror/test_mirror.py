"""The copy in a real Redis reads as the index does: whatever happened, whoever wrote, whatever the server lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest

from coefvq.errors import ConfigError, DataError
from coefvq.vmp import feed
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.keys import DEFAULT, key
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.mirror import following, rows
from coefvq.vmp.mirror.following import Step, follow, take_step
from coefvq.vmp.mirror.redis_copy import RedisCopy, SilentError
from coefvq.vmp.overrides import override
from coefvq.vmp.records import Event
from coefvq.vmp.retention import compact, forget
from tests.redis_index import DURABLE, PREFIX, World, as_read, deletion, of_index, row, world
from tests.vmp_world import NOW, promote

TENANTS = (DEFAULT, "acme")


@pytest.fixture(scope="module")
def server() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def redis(server: World) -> World:
    """An empty server."""
    server.client.flushall()
    return server


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[EventLog, IndexStore]]:
    with open_log(tmp_path / "log.sqlite") as log, open_index(tmp_path / "index.sqlite") as index:
        yield log, index


def up_to_date(index: IndexStore, copy: RedisCopy, page: int = 3, anew: bool = False) -> tuple[list[str], int]:
    """Follow to the end; what was said, and how many rows were written."""
    said: list[str] = []
    steps: list[Step] = []
    follow(index.database, copy, stop=Flag(), once=True, anew=anew, interval=0.01, say=said.append,
           on_step=steps.append, page=page)  # fmt: skip
    assert (steps[-1].idle, steps[-1].lag) == (True, 0)
    return said, sum(step.written for step in steps)


def random_change(rng: random.Random, log: EventLog, index: IndexStore, folder: Path, decision: int) -> int:
    """One of the things that change an index; the epoch after it."""
    names = [key(tenant, f"v/{number}") for tenant in TENANTS for number in range(6)]
    epoch = index.database.query("SELECT coalesce(max(epoch), 0) FROM deployments")[0][0]
    kind = rng.choice(["write"] * 6 + ["delete", "override", "release", "forget", "compact"])
    name = rng.choice(names)
    known = index.known([name]).get(name)
    try:
        if kind == "write":
            chosen = rng.sample(names, rng.randrange(1, 4))
            index.revise([row(one, epoch, rng.randrange(1, 9), f"title {rng.random()}") for one in chosen], "x")
        elif kind == "delete":
            index.revise([deletion(name, epoch, rng.randrange(1, 9))], "x")
        elif kind == "override" and known is not None:
            log.publish([Event(name, uri="/a", sha256=f"{rng.random()}")])
            override(log, index, name, rng.choice(["live", "removed", "model"]), "ana", "why", NOW)
        elif kind == "release":
            withdrawn = [f"{epoch}-x"] if rng.random() < 0.5 else []
            return promote(index, decision, f"{epoch + 1}-x", *withdrawn)
        elif kind == "forget":
            forget(folder, log, index, [name], NOW)
        elif kind == "compact":
            index.apply([], "vmp", log.last_offset())
            compact(folder, log, index, NOW + timedelta(days=9), timedelta(0), timedelta(days=8))
    except DataError as error:
        if "video '" not in str(error):  # there is no such video, it is deleted, or nobody overrode it
            raise
    return epoch


@pytest.mark.parametrize("seed", range(2))
def test_a_copy_that_follows_reads_as_the_index(
    seed: int, redis: World, index_place: Path | str, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        promote(index, 1, "1-x")
        for number in range(45):
            random_change(rng, log, index, tmp_path, number + 2)
            if rng.random() < 0.5:  # as if killed after any step: nothing is kept but in the server
                for _ in range(rng.randrange(4)):
                    take_step(index.database, redis.copy, 2)
            if rng.random() < 0.1:
                up_to_date(index, redis.copy)
                assert as_read(redis.rows()) == of_index(index, TENANTS)
        up_to_date(index, redis.copy)
        assert as_read(redis.rows()) == of_index(index, TENANTS)
        live = {name for name, fields in redis.rows().items() if fields["state"] == "deleted"}
        assert {name.removeprefix(PREFIX) for name in redis.client.zrange(f"{PREFIX}@deleted", 0, -1)} == live
        assert up_to_date(index, redis.copy) == ([], 0)


def test_a_mirror_that_slept_changes_nothing(
    redis: World, state: tuple[EventLog, IndexStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, index = state
    epoch = promote(index, 1, "1-x")
    index.revise([row(name, epoch) for name in "abc"], "x")
    up_to_date(index, redis.copy)
    index.revise([row("a", epoch, 2)], "x")
    real_rows, old = rows.since, rows.since(index.database, redis.copy.place().since, 9)
    index.revise([deletion("a", epoch, 3), row("b", epoch, 2)], "x")
    up_to_date(index, redis.copy)
    before, place = redis.rows(), redis.copy.place()
    # it wakes with the page that it read before, and with where the copy stood then
    slept = replace(place, turn=place.turn - 1)
    assert redis.copy.apply(slept, old, following._moved(slept, since=old[-1].number)) is None
    assert redis.copy.drop(slept, [("a", int(before["default/a"]["number"]))]) is None
    assert redis.copy.sweep(slept) is None
    # and the rows' own guard refuses them where the place is right
    monkeypatch.setattr(rows, "since", lambda *_: old)
    assert redis.copy.apply(place, old, following._moved(place)) == 0
    monkeypatch.setattr(rows, "since", real_rows)
    assert redis.copy.drop(redis.copy.place(), [("a", 1)]) == 0  # a tombstone of another change
    assert redis.rows() == before
    assert before["default/a"]["state"] == "deleted"


def test_a_building_that_was_asked_for_is_begun_though_another_mirror_was_faster(
    redis: World, state: tuple[EventLog, IndexStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, index = state
    index.revise([row("a", promote(index, 1, "1-x"))], "x")
    up_to_date(index, redis.copy)
    apply, lost = redis.copy.apply, [True]
    monkeypatch.setattr(redis.copy, "apply", lambda *words: None if lost and lost.pop() else apply(*words))
    assert up_to_date(index, redis.copy, anew=True) == (["the mirror is built anew: asked for"], 1)
    assert lost == []


def test_only_rows_of_this_mirror_are_ever_removed(redis: World, state: tuple[EventLog, IndexStore]) -> None:
    _, index = state
    epoch = promote(index, 1, "1-x")
    redis.client.hset(f"{PREFIX}default/theirs", "reputation", "0.3")
    redis.client.set(f"{PREFIX}text", "x")
    index.revise([row(name, epoch) for name in "abc"], "x")
    assert up_to_date(index, redis.copy) == (["the mirror is built anew: the server holds none"], 3)
    said, written = up_to_date(index, redis.copy, anew=True)
    assert (said, written) == (["the mirror is built anew: asked for"], 3)
    redis.client.hset(f"{PREFIX}default/old", mapping={"generation": "before", "number": "4"})
    up_to_date(index, redis.copy, anew=True)
    assert redis.client.exists(f"{PREFIX}default/theirs", f"{PREFIX}text", f"{PREFIX}default/old") == 2
    redis.client.hset(f"{PREFIX}@place", "turn", "many")
    with pytest.raises(DataError, match="no place of a mirror"):
        up_to_date(index, redis.copy)


def test_what_was_forgotten_is_in_no_row(redis: World, state: tuple[EventLog, IndexStore], tmp_path: Path) -> None:
    log, index = state
    log.publish([Event("a", uri="/a", sha256="a")])
    index.revise([row("a", promote(index, 1, "1-x"), title="her name")], "x")
    up_to_date(index, redis.copy)
    override(log, index, "a", "removed", "ana", "her reason", NOW)
    up_to_date(index, redis.copy)
    assert "her reason" in redis.rows()["default/a"]["override"]
    forget(tmp_path, log, index, ["a"], NOW)
    up_to_date(index, redis.copy)
    (left,) = redis.rows().values()
    assert "her" not in str(left)
    assert (left["state"], left["value"], left["source_version"]) == ("deleted", "{}", "2")


def test_deletions_that_were_compacted_away_unseen(
    redis: World, state: tuple[EventLog, IndexStore], tmp_path: Path
) -> None:
    log, index = state
    epoch = promote(index, 1, "1-x")
    index.revise([row(name, epoch) for name in "abcd"], "x")
    up_to_date(index, redis.copy)
    place = redis.copy.place()
    index.revise([deletion("a", epoch, 2), row("b", epoch, 2)], "x")
    compact(tmp_path, log, index, NOW + timedelta(days=9), timedelta(0), timedelta(days=8))
    assert index.get("a") is None
    said, _ = up_to_date(index, redis.copy)
    assert said == ["the mirror is built anew: deletions that it had not seen were compacted away"]
    assert redis.copy.place().generation != place.generation
    assert set(redis.rows()) == {f"default/{name}" for name in "bcd"}
    # a deletion that it has seen goes without a new building
    index.revise([deletion("c", epoch, 2), deletion("d", epoch, 2)], "x")
    up_to_date(index, redis.copy)
    compact(tmp_path, log, index, NOW + timedelta(days=9), timedelta(0), timedelta(days=8))
    index.revise([row("d", epoch, 1)], "x")  # a new video of that name
    assert up_to_date(index, redis.copy) == ([], 1)
    assert as_read(redis.rows()) == of_index(index)
    assert set(redis.rows()) == {"default/b", "default/d"}


def test_another_index_and_an_older_copy_of_this_one(redis: World, tmp_path: Path) -> None:
    def check(place: Path, reason: str | None, build: Callable[[IndexStore], Any]) -> None:
        with open_index(place) as index:
            build(index)
            said, _ = up_to_date(index, redis.copy)
            assert said == ([] if reason is None else [f"the mirror is built anew: {reason}"])
            assert as_read(redis.rows()) == of_index(index)

    def write(*names: str, version: int = 1) -> Callable[[IndexStore], Any]:
        return lambda index: index.revise([row(name, 1, version) for name in names], "x")

    def begin(when: str) -> Callable[[IndexStore], None]:
        def made(index: IndexStore) -> None:
            promote(index, 1, "1-x")
            with index.database.transaction() as connection:
                connection.execute("UPDATE deployments SET issued_at = ?", (when,))
            write("a", "b", "c")(index)

        return made

    first, older, other = (tmp_path / f"{name}.sqlite" for name in ("first", "older", "other"))
    check(first, "the server holds none", begin("2026-01-01T00:00:00Z"))
    with open_index(first):
        shutil.copy(first, older)
    shutil.copy(older, tmp_path / "grown.sqlite")
    check(first, None, write("d", "e"))
    check(older, "the index is an older copy", lambda index: None)
    check(first, None, write("f"))  # all that the older one had is in it
    # a copy that has as many changes by now, but others
    check(tmp_path / "grown.sqlite", "the index is an older copy", write("u", "v", "w", "x"))
    check(other, "it is of another index", begin("2026-01-02T00:00:00Z"))


def test_an_index_without_a_verdict_is_waited_for(redis: World, state: tuple[EventLog, IndexStore]) -> None:
    _, index = state
    assert up_to_date(index, redis.copy) == ([], 0)
    assert redis.copy.place() is None


@pytest.mark.parametrize(("settings", "durable", "words"), [
    ((), True, "appendonly is no: after a crash it would show older verdicts"),
    (("--appendonly", "yes"), True, "appendfsync is everysec"),
    ((*DURABLE, "--no-appendfsync-on-rewrite", "yes"), True, "no-appendfsync-on-rewrite is yes"),
    (("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"), False, "allkeys-lru drops rows"),
    ((*DURABLE, "--rename-command", "CONFIG", ""), True, "appendonly is not shown"),
    ((*DURABLE, "--requirepass", "s3cret"), True, "correct the user or password"),
    ((), False, None),
    ((*DURABLE, "--maxmemory", "10mb", "--maxmemory-policy", "volatile-lru"), True, None),
    (("--rename-command", "CONFIG", ""), False, None),
])  # fmt: skip
def test_servers_that_may_lose_rows_are_refused(
    settings: tuple[str, ...], durable: bool, words: str | None, state: tuple[EventLog, IndexStore]
) -> None:
    _, index = state
    promote(index, 1, "1-x")
    with world(*settings, durable=durable) as made:
        if words is None:
            up_to_date(index, made.copy)
            return
        with pytest.raises(ConfigError, match=words):
            up_to_date(index, made.copy)


def test_a_server_without_a_log_is_killed(state: tuple[EventLog, IndexStore]) -> None:
    """Its memory is gone, or it comes back with an older dump: the copy is the index again."""
    _, index = state
    epoch = promote(index, 1, "1-x")
    index.revise([row(name, epoch) for name in "abcde"], "x")
    with world() as made:
        up_to_date(index, made.copy)
        made.restart()
        assert made.rows() == {}
        assert up_to_date(index, made.copy) == (["the mirror is built anew: the server holds none"], 5)
        assert as_read(made.rows()) == of_index(index)
        made.client.save()
        index.revise([row("a", epoch, 2), deletion("b", epoch, 2)], "x")
        up_to_date(index, made.copy)
        index.revise([deletion("c", epoch, 2)], "x")
        made.restart()
        assert made.rows()["default/b"]["state"] == "live"  # the dump
        assert up_to_date(index, made.copy) == ([], 3)
        assert as_read(made.rows()) == of_index(index)


def test_a_durable_server_is_killed_in_the_middle(state: tuple[EventLog, IndexStore]) -> None:
    _, index = state
    epoch = promote(index, 1, "1-x")
    index.revise([row(f"v{number}", epoch) for number in range(12)], "x")
    with world(*DURABLE, durable=True) as made:
        written = 0
        for number in range(6):
            index.revise([row("v0", epoch, number + 2), deletion(f"v{number + 1}", epoch, 2)], "x")
            written += take_step(index.database, made.copy, 3).written
            place, kept = made.copy.place(), made.rows()
            made.restart()
            assert (made.copy.place(), made.rows()) == (place, kept)
        assert written > 0
        said, _ = up_to_date(index, made.copy)
        assert said == []
        assert as_read(made.rows()) == of_index(index)


def test_a_server_that_is_down_is_waited_for(tmp_path: Path) -> None:
    place, said, done = tmp_path / "index.sqlite", list[str](), list[Step]()
    silent, whole, stop = Flag(), Flag(), Flag()

    def say(line: str) -> None:
        said.append(line)
        if "waiting for it" in line:
            silent.set()

    def on_step(step: Step) -> None:
        done.append(step)
        if step.idle and step.cursor == 44:
            whole.set()

    def run(url: str) -> None:
        copy = RedisCopy(url, PREFIX, durable=True)
        with open_index(place) as index:
            follow(index.database, copy, stop=stop, once=False, anew=False, interval=0.02, say=say, on_step=on_step)
        copy.close()

    with open_index(place) as index, world(*DURABLE, durable=True) as made:
        epoch = promote(index, 1, "1-x")
        index.revise([row(name, epoch) for name in "abcd"], "x")
        thread = Thread(target=run, args=(made.url,))
        thread.start()
        try:
            made.server.kill()
            assert silent.wait(60)
            for number in range(40):
                index.revise([row(f"v{number % 7}", epoch, number + 1)], "x")
            with pytest.raises(SilentError, match=r"start the server, or correct serve\.url"):
                up_to_date(index, made.copy)
            made.server.start()
            assert whole.wait(60)
        finally:
            stop.set()
            thread.join()
        assert as_read(made.rows()) == of_index(index)
        # what nobody read while it was down was written once
        assert sum(step.written for step in done) <= 4 + 7 + 4
    assert [line for line in said if "waiting for it" in line] != []
    assert said[-1] in ("the mirror's server answers again", "the mirror is built anew: the server holds none")


def test_a_server_without_memory_takes_the_rest_later(state: tuple[EventLog, IndexStore]) -> None:
    _, index = state
    epoch = promote(index, 1, "1-x")
    index.revise([row(f"v{number}", epoch, title="long" * 25_000) for number in range(40)], "x")
    with world("--maxmemory", "3mb") as made:
        with pytest.raises(SilentError, match="maxmemory"):
            up_to_date(index, made.copy, page=2)
        assert 0 < len(made.rows()) < 40
        made.client.config_set("maxmemory", "0")
        said, written = up_to_date(index, made.copy, page=2)
        assert (said, written < 40) == ([], True)
        assert as_read(made.rows()) == of_index(index)


def test_the_feed_of_the_index_agrees(state: tuple[EventLog, IndexStore]) -> None:
    _, index = state
    epoch = promote(index, 1, "1-x")
    index.revise([row(name, epoch) for name in "abc"], "x")
    page = feed.read(index.database, 1, 9)
    assert [(one.number, one.entry.video_id) for one in page.changes] == [
        (one.number, one.key) for one in rows.since(index.database, 1, 9)
    ]
    assert rows.head(index.database).newest == feed.newest(index.database) == 3
