"""A stream of videos with drift and a burst over the real queue and index, on a clock that only the test moves.

The stream and its oracle are those of the study that chose the design (docs/vmp.md, "Budget").
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from coefvq.cascade.audit_sample import AuditSample
from coefvq.records import VideoInput
from coefvq.vmp.budget import Limits, set_limits
from coefvq.vmp.deployment import judge
from coefvq.vmp.escalations import Escalations
from coefvq.vmp.index import open_index
from coefvq.vmp.records import Event
from tests.vmp_world import NOW, POLICY, Pair, deployment

THRESHOLD = 0.60
POSITIVE, AUDIT_RATE = 0.08, 0.02
STEP = 10.0


@dataclass(frozen=True)
class Sent:
    """One video of the stream."""

    name: str
    at: float
    score: float
    positive: bool


def stream(seed: int, seconds: float, rate: float) -> list[Sent]:
    """Arrivals that swing by half, with a burst of three times as many, and scores that rise after half the time."""
    rng, at, sent = random.Random(seed), 0.0, list[Sent]()
    while True:
        wave = 1 + 0.5 * math.sin(4 * math.pi * at / seconds)
        burst = 3.0 if 0.42 < at / seconds < 0.445 else 1.0
        at += rng.expovariate(rate * wave * burst)
        if at >= seconds:
            return sent
        positive = rng.random() < POSITIVE
        drift = 0.8 if at > seconds / 2 and not positive else 0.0
        score = 1 / (1 + math.exp(-rng.gauss(1.8 if positive else -1.2 + drift, 1.0)))
        sent.append(Sent(f"{seed}-{len(sent)}", at, score, positive))


@dataclass
class Played:
    """What the MLLM was asked, and when."""

    calls: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0

    def per_second(self) -> float:
        return len(self.calls) / self.seconds

    def worst_minute(self) -> int:
        return max(Counter(int(at // 60) for at, _ in self.calls).values())


@dataclass(frozen=True)
class Contents:
    """The newest event of each video."""

    events: dict[str, Event]

    def newest(self, video_ids: Iterable[str]) -> dict[str, Event]:
        return {name: self.events[name] for name in video_ids if name in self.events}


def play(
    folder: Path,
    sent: list[Sent],
    seconds: float,
    limits: Limits,
    audit: AuditSample | None = None,
    sure: bool = True,
) -> Played:
    """Send the stream through base stage and queue; ``sure``: the MLLM knows the label, else it errs at times."""
    by_name, clock, events = {video.name: video for video in sent}, [0.0], dict[str, Event]()
    played = Played(seconds=seconds)

    def mllm(video: VideoInput) -> float:
        played.calls.append((clock[0], video.video_id))
        wrong = not sure and random.Random(video.video_id).random() < 0.1
        return 0.9 if by_name[video.video_id].positive != wrong else 0.1

    pair = Pair(POLICY.model_copy(update={"base_threshold": THRESHOLD, "views_trigger": None}),
                base=lambda video: by_name[video.video_id].score, mllm=mllm, audit=audit)  # fmt: skip
    used = deployment(pair)
    with open_index(folder / "index.sqlite") as index:
        index.database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        set_limits(index.database, limits)

        def now() -> datetime:
            return NOW + timedelta(seconds=clock[0])

        worker, waiting = Escalations(Contents(events), index, now, lambda: clock[0]), list(reversed(sent))
        while clock[0] < seconds:
            clock[0] += STEP
            batch = []
            while waiting and waiting[-1].at <= clock[0]:
                video = waiting.pop()
                offset = len(events) + 1
                events[video.name] = Event(video.name, source_version=1, offset=offset)
                batch.append(events[video.name])
            if batch:
                index.apply(judge(batch, used, {}, now()), "vmp", batch[-1].offset)
            while worker.urgent(used, 128):
                pass
    return played


def oracle(sent: list[Sent], calls: float) -> float:
    """Recall of whoever knows the whole stream in advance and spends the calls on the highest scores."""
    best = sorted((video for video in sent if video.score >= THRESHOLD), key=lambda video: -video.score)[: int(calls)]
    return sum(video.positive for video in best) / sum(video.positive for video in sent)
