"""The VMP loop as a child process that can be stopped at any step by its parent.

At each step (a poll, every writing SQL statement of the Sink, a finished batch) it prints the step's name
and waits for a line on stdin, so that the parent kills it exactly there.

Usage: python -m tests.reliability.vmp_child STATE ORDER (once|forever)
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.records import BatchReport, Event, Known, SinkRow
from tests.vmp_world import NOW, fixed

BATCH_SIZE = 8


def scorer(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
    """Two issues per video; the score is a hash of id and title, and some videos fail for one issue."""
    return [_score(video, issue) for issue in ("icd", "ucc") for video in videos]


def _score(video: VideoInput, issue: str) -> ScoredVideo:
    byte = hashlib.sha256(f"{issue} {video.video_id} {video.title}".encode()).digest()[0]
    if byte < 16:
        return ScoredVideo(video.video_id, issue, None, None, None, "none", "3-ab", error="undecodable")
    return ScoredVideo(video.video_id, issue, byte / 255, None, byte > 220, "base", "3-ab")


def frozen() -> datetime:
    """The time of every decision."""
    return NOW


def step(name: str) -> None:
    """Report a step and wait for the parent's leave; a parent that is gone ends the process."""
    print(name, flush=True)
    if not sys.stdin.readline():
        os._exit(1)


@dataclass(frozen=True)
class SteppedLog:
    """A Source that reports each poll."""

    log: EventLog

    def poll(self, after: int, max_n: int) -> list[Event]:
        events = self.log.poll(after, max_n)
        step("polled" if events else "drained")
        return events


@dataclass(frozen=True)
class TwoTransactions:
    """Test-only Sinks that store offset and rows apart: the harness must see them fail.

    Rows go in under a name that nobody polls, so that only the order differs from the real Sink.
    """

    index: IndexStore
    offset_first: bool

    def committed(self, consumer: str) -> int:
        return self.index.committed(consumer)

    def known(self, video_ids: Iterable[str]) -> dict[str, Known]:
        return self.index.known(video_ids)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        writes = [
            partial(self.index.apply, (), consumer, offset),
            partial(self.index.apply, rows, f"{consumer} rows {os.getpid()}", offset),
        ]
        first, second = writes if self.offset_first else reversed(writes)
        first()
        step("between")
        return second()


def trace(sql: str) -> None:
    """Report statements that write; SQLite calls this before it runs one."""
    words = sql.split()
    if words[0] in ("BEGIN", "COMMIT"):
        step(words[0])
    elif words[0] in ("INSERT", "DELETE"):
        step(" ".join(words[: words.index("INTO" if words[0] == "INSERT" else "FROM") + 2]))


def main(state: Path, order: str, once: bool) -> None:
    with (
        loop.stop_on_signals() as stop,
        open_log(state / "log.sqlite") as log,
        open_index(state / "index.sqlite") as index,
    ):
        if order == "one transaction":
            assert isinstance(index.database.connection, sqlite3.Connection)
            index.database.connection.set_trace_callback(trace)
        sink = index if order == "one transaction" else TwoTransactions(index, order == "offset first")

        loop.run(
            SteppedLog(log),
            fixed(scorer),
            sink,
            stop=stop,
            on_batch=lambda report: step("reported"),
            batch_size=BATCH_SIZE,
            once=once,
            poll_interval=3600,
            clock=frozen,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "once")
