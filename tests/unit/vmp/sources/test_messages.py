"""Messages of strangers: what fits becomes an event, everything else says in one line why it does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coefvq.data.locations import root_at
from coefvq.errors import DataError
from coefvq.vmp.keys import key as key_of
from coefvq.vmp.records import Event
from coefvq.vmp.sources.batches import partition_and_offset, place
from coefvq.vmp.sources.messages import Reading, encode, message_key

GOOD = {"schema": 1, "video_id": "a", "kind": "upsert", "source_version": 3, "uri": "clips/a.mp4"}


def value(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


BAD = [
    (b"{bad", "not JSON"),
    (b"\xff\xfe", "not UTF-8 at byte 0"),
    (b"[]", "expected an object, got list"),
    (b"[" * 100_000, "nested deeper"),
    (b'{"schema": 1, "schema": 1}', "comes twice"),
    (None, "a deletion is an event of kind delete"),
    (value(schema=2), "schema = 2: this version of coefvq reads 1"),
    (value(schema=True), "schema = True"),
    (value(title="x" * 10_000_000), "bytes, at most 1048576 are read"),
    (value(title="x" * 200_000), "title"),
    (value(title="a\x00b"), "zero byte"),
    (json.dumps(GOOD).encode().replace(b'"a"', b'"\\ud800"'), "surrogate"),
    (value(tenant="two words"), "tenant"),
    (value(video_id="acme\x1fa"), "U+001F"),
    (value(source_version=0), "source_version"),
    (value(source_version="3"), "source_version"),
    (value(source_version=2**63), "source_version"),
    (value(uri=""), "an upsert names a file"),
    (value(uri="../../etc/passwd"), "uri"),
    (value(uri="http://127.0.0.1/a.mp4"), "uri"),
    (value(kind="moved"), "kind"),
    (value(kind="views"), "has a count"),
    (value(published_at="yesterday"), "published_at"),
    (value(published_at="2026-01-01T00:00:00"), "UTC offset"),
    (value(duration_s=-1), "duration_s"),
    (value(colour="red"), "colour"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_does_not_fit_is_no_event(message: bytes | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        Reading(root_at(tmp_path)).event(None, message, (), 7)
    assert reason in str(error.value)
    assert len(str(error.value)) < 400


def test_a_key_of_another_tenant_or_video_is_refused(tmp_path: Path) -> None:
    reading = Reading(root_at(tmp_path))
    assert reading.event(message_key("a"), value(), (), 7).video_id == "a"
    acme = key_of("acme", "a")
    assert message_key(acme) == b"acme/a"
    assert reading.event(message_key(acme), value(tenant="acme"), (), 7).video_id == acme
    for key in (b"other/a", b"default/b", b"\xff"):
        with pytest.raises(DataError, match="is not the event's"):
            reading.event(key, value(), (), 7)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\x1f"), min_size=1, max_size=20)
EVENTS = st.builds(
    Event,
    video_id=st.builds(key_of, st.sampled_from(["default", "acme"]), IDS),
    kind=st.just("upsert"),
    uri=st.just("clips/a.mp4"),
    title=TEXTS,
    stickers=st.lists(TEXTS, max_size=3).map(tuple),
    views=st.none() | st.integers(0, 2**60),
    sha256=st.none() | st.just("ab" * 32),
    published_at=st.none() | st.just("2026-01-01T00:00:00+00:00"),
    source_version=st.integers(1, 2**60),
    creator_id=st.none() | TEXTS.filter(bool),
    duration_s=st.none() | st.floats(0.1, 1e6),
)


@given(event=EVENTS, partition=st.integers(0, 2**15 - 1), offset=st.integers(0, 2**48 - 1))
def test_an_event_comes_back_from_its_message(event: Event, partition: int, offset: int) -> None:
    at = place(partition, offset)
    read = Reading(root_at(Path("/clips"))).event(None, encode(event, event.uri), (), at)
    assert read == Event(**(vars(event) | {"uri": "/clips/clips/a.mp4", "offset": at}))
    assert partition_and_offset(read.offset) == (partition, offset)


KEYS = st.sampled_from(["schema", "video_id", "kind", "source_version", "uri", "title", "stickers", "views", "tenant",
                        "sha256", "published_at", "creator_id", "duration_s", "schema_version", "colour"])  # fmt: skip
VALUES = st.sampled_from(["1", "true", "null", "1.0", "2.5", "-0", "1e400", "NaN", "9" * 1001, '"a"', '""', '"upsert"',
                          '"views"', '"clips/a.mp4"', '"a\tb"', '"a\x00b"', "'a'", '["a", "b"]', '["a", 1]', "[]",
                          '[["a"]]', '{"a": 1, "a": 2}', '"2026-01-01T00:00:00+00:00"', f'"{"ab" * 32}"'])  # fmt: skip
WHOLE = {"schema": "1", "video_id": '"a"', "kind": '"upsert"', "source_version": "3", "uri": '"clips/a.mp4"'}


@given(
    st.dictionaries(KEYS, VALUES, max_size=3),
    st.lists(st.tuples(KEYS, VALUES), max_size=2),
    st.sampled_from(["", " ", "\n", "\ufeff", "]", ","]),
)
def test_a_message_that_is_read_once_is_what_a_careful_reading_makes_of_it(
    changes: dict[str, str], more: list[tuple[str, str]], end: str
) -> None:
    reading = Reading(root_at(Path("/clips")))

    def outcome(spelling: str) -> object:
        pairs = ", ".join(
            f'"{spelling.format(ord(key[0]))}{key[1:]}": {value}' for key, value in [*(WHOLE | changes).items(), *more]
        )
        try:
            return reading.event(None, f"{{{pairs}}}{end}".encode(), (), 7)
        except DataError as error:
            # places differ by the escapes
            return re.sub(r"\d+", "", str(error))

    # a text with escapes is parsed by our own reading first, which refuses a key that comes twice
    assert outcome("{:c}") == outcome("\\u{:04x}")


def test_places_keep_the_order_within_a_partition_and_refuse_what_does_not_fit() -> None:
    assert place(3, 7) < place(3, 8) < place(4, 0)
    for partition, offset in ((-1, 0), (2**15, 0), (0, 2**48), (0, -1)):
        with pytest.raises(ValueError, match="out of range"):
            place(partition, offset)
