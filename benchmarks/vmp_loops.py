"""Two loops over one log that take turns: the platform's, and a bare one that only upserts a row per event."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.database import Database, open_database
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.postgres import open_postgres
from coefvq.vmp.records import Event
from tests import postgres
from tests.vmp_world import NOW, FixedDeployment, Pair, work

#: events of a batch, and of a turn
BATCH, CHUNK = 32, 960
BARE = (
    (
        "CREATE TABLE bare (video_id TEXT PRIMARY KEY, source_version INTEGER NOT NULL, value TEXT NOT NULL)",
        "CREATE TABLE bare_offsets (consumer TEXT PRIMARY KEY, offset INTEGER NOT NULL)",
    ),
)
UPSERT = """
    INSERT INTO bare (video_id, source_version, value) VALUES (?, ?, ?)
    ON CONFLICT (video_id) DO UPDATE SET source_version = excluded.source_version, value = excluded.value
    WHERE excluded.source_version > bare.source_version"""
OFFSET = """
    INSERT INTO bare_offsets (consumer, offset) VALUES ('bare', ?)
    ON CONFLICT (consumer) DO UPDATE SET offset = excluded.offset"""


def null(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
    """A pair that answers at once."""
    return [ScoredVideo(video.video_id, "icd", 0.1, None, False, "base", "1-ab") for video in videos]


def queued(share: float) -> Pair:
    """The same in two stages; it shows a share of the videos to an MLLM that answers at once."""
    every = round(1 / share) if share else 0
    return Pair(
        base=lambda video: 0.9 if every and int(video.video_id[1:]) % every == 0 else 0.1, mllm=lambda video: 0.1
    )


@dataclass(frozen=True)
class UpTo:
    """The log as far as one turn reads it."""

    log: EventLog
    last: int

    def poll(self, after: int, max_n: int) -> list[Event]:
        return self.log.poll(after, min(max_n, self.last - after))


@dataclass
class Stores:
    """Places for indexes: files of a folder, or schemas of a server."""

    folder: Path
    url: str | None

    def place(self, name: str) -> Path | str:
        return self.folder / f"{name}.sqlite" if self.url is None else postgres.schema_of(self.url, name)

    @contextmanager
    def bare(self, name: str = "bare") -> Iterator[Database]:
        place = self.place(name)
        with open_database(place, BARE) if isinstance(place, Path) else open_postgres(place, BARE) as database:
            yield database


@contextmanager
def stores(kind: str) -> Iterator[Stores]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield Stores(folder, stack.enter_context(postgres.server()) if kind == "postgres" else None)


def filled(path: Path, events: int, videos: int | None = None) -> EventLog:
    """A log of so many events; with ``videos`` each changes its content over and over."""
    with open_log(path) as log:
        log.publish_all(
            Event(f"v{number % (videos or events)}", uri=f"/{number}.mp4", title=f"title {number}", views=number % 900)
            for number in range(events)
        )
        return log


def run(log: EventLog, used: Deployment, index: IndexStore, last: int, queue: bool) -> None:
    parts = work(log, index) if queue else ()
    loop.run(UpTo(log, last), FixedDeployment(used), index, stop=threading.Event(), on_batch=lambda report: None,
             batch_size=BATCH, once=True, work=parts, clock=lambda: NOW)  # fmt: skip


def run_bare(log: EventLog, database: Database, after: int, last: int) -> None:
    while events := UpTo(log, last).poll(after, BATCH):
        with database.transaction() as connection:
            for event in events:
                value = json.dumps({"uri": event.uri, "title": event.title, "views": event.views})
                connection.execute(UPSERT, (event.video_id, event.source_version, value))
            after = events[-1].offset
            connection.execute(OFFSET, (after,))


def turns(events: int, parts: Sequence[Callable[[int, int], None]]) -> list[list[tuple[float, float]]]:
    """Wall and own CPU seconds per part and turn; the parts take turns of ``CHUNK`` events, in changing order."""
    spent: list[list[tuple[float, float]]] = [[] for _ in parts]
    for turn, after in enumerate(range(0, events, CHUNK)):
        order = range(len(parts)) if turn % 2 else reversed(range(len(parts)))
        for number in order:
            wall, own = time.perf_counter(), time.process_time()
            parts[number](after, min(after + CHUNK, events))
            spent[number].append((time.perf_counter() - wall, time.process_time() - own))
    return spent


def ratios(above: list[tuple[float, float]], below: list[tuple[float, float]]) -> tuple[float, float]:
    """Median over the turns of wall and CPU time, ``above`` by ``below``; the first turn opens files and warms up."""
    pairs = list(zip(above, below, strict=True))[1:]
    wall, own = (median(a[kind] / b[kind] for a, b in pairs) for kind in (0, 1))
    return round(wall, 3), round(own, 3)
