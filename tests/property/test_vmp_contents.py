"""The newest content of a stream's videos does not depend on how its events are cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.vmp.database import Database
from coefvq.vmp.index import open_index
from coefvq.vmp.records import Event
from coefvq.vmp.stores import contents
from coefvq.vmp.stores.tables import make_tables

IDS = ("a", "b")
EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(IDS),
        st.sampled_from(["upsert", "delete", "views"]),
        title=st.sampled_from(["one", "two"]),
        views=st.none() | st.integers(0, 3),
        source_version=st.integers(1, 3),
        offset=st.integers(0, 9),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with open_index(tmp_path_factory.mktemp("contents") / "index.sqlite") as index:
        index.database.connection.execute("PRAGMA synchronous = OFF")
        make_tables(index.database)
        yield index.database


def kept(database: Database, batches: Sequence[Sequence[Event]]) -> dict[str, Event]:
    with database.transaction() as connection:
        connection.execute("DELETE FROM stream_contents")
        for batch in batches:
            contents.write(connection, batch)
    return contents.newest(database, IDS)


@given(EVENTS, st.integers(0, 8))
@settings(max_examples=150, deadline=None)
def test_a_batch_keeps_what_its_events_keep_one_by_one(database: Database, events: list[Event], cut: int) -> None:
    one_by_one = kept(database, [[event] for event in events])
    assert kept(database, [events]) == one_by_one
    assert kept(database, [events[:cut], events[cut:]]) == one_by_one
    for video_id, found in one_by_one.items():
        written = [event for event in events if event.video_id == video_id and event.kind != "views"]
        highest = max(event.source_version for event in written)
        first = next(event for event in written if event.source_version == highest)
        assert (found.kind, found.title, found.offset) == (first.kind, first.title, first.offset)
        # views of before the first content are nobody's
        counts = [event.views for event in events[events.index(written[0]) :] if event.video_id == video_id]
        assert found.views == max((views for views in counts if views is not None), default=None)
