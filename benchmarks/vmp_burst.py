"""A topic that gets ten times its usual rate for a while: how far the platform falls behind, and when it is back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import psutil

from benchmarks import vmp_kafka
from benchmarks.vmp_loops import BATCH, null, stores
from coefvq.vmp import loop
from coefvq.vmp.configuration import KafkaSource
from coefvq.vmp.index import open_index
from coefvq.vmp.records import BatchReport, Event
from coefvq.vmp.sources.messages import encode, message_key
from tests.vmp_world import NOW, FixedDeployment, deployment

#: usual rate as a share of what the platform can do, and how many times it the burst is
_LOAD, _TIMES = 0.3, 10
_STEADY_S, _PATIENCE_S = 4.0, 300.0
_TICK_S = 0.02


@dataclass
class Traffic:
    """Messages that a thread sends by the clock: usual, burst, usual."""

    source: KafkaSource
    rate: float
    messages: Sequence[tuple[bytes, bytes]]
    sent: int = 0
    burst_from: float = 0.0
    burst_until: float = 0.0
    stop: Flag = field(default_factory=Flag)

    def run(self, first: int) -> None:
        """Send all from ``first`` on, or until ``stop``."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": ",".join(self.source.brokers), "queue.buffering.max.messages": 10**6})
        usual = round(self.rate * _STEADY_S)
        burst = len(self.messages) - first - 2 * usual
        for part, (count, rate) in enumerate(((usual, self.rate), (burst, _TIMES * self.rate), (usual, self.rate))):
            begin, done = time.perf_counter(), 0
            if part == 1:
                self.burst_from = begin
            while done < count and not self.stop.is_set():
                due = min(count, int((time.perf_counter() - begin) * rate))
                for key, value in self.messages[first + done : first + due]:
                    producer.produce(self.source.topic, value, key)
                producer.poll(0)
                self.sent, done = first + due, due
                self.stop.wait(_TICK_S)
            if part == 1:
                self.burst_until = time.perf_counter()
            first += done
        producer.flush(60)


@dataclass
class Watch:
    """What is stored, and how far behind; it ends the run when the lag of before the burst is reached again."""

    traffic: Traffic
    stored: int
    lags: list[tuple[float, int]] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)
    back_at: float | None = None

    def note(self, report: BatchReport) -> None:
        """After each batch."""
        self.stored += report.events
        now, lag = time.perf_counter(), self.traffic.sent - self.stored
        self.lags.append((now, lag))
        self.resident.append((now, psutil.Process().memory_info().rss))
        until = self.traffic.burst_until
        if until and self.back_at is None and lag <= max(BATCH, self.peak(0.0, self.traffic.burst_from)):
            self.back_at = now

    def peak(self, since: float, until: float) -> int:
        """The largest lag between two times."""
        return max((lag for at, lag in self.lags if since <= at <= until), default=0)

    def is_set(self) -> bool:
        """Whether the run may end."""
        begun = self.traffic.burst_until
        return self.back_at is not None or bool(begun and time.perf_counter() - begun > _PATIENCE_S)

    def wait(self, timeout: float) -> bool:
        """For new messages."""
        time.sleep(min(timeout, _TICK_S))
        return self.is_set()


def burst(kind: str, events: int) -> dict[str, Any]:
    """The lag after a burst of so many events, on a topic and one store; memory must not grow with it."""
    with stores(kind) as where, ExitStack() as stack:
        warm = events // 4
        broker, source = stack.enter_context(vmp_kafka.filled_topic(where.folder, warm))
        place = where.place("index")
        index = stack.enter_context(open_index(place))
        if isinstance(place, str):
            (where.folder / "state.yaml").write_text(f"index: {place}\n")
        inbox = stack.enter_context(vmp_kafka.platform_inbox(source, where.folder, index))
        used = deployment(null)
        vmp_kafka.run(inbox, used, warm // 2)
        began = time.perf_counter()
        vmp_kafka.run(inbox, used, warm - warm // 2)
        capacity = (warm - warm // 2) / (time.perf_counter() - began)
        rate = _LOAD * capacity
        more = round(2 * rate * _STEADY_S) + events
        traffic = Traffic(source, rate, [_message(number, where.folder) for number in range(warm + more)], warm)
        watch = Watch(traffic, warm)
        sender = Thread(target=traffic.run, args=(warm,))
        sender.start()
        try:
            loop.run(inbox, FixedDeployment(used), inbox, stop=watch, on_batch=watch.note, batch_size=BATCH,
                     poll_interval=_TICK_S, clock=lambda: NOW)  # fmt: skip
        finally:
            traffic.stop.set()
            sender.join()
    return {"broker": broker, "capacity_per_s": round(capacity), "usual_per_s": round(rate), "burst": events,
            **_found(watch, capacity - rate)}  # fmt: skip


def _message(number: int, folder: Path) -> tuple[bytes, bytes]:
    event = Event(f"v{number}", "upsert", "clip.mp4", f"title {number}", source_version=1)
    return message_key(event.video_id), encode(event, event.uri)


def _found(watch: Watch, spare: float) -> dict[str, Any]:
    begin, end = watch.traffic.burst_from, watch.traffic.burst_until
    before = max(size for at, size in watch.resident if at <= begin)
    peak = max(size for _, size in watch.resident)
    behind = watch.peak(begin, float("inf"))
    back = None if watch.back_at is None else round(watch.back_at - end, 2)
    return {"burst_s": round(end - begin, 2), "lag_before": watch.peak(0.0, begin), "lag_peak": behind,
            "back_after_s": back, "back_after_s_at_capacity": round(behind / spare, 2),
            "rss_mb": [round(before / 1e6), round(peak / 1e6)], "target": 1.1,
            "pass": back is not None and peak <= 1.1 * before}  # fmt: skip
