"""The words of the Video Management Platform as types (paper, section 2.3).

An event says that a video was published, changed or deleted. The Retriever makes it a candidate with
scores, the Filter gives the candidate a decision, and the Sink stores the resulting row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from coefvq.records import ScoredVideo

EventKind = Literal["upsert", "delete"]
Outcome = Literal["remained", "removed", "ignored"]
#: what the index holds of a video; the last two are tombstones
State = Literal["live", "removed", "deleted"]


@dataclass(frozen=True)
class Event:
    """One change of one video, in the order of ``offset``.

    ``source_version`` counts a video's changes from 1. Both numbers are given by the log: an event that
    was not published yet has 0. ``uri`` is a local path, ``published_at`` ISO 8601 with a UTC offset.
    """

    video_id: str
    kind: EventKind = "upsert"
    uri: str = ""
    title: str = ""
    stickers: tuple[str, ...] = ()
    views: int | None = None
    sha256: str | None = None
    published_at: str | None = None
    source_version: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Candidate:
    """An event with its scores, one per issue; a deletion has none.

    ``error`` is set if at least one issue could not be scored and names each such issue.
    """

    event: Event
    scores: tuple[ScoredVideo, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Decision:
    """The Filter's answer and the name of the rule that gave it."""

    outcome: Outcome
    rule: str


@dataclass(frozen=True)
class SinkRow:
    """What the Sink is asked to store for one event.

    ``(source_version, bundle_order, bundle_version)`` is the version that guards the index entry.
    ``state`` is None where the index keeps what it has (outcome ``ignored``).
    """

    offset: int
    video_id: str
    source_version: int
    bundle_order: int
    bundle_version: str
    outcome: Outcome
    state: State | None
    rule: str
    value: str
    uri: str = ""
    error: str | None = None


@dataclass(frozen=True)
class IndexEntry:
    """One key-value pair of the index; ``value`` is the parsed JSON of scores and metadata."""

    video_id: str
    state: State
    rule: str
    source_version: int
    bundle_version: str
    value: dict[str, Any]


@dataclass(frozen=True)
class DeadLetter:
    """A video whose newest event could not be scored."""

    video_id: str
    offset: int
    source_version: int
    uri: str
    reason: str
    failed_at: str


@dataclass(frozen=True)
class BatchReport:
    """What one committed batch did; ``stale`` rows met an equal or newer version in the index."""

    offset: int
    events: int
    remained: int
    removed: int
    ignored: int
    dead: int
    stale: int
