"""The words of the Video Management Platform as types (paper, section 2.3).

An event says that a video was published, changed or deleted. The Retriever makes it a candidate with
scores, the Filter gives the candidate a decision, and the Sink stores the resulting row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from coefvq.documents import parse_json
from coefvq.records import ScoredVideo
from coefvq.vmp.keys import DEFAULT, key

#: ``views`` says only that a video was watched more often; it is no new version
EventKind = Literal["upsert", "delete", "views"]
#: what a rule says; the paper calls the first "remained"
Outcome = Literal["live", "removed", "ignored"]
#: what the index holds of a video; the last two are tombstones
State = Literal["live", "removed", "deleted"]
#: what a reader of the index sees: ``withdrawn`` is a verdict of a pair that was rolled back
#: ``held`` is a base verdict that waits for the MLLM
Served = Literal["live", "removed", "deleted", "withdrawn", "held"]
Rank = Literal[-1, 0, 1, 2, 3]
#: how much a verdict is worth: the MLLM's answer is pending; an issue was not scored; a rule of the policy stood in
#: for the MLLM; full; full, and the MLLM also looked at what the base model had filtered out
PENDING: Rank = -1
ERROR: Rank = 0
DEGRADED: Rank = 1
FULL: Rank = 2
AUDITED: Rank = 3
#: what a video is to readers while the MLLM's answer is pending
Undecided = Literal["hold", "live"]
Lane = Literal[0, 1, 2]
#: who is served first: audit draws, events and views, campaigns
AUDIT: Lane = 0
LIVE: Lane = 1
CAMPAIGN: Lane = 2


@dataclass(frozen=True)
class Event:
    """One change of one video, in the order of ``offset``; ``video_id`` is its key (:mod:`coefvq.vmp.keys`).

    ``source_version`` counts the changes of a video's content from 1. Both numbers are given by the log: an event that
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
    creator_id: str | None = None
    duration_s: float | None = None


#: among a store's fields: how it answered about a video, one of the three
STATUS = "status"
FOUND, ABSENT, FAILED = "found", "absent", "failed"


@dataclass(frozen=True)
class Features:
    """What feature stores say of a video: store → its fields, and under ``status`` how it answered.

    ``error`` is set where a required store has no answer: the video counts as unscored.
    """

    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    error: str | None = None

    @property
    def are_degraded(self) -> bool:
        """Whether a store that may be missing did not answer."""
        return bool(self.values) and any(row.get(STATUS) == FAILED for row in self.values.values())


NO_FEATURES = Features()


class Candidate(NamedTuple):
    """An event with its scores, one per issue, and its features; a deletion has none.

    ``error`` is set if at least one issue could not be scored and names each such issue, or what lacks of the features.
    """

    event: Event
    scores: tuple[ScoredVideo, ...] = ()
    error: str | None = None
    features: Features = NO_FEATURES

    def with_features(self, features: Features) -> Candidate:
        """The same with its features, whose lack is an error."""
        if features is self.features:
            return self
        error = "; ".join(part for part in (self.error, features.error) if part) or None
        return self._replace(error=error, features=features)


@dataclass(frozen=True)
class Decision:
    """The Filter's answer and the name of the rule that gave it."""

    outcome: Outcome
    rule: str


@dataclass(frozen=True)
class Task:
    """What the MLLM is still to be asked about one video, stored with the base verdict.

    ``scores`` maps issue to what the base model said, as the index keeps it; empty where it has to be asked first.
    ``priority`` is the highest base score that waits, ``calls`` how many answers. ``drawn``: the audit wants an answer
    whatever the budget. ``shed``: the budget let it go, the audit did not. ``silent``: the MLLM was found down.
    ``enqueued`` is unix time.
    """

    video_id: str
    source_version: int
    epoch: int
    views: int | None
    lane: Lane
    priority: float
    calls: int
    scores: Mapping[str, Any]
    enqueued: float
    drawn: bool = False
    shed: bool = False
    silent: bool = False


class SinkRow(NamedTuple):
    """What the Sink is asked to store for one event.

    ``(source_version, epoch, views, rank)`` is the version that guards the index entry. ``state`` is None where the
    index keeps what it has (outcome ``ignored``). ``views`` is the count that the verdict was made at. ``degraded``
    says that the MLLM was down: the video is due for a full verdict. ``decided_at`` is the time that rules on age saw.
    ``judged`` is off for an event that only says how often the video was watched. ``content`` is the event whose
    content was judged, or its digest.

    ``task`` is what the MLLM is to be asked, ``held`` that readers must not see the video before; ``final`` is off
    where an MLLM that is down keeps its task. ``routes`` says per issue how the video went and why, ``waited`` how
    many seconds the MLLM's task lay in the queue. ``recheck_at``: unix time at which age alone may change the verdict.
    """

    offset: int
    video_id: str
    source_version: int
    epoch: int
    rank: Rank
    bundle_version: str
    outcome: Outcome
    state: State | None
    rule: str
    value: str
    decided_at: str
    content: Event | str
    views: int | None = None
    uri: str = ""
    error: str | None = None
    degraded: bool = False
    judged: bool = True
    task: Task | None = None
    held: bool = False
    final: bool = True
    routes: str | None = None
    waited: float | None = None
    recheck_at: float | None = None


@dataclass(frozen=True)
class Override:
    """A person's word about a video; it holds until the video's content changes."""

    state: State
    by: str
    reason: str
    at: str


@dataclass(frozen=True)
class IndexEntry:
    """One key-value pair of the index; ``value`` is the parsed JSON of scores and metadata, ``video_id`` the bare id.

    ``state`` is what a reader sees: a person's ``override`` comes before the verdict, and the verdict of a pair that
    was rolled back is ``withdrawn``. ``verdict`` is the state that the rules gave.
    """

    video_id: str
    state: Served
    verdict: Served
    rule: str
    source_version: int
    epoch: int
    rank: Rank
    bundle_version: str
    decided_at: str | None
    override: Override | None
    value: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What is stored of the last verdict on a video: enough to decide again without a model.

    ``text`` is the stored value, whose JSON is parsed where somebody looks at it: most verdicts make way unread.
    ``place`` is what messages call it.
    """

    state: State
    source_version: int
    epoch: int
    rank: Rank
    views: int | None
    decided_at: datetime | None
    text: str
    place: str = field(compare=False)

    @cached_property
    def value(self) -> Any:
        """Scores and metadata.

        Raises:
            DataError: the stored value is not JSON.
        """
        return parse_json(self.text, self.place, "restore the index from a copy")


@dataclass(frozen=True)
class Known:
    """What the index knows of a video before a batch; ``seen_version`` also counts events that were ignored."""

    seen_version: int = 0
    views: int | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class DeadLetter:
    """A video whose newest event could not be scored; ``held`` ones wait for the MLLM and are tried again.

    ``video_id`` is the id within its ``tenant``.
    """

    video_id: str
    offset: int
    source_version: int
    uri: str
    reason: str
    failed_at: str
    held: bool = False
    tenant: str = DEFAULT

    @property
    def key(self) -> str:
        """What log and index call the video."""
        return key(self.tenant, self.video_id)


@dataclass(frozen=True)
class BatchReport:
    """What one committed batch did; ``stale`` rows met an equal or newer version in the index.

    ``due``: verdicts may have to be made again by more views or by age; ``queued``: tasks may wait for the MLLM. Both
    were found out on the way, under the writers' lock, so nobody has to ask the index once more.
    """

    offset: int
    events: int
    live: int
    removed: int
    ignored: int
    dead: int
    stale: int
    due: bool = field(default=True, compare=False)
    queued: bool = field(default=True, compare=False)

    def counts(self) -> dict[str, int]:
        """Offset and counts, for logs."""
        return {name: value for name, value in vars(self).items() if name not in ("due", "queued")}
