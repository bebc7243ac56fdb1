"""Publishing streams: transactions of a batch, each file hashed once, room for a second publisher."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coefvq.data import locations
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.media.probe import probe_all
from coefvq.data.media.probe_cache import open_cache
from coefvq.errors import DataError
from coefvq.files import sha256_json
from coefvq.vmp import log as log_module
from coefvq.vmp import log_rows, publications
from coefvq.vmp.log import open_log
from coefvq.vmp.log_rows import content_digest, same_content
from coefvq.vmp.publications import HASHES, read_events
from coefvq.vmp.records import Event

ROWS = 25
BATCH = 10


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "BATCH", BATCH)
    monkeypatch.setattr(publications, "BATCH", BATCH)


def table(folder: Path, rows: int = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    names = [f"{number:03d}.mp4" for number in range(rows)]
    for name in names:
        (folder / name).write_text(name)
    lines = [f"{name},v{name},title {name},{number}" for number, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,video_id,title,views", *lines, ""]))
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Files that were read to be hashed."""
    found: Counter[str] = Counter()

    def counting(path: str) -> tuple[str, str]:
        found[Path(path).name] += 1
        return locations.sha256_and_stamp(path)

    monkeypatch.setattr(publications, "sha256_and_stamp", counting)
    return found


def test_each_batch_is_a_transaction_and_a_second_publisher_comes_between(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with open_log(path) as log, open_log(path) as other:

        def events() -> Iterator[Event]:
            for number in range(ROWS):
                # asked for between the transactions of this publisher: the lock must be free
                yield Event(f"a{number}")
                if number % BATCH == BATCH // 2:
                    assert other.publish([Event(f"b{number}")])
                assert log.last_offset() >= number // BATCH * BATCH

        assert log.publish_all(events()) == (ROWS, ROWS)
        assert log.last_offset() == ROWS + 2
        assert log.publish_all(Event(f"a{number}") for number in range(ROWS)) == (ROWS, 0)


def test_a_row_that_does_not_fit_leaves_the_batches_before_it(tmp_path: Path) -> None:
    folder = table(tmp_path / "raw")
    with (folder / "metadata.csv").open("a") as stream:
        stream.write("../outside.mp4,vx,title,1\n")
    (tmp_path / "outside.mp4").write_text("x")
    with open_log(tmp_path / "log.sqlite") as log:
        with pytest.raises(DataError, match=f"row {ROWS + 2}: "):
            log.publish_all(read_events(folder))
        assert log.last_offset() == 2 * BATCH
        table(folder)
        assert log.publish_all(read_events(folder)) == (ROWS, ROWS - 2 * BATCH)


def test_a_disk_that_fills_while_publishing_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    events = [Event(f"a{number}", title="long " * 400) for number in range(ROWS)]
    with open_log(tmp_path / "log.sqlite") as log:
        connection = log.database.connection
        # SQLite's own word for a full disk; the first batch fits
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 12}")
        with pytest.raises(DataError, match=r"full; expected .*free the lock or disk") as caught:
            log.publish_all(events)
        assert "\n" not in str(caught.value)
        assert log.last_offset() == BATCH
    with open_log(tmp_path / "log.sqlite") as log:
        assert log.publish_all(events) == (ROWS, ROWS - BATCH)
        assert [event.video_id for event in log.poll(0, 100)] == [event.video_id for event in events]


def test_a_table_without_files_is_refused_before_its_first_event(tmp_path: Path) -> None:
    folder = table(tmp_path / "raw")
    events = read_events(folder / "metadata.csv", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"none of its first 10 files is below .*pass --root"):
        next(events)


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, hashed: Counter[str]) -> None:
    folder = table(tmp_path / "raw")
    read: Callable[[Any], list[Event]] = lambda cache: list(read_events(folder, hashes=cache))  # noqa: E731
    with open_cache(tmp_path / "cache", HASHES) as cache:
        first = read(cache)
        assert sum(hashed.values()) == ROWS
        assert read(cache) == first
        assert sum(hashed.values()) == ROWS
    (folder / "003.mp4").write_text("another")
    os.utime(folder / "004.mp4", (1, 1))
    with open_cache(tmp_path / "cache", HASHES) as cache:
        again = read(cache)
    assert {name: count for name, count in hashed.items() if count > 1} == {"003.mp4": 2, "004.mp4": 2}
    assert [one.video_id for one, other in zip(again, first, strict=True) if one != other] == ["v003.mp4"]
    assert list(read_events(folder)) == again, "as without a cache"


def test_a_file_that_ingest_has_hashed_is_not_opened(tmp_path: Path, hashed: Counter[str]) -> None:
    folder, cache = table(tmp_path / "raw", 3), tmp_path / "cache"
    list(probe_all(["000.mp4", "001.mp4", "002.mp4"], folder, limits=DEFAULT_LIMITS, workers=1, cache=cache))
    os.utime(folder / "001.mp4", (1, 1))
    with open_cache(cache, HASHES) as kept:
        # two hashes under one stamp: neither is believed
        kept.put(str(folder / "002.mp4"), locations.file_stamp((folder / "002.mp4").stat()), {"sha256": "0" * 64})
        found = list(read_events(folder, hashes=kept))
    assert sorted(hashed) == ["001.mp4", "002.mp4"]
    assert found == list(read_events(folder)), "as without a cache"


@given(
    st.builds(
        Event, st.text(), uri=st.text(), title=st.text(), stickers=st.lists(st.text(), max_size=2).map(tuple),
        sha256=st.none() | st.text(), published_at=st.none() | st.text(), creator_id=st.none() | st.text(),
        duration_s=st.none() | st.integers(0, 9) | st.floats(allow_nan=False, allow_infinity=False),
        views=st.none() | st.integers(0),
    )
)  # fmt: skip
def test_the_digest_of_an_event_is_that_of_its_canonical_json(event: Event) -> None:
    content = vars(event) | {"views": None, "offset": 0, "source_version": 0}
    later = ("creator_id", "duration_s")
    digest = sha256_json({name: cell for name, cell in content.items() if cell is not None or name not in later})
    assert content_digest(event) == digest
    assert log_rows._digest(event) == sha256_json([digest, "upsert", event.views])


def test_the_digest_of_content_is_over_every_field_but_the_logs_own() -> None:
    event = Event("a", uri="/a.mp4", title="ü", stickers=("x", "y"), views=3, sha256="aa", source_version=4, offset=9)
    plain = asdict(replace(event, views=None, offset=0, source_version=0))
    # events of before these fields keep their digests
    first = {name: value for name, value in plain.items() if name not in ("creator_id", "duration_s")}
    assert content_digest(event) == sha256_json(first)
    known = {"creator_id": "ana", "duration_s": 2.5}
    assert content_digest(replace(event, creator_id="ana", duration_s=2.5)) == sha256_json(first | known)


CONTENT = {"uri": "/b.mp4", "title": "other", "stickers": ("z",), "sha256": "bb", "published_at": "2026-01-01",
           "creator_id": "bea", "duration_s": 3.5}  # fmt: skip


@pytest.mark.parametrize("change", [*({name: value} for name, value in CONTENT.items()), {"kind": "delete"},
                                    {"kind": "views", "views": 9}, {"source_version": 7, "offset": 8}])  # fmt: skip
def test_same_content_is_the_same_digest(change: dict[str, Any]) -> None:
    event = Event("a", uri="/a.mp4", title="t", stickers=("x",), views=3, sha256="aa")
    other = replace(event, **change)
    assert same_content(event, other) == (content_digest(event) == content_digest(other))
    assert same_content(other, replace(other, views=5))
