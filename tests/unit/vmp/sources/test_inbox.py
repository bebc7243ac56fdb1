"""The inbox over a stream in memory: what others stored meanwhile, an index that went back, too much poison."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.records import Event
from coefvq.vmp.retention import forget
from coefvq.vmp.sources.batches import Batch, Poison, Span, place
from coefvq.vmp.sources.inbox import Inbox, PoisonShare
from coefvq.vmp.state import open_state
from coefvq.vmp.stores import contents, poison, positions
from coefvq.vmp.stores.tables import make_tables
from tests.vmp_world import NOW, fixed


def accept(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
    return [ScoredVideo(video.video_id, "icd", 0.1, None, False, "base", "1-ab") for video in videos]


def event(name: str, offset: int, version: int = 1, partition: int = 0, **facts: object) -> Event:
    return Event(name, uri=f"/{name}.mp4", source_version=version, offset=place(partition, offset), **facts)


@dataclass
class Pieces:
    """A stream of given batches."""

    batches: list[Batch]
    name: str = "videos"
    settled: int = 0

    def take(self, limit: int) -> Batch | None:
        return self.batches[self.settled] if self.settled < len(self.batches) else None

    def settle(self) -> None:
        self.settled += 1


@pytest.fixture
def index(index_place: Path | str) -> Iterator[IndexStore]:
    with open_index(index_place) as opened:
        make_tables(opened.database)
        yield opened


def run(pieces: Pieces, index: IndexStore, **parts: object) -> Inbox:
    inbox = Inbox(pieces, index, "group", lambda: NOW, **parts)
    loop.run(inbox, fixed(accept), inbox, stop=threading.Event(), on_batch=lambda report: None, once=True,
             batch_size=10, clock=lambda: NOW)  # fmt: skip
    return inbox


def stored(index: IndexStore) -> dict[int, int]:
    with index.database.reading() as connection:
        return positions.read(connection, "group", "videos")


def batch(*events: Event, dead: Sequence[Poison] = (), start: int | None = None, end: int) -> Batch:
    return Batch(events, tuple(dead), {0: Span(start, end)})


def test_rows_positions_contents_and_dead_events_are_stored_together(index: IndexStore) -> None:
    dead = Poison("videos", 0, 1, "no JSON", b"k", b"\x00\xff", (("h", b"v"), ("none", None)), 5.0)
    pieces = Pieces([batch(event("a", 0, views=3), dead=[dead], end=2), batch(event("a", 2, 2), start=2, end=3)])
    run(pieces, index)
    assert pieces.settled == 2
    assert stored(index) == {0: 3}
    assert index.get("a").source_version == 2
    assert contents.newest(index.database, ["a", "b"]) == {"a": event("a", 2, 2, views=3)}
    found = poison.find(index.database, "videos/0/1")
    assert found is not None
    assert found.poison == dead
    assert poison.read(index.database) == [found]


def test_what_another_worker_stored_meanwhile_has_no_second_effect(index: IndexStore, index_place: Path | str) -> None:
    whole = batch(event("a", 0), event("b", 1), event("c", 2), end=3)
    slow = Pieces([whole])

    def overtaken(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        """While this worker scores three messages, another one stores the first two."""
        with open_index(index_place) as other:
            run(Pieces([batch(event("a", 0), event("b", 1), end=2)]), other)
        return accept(videos)

    inbox = Inbox(slow, index, "group", lambda: NOW)
    loop.run(inbox, fixed(overtaken), inbox, stop=threading.Event(), on_batch=lambda report: None, once=True,
             batch_size=10, clock=lambda: NOW)  # fmt: skip
    rows = index.database.query("SELECT video_id, count(*) FROM effects GROUP BY video_id ORDER BY video_id")
    assert rows == [("a", 1), ("b", 1), ("c", 1)]
    assert stored(index) == {0: 3}


def test_positions_that_move_within_the_transaction_make_it_look_again(
    index: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker commits between the look and the transaction."""
    read, calls = positions.read, []

    def late(*arguments: object) -> dict[int, int]:
        found = read(*arguments)
        calls.append(found)
        if len(calls) == 1:
            with index.database.transaction() as connection:
                positions.advance(connection, "group", "videos", {0: Span(0, 1)}, {})
        return found

    monkeypatch.setattr(positions, "read", late)
    run(Pieces([batch(event("a", 0), event("b", 1), end=2)]), index)
    assert index.get("a") is None
    assert index.get("b") is not None


def test_an_index_that_went_back_is_refused(index: IndexStore) -> None:
    with pytest.raises(DataError, match="read up to offset 0, this run up to 5: it was replaced"):
        run(Pieces([batch(event("a", 5), start=5, end=6)]), index)
    assert index.get("a") is None


def test_a_dead_letter_topic_that_is_down_stops_the_run_before_anything_is_stored(index: IndexStore) -> None:
    def down(found: Sequence[Poison]) -> None:
        raise DataError("topic dead: no broker answers")

    pieces = Pieces([batch(event("a", 0), dead=[Poison("videos", 0, 1, "bad")], end=2)])
    with pytest.raises(DataError, match="no broker answers"):
        run(pieces, index, forward=down)
    assert (pieces.settled, stored(index), index.get("a")) == (0, {}, None)
    run(pieces, index)
    assert stored(index) == {0: 2}


@dataclass
class Mixed:
    """Batches of ten messages, of which ``bad`` are no events."""

    bad: int
    batches: list[Batch] = field(default_factory=list)

    def add(self, number: int) -> Batch:
        first = number * 10
        dead = [Poison("videos", 0, first + at, "not JSON") for at in range(self.bad)]
        good = [event(f"v{first + at}", first + at) for at in range(self.bad, 10)]
        return batch(*good, dead=dead, end=first + 10)


@pytest.mark.parametrize(("bad", "stops"), [(2, False), (3, True), (10, True)])
def test_more_than_the_allowed_share_of_poison_stops_the_run(index: IndexStore, bad: int, stops: bool) -> None:
    pieces = Pieces([Mixed(bad).add(number) for number in range(30)])
    if not stops:
        run(pieces, index)
        assert stored(index) == {0: 300}
        return
    with pytest.raises(
        DataError, match=rf"videos: {bad * 5} of the last 50 messages are no events \(limit: 20%\).*not J"
    ):
        run(pieces, index)
    assert stored(index) == {0: 40}  # the batch that crossed the line is not acknowledged


def test_the_share_looks_at_the_last_messages_only() -> None:
    share = PoisonShare(0.2, 100)
    for number in range(20):
        share.add("videos", Mixed(0).add(number))
    for number in range(2):
        share.add("videos", Mixed(10).add(number))
    with pytest.raises(DataError, match="30 of the last 100 messages"):
        share.add("videos", Mixed(10).add(2))


def test_a_forgotten_video_of_a_stream_leaves_a_tombstone_alone(tmp_path: Path) -> None:
    with open_state(tmp_path) as (log, index):
        make_tables(index.database)
        run(Pieces([batch(event("a", 0, 3, title="private"), event("b", 1), end=2)]), index)
        assert log.newest(["a"])["a"].title == "private"
        assert forget(tmp_path, log, index, ["a"], NOW).videos == 1
        assert log.newest(["a", "b"]) == {"b": event("b", 1)}
        assert (index.get("a").state, index.get("a").source_version, index.get("a").value) == ("deleted", 3, {})
        # an old event stays away, a newer publication comes in
        run(Pieces([batch(event("a", 2, 2), start=2, end=3)]), index)
        assert index.get("a").state == "deleted"
        run(Pieces([batch(event("a", 3, 4), start=3, end=4)]), index)
        assert index.get("a").state == "live"
