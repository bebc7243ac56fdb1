"""A worker's life over releases, which can be stopped at any step by its parent: migration, events, promotion,
rollback with its fence, campaign.

Usage: python -m tests.reliability.vmp_release_child STATE (one transaction|cursor first)
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.epochs import Order, issue
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import BatchReport, Event, SinkRow
from coefvq.vmp.revisions import Reviser
from coefvq.vmp.state import open_state
from tests.reliability.vmp_child import step
from tests.vmp_world import NOW, FixedDeployment, deployment

#: decisions, and up to which share of the log each deployment reads
RELEASES = (
    (Order(1, {"icd": "1-ab"}, {"icd": "one"}), 0.3),
    (Order(2, {"icd": "2-cd"}, {"icd": "two"}), 0.7),
    (Order(3, {"icd": "1-ab"}, {"icd": "one"}, withdrawn=frozenset({"icd=2-cd"})), 1.0),
)
BATCH_SIZE = 8


def scorer(bundle: str) -> Callable[[Sequence[VideoInput]], list[ScoredVideo]]:
    """Scores from a hash of pair, id, title and views."""

    def score(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        return [_score(video, bundle) for video in videos]

    return score


def _score(video: VideoInput, bundle: str) -> ScoredVideo:
    byte = hashlib.sha256(f"{bundle} {video.video_id} {video.title}".encode()).digest()[0]
    if byte < 40:
        return ScoredVideo(video.video_id, "icd", None, None, None, "none", bundle, error="undecodable")
    return ScoredVideo(video.video_id, "icd", byte / 512, None, False, "base", bundle)


@dataclass(frozen=True)
class UpTo:
    """The log as far as one release reads it."""

    log: EventLog
    last: int

    def poll(self, after: int, max_n: int) -> list[Event]:
        return [event for event in self.log.poll(after, max_n) if event.offset <= self.last]


@dataclass(frozen=True)
class CursorFirst:
    """Test-only: a campaign whose place is committed before its rows. The harness must see it fail."""

    index: IndexStore

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def revise(
        self, rows: Sequence[SinkRow], reason: str, passed: Iterable[tuple[str, int | None]] = (), also: Any = None
    ) -> BatchReport:
        if also is not None:
            self.index.revise([], reason, [], lambda connection, _: also(connection, [False] * len(rows)))
            step("between")
        return self.index.revise(rows, reason, passed)


def live(state: Path, order: str = "one transaction", releases: int = len(RELEASES)) -> None:
    """Go on from wherever the index is: read, release, read, release, read, campaign."""
    with open_state(state) as (log, index):
        head = index.database.query("SELECT coalesce(max(decision), 0) FROM deployments")[0][0]
        for number, (release, share) in enumerate(RELEASES[:releases], start=1):
            if number < head:
                continue
            used = made(release, issue(index.database, release))
            read(UpTo(log, int(log.last_offset() * share)), used, index)
        if releases < len(RELEASES):
            return
        if Campaigns(index.database).last() is None:
            Campaigns(index.database).start(NOW)
        store: Any = index if order == "one transaction" else CursorFirst(index)
        reviser = Reviser(log, store, lambda: NOW)
        while reviser.urgent(used, BATCH_SIZE) + reviser.spare(used, BATCH_SIZE):
            pass


def made(release: Order, epoch: int) -> Deployment:
    """The deployment of a release."""
    bundle = release.bundles["icd"]
    return deployment(scorer(bundle), epoch, bundle=bundle, models=release.models)


def read(source: UpTo, used: Deployment, index: IndexStore) -> None:
    """Work through the events of one release."""
    loop.run(source, FixedDeployment(used), index, stop=threading.Event(), on_batch=lambda report: None,
             batch_size=BATCH_SIZE, once=True, clock=lambda: NOW)  # fmt: skip


def trace(sql: str) -> None:
    """Report statements that change something; SQLite calls this before it runs one."""
    words = sql.split()
    if words[0] in ("BEGIN", "COMMIT", "CREATE", "ALTER", "DROP"):
        step(words[0])
    elif words[0] in ("INSERT", "DELETE", "UPDATE"):
        name = words[1] if words[0] == "UPDATE" else words[words.index("INTO" if words[0] == "INSERT" else "FROM") + 1]
        step(f"{words[0]} {name}")


def main() -> None:
    connect = sqlite3.connect

    def traced(path: Path, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        connection.set_trace_callback(trace)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    live(Path(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
