"""What two stages buy: a slow MLLM holds up no base verdict, and a crash at any step loses and doubles nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event as Flag

import numpy as np
import pytest

from coefvq.cascade.audit_sample import AuditSample
from coefvq.inference.decisions import Answers
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.escalations import Escalations
from coefvq.vmp.pending import LEASE_SECONDS
from coefvq.vmp.records import BatchReport, Event
from coefvq.vmp.revisions import Reviser
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, FixedDeployment, Pair, deployment

BASE_SECONDS, MLLM_SECONDS, ARRIVAL_SECONDS = 0.005, 0.05, 0.02


@dataclass
class Timed(Pair):
    """A pair whose models take time on a worker's own clock."""

    mllm_seconds: float = MLLM_SECONDS
    clock: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self) -> None:
        super().__init__(base=lambda video: 0.9 if int(video.video_id[1:]) % 5 == 0 else 0.1)

    def __call__(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        self.clock[0] += BASE_SECONDS * len(videos)
        return super().__call__(videos)

    def ask(self, wanted: Mapping[str, Sequence[VideoInput]]) -> dict[str, Answers]:
        self.clock[0] += self.mllm_seconds * sum(map(len, wanted.values()))
        return super().ask(wanted)


def p99_of_base_verdicts(folder: Path, slower: float, in_batch: bool) -> float:
    """Seconds from an event to its base verdict: events arrive evenly, the run reads what has arrived by its clock."""
    pair = Timed(mllm_seconds=MLLM_SECONDS * slower)
    waits: list[float] = []
    with open_state(folder) as (log, index):
        for database in (log.database, index.database):
            database.connection.execute("PRAGMA synchronous = OFF")  # time is counted here, not measured
        log.publish([Event(f"v{number}", uri=f"/{number}") for number in range(300)])

        class Arriving:
            def poll(self, after: int, max_n: int) -> list[Event]:
                pair.clock[0] = max(pair.clock[0], ARRIVAL_SECONDS * (after + 1))
                return log.poll(after, max(1, min(max_n, int(pair.clock[0] / ARRIVAL_SECONDS) - after)))

        def on_batch(report: BatchReport) -> None:
            offsets = range(report.offset - report.events + 1, report.offset + 1)
            waits.extend(pair.clock[0] - ARRIVAL_SECONDS * offset for offset in offsets)

        def now() -> datetime:
            return NOW + timedelta(seconds=pair.clock[0])

        used = FixedDeployment(deployment(pair))
        served = Escalations(log, index, now, lambda: pair.clock[0])
        loop.run(Arriving(), used, index, stop=Flag(), on_batch=on_batch, batch_size=32, once=True, clock=now,
                 work=[served] if in_batch else [])  # fmt: skip
        if not in_batch:  # the worker has a clock of its own; what it takes is nobody's wait
            while served.urgent(used.current(), 32):
                pass
        assert len(pair.mllm_calls) == 60
        assert index.database.query("SELECT count(*) FROM pending") == [(0,)]
    assert len(waits) == 300
    return float(np.quantile(waits, 0.99))


def test_a_slow_mllm_holds_up_no_base_verdict(tmp_path: Path) -> None:
    normal, slow = (p99_of_base_verdicts(tmp_path / str(by), by, in_batch=False) for by in (1.0, 100.0))
    assert slow <= 1.2 * normal
    fast, control = (p99_of_base_verdicts(tmp_path / f"in batch {by}", by, in_batch=True) for by in (1.0, 100.0))
    assert control > 10 * fast


def live(folder: Path, pair: Pair, seconds: float) -> None:
    """Work through what is there, both stages."""
    with open_state(folder) as (log, index):
        for database in (log.database, index.database):
            database.connection.execute("PRAGMA synchronous = OFF")  # a dying process, not a power cut

        def now() -> datetime:
            return NOW + timedelta(seconds=seconds)

        work = (Reviser(log, index, now), Escalations(log, index, now, lambda: seconds))
        loop.run(log, FixedDeployment(deployment(pair)), index, stop=Flag(), on_batch=lambda report: None, batch_size=3,
                 once=True, clock=lambda: NOW, work=work)  # fmt: skip


def publish(folder: Path) -> None:
    with open_state(folder) as (log, _):
        log.publish([Event(f"v{number}", uri=f"/{number}", views=5) for number in range(7)])
        log.publish([Event("v1", uri="/1", views=5000), Event("v6", uri="/6", title="new"), Event("v5", "delete")])


def fresh() -> Pair:
    return Pair(base=lambda video: int(video.video_id[1:]) / 8, audit=AuditSample(rate=0.5, seed=1))


def contents(folder: Path) -> list[tuple[object, ...]]:
    columns = "video_id, state, rule, source_version, epoch, rank, views, value, held"
    with open_state(folder) as (_, index):
        assert index.database.query("SELECT count(*) FROM pending") == [(0,)]
        return index.database.query(f"SELECT {columns} FROM entries ORDER BY video_id")  # noqa: S608


def test_a_crash_at_any_statement_ends_in_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "whole")
    live(tmp_path / "whole", fresh(), 0.0)
    expected = contents(tmp_path / "whole")
    assert {row[5] for row in expected} == {2, 3}
    original, left = sqlite3.connect, [0]

    class Dying(sqlite3.Connection):
        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
            left[0] -= sql.split()[0] not in ("SELECT", "PRAGMA")
            if left[0] < 0:
                raise KeyboardInterrupt
            return super().execute(sql, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **named: original(*args, factory=Dying, **named))
    left[0] = 10**9
    publish(tmp_path / "published")
    for lives in range(0, 1000, 7):
        folder, left[0] = tmp_path / f"torn {lives}", lives
        shutil.copytree(tmp_path / "published", folder)
        try:
            live(folder, fresh(), 0.0)
        except KeyboardInterrupt:
            left[0] = 10**9
            live(folder, fresh(), LEASE_SECONDS + 1)  # this process lives on, so the lease has to end
            assert contents(folder) == expected
            assert doubled(folder) == []
        else:
            break
    assert lives > 100  # it died at many places, and at last at none


def doubled(folder: Path) -> list[tuple[object, ...]]:
    """Verdicts that took effect twice."""
    sql = (
        "SELECT video_id, source_version, rank, views FROM effects e JOIN videos USING (video_id) "
        "WHERE written AND rank > 0 GROUP BY video_id, source_version, rank, rule, e.offset HAVING count(*) > 1"
    )
    with open_state(folder) as (_, index):
        return index.database.query(sql)
