"""The loop over a real log and a real index, with a scorer that reads the title."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from coefvq.errors import ModelError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.records import BatchReport, Event
from coefvq.vmp.retriever import Scorer
from tests.vmp_world import fixed


def by_title(videos: Sequence[VideoInput], bundle: str = "1-ab") -> list[ScoredVideo]:
    """``bad`` in the title is positive, ``broken`` cannot be scored."""
    return [
        ScoredVideo(v.video_id, "icd", None, None, None, "none", bundle, error="undecodable")
        if "broken" in v.title
        else ScoredVideo(v.video_id, "icd", 0.5, 0.9, "bad" in v.title, "mllm", bundle)
        for v in videos
    ]


@pytest.fixture
def state(tmp_path: Path, index_place: Path | str) -> Iterator[tuple[EventLog, IndexStore]]:
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        yield log, index


def drain(
    log: EventLog,
    index: IndexStore,
    scorer: Scorer = by_title,
    batch_size: int = 2,
    consumer: str = "vmp",
    epoch: int = 1,
) -> list[BatchReport]:
    reports: list[BatchReport] = []
    loop.run(log, fixed(scorer, epoch), index, stop=threading.Event(), on_batch=reports.append,
             batch_size=batch_size, once=True, consumer=consumer)  # fmt: skip
    return reports


def states(index: IndexStore, *ids: str) -> list[str | None]:
    entries = [index.get(video_id) for video_id in ids]
    return [entry and entry.state for entry in entries]


def test_once_drains_the_log_batch_by_batch(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event(i, title=t) for i, t in [("a", "fine"), ("b", "bad"), ("c", "broken")]])
    log.publish([Event("a", "delete")])
    assert drain(log, index) == [
        BatchReport(offset=2, events=2, live=1, removed=1, ignored=0, dead=0, stale=0),
        BatchReport(offset=4, events=2, live=0, removed=1, ignored=1, dead=1, stale=0),
    ]
    assert states(index, "a", "b", "c") == ["deleted", "removed", None]
    assert index.committed("vmp") == 4
    assert drain(log, index) == []


def test_unscored_update_leaves_the_earlier_entry(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("a", title="fine")])
    log.publish([Event("a", title="broken")])
    drain(log, index)
    entry = index.get("a")
    assert entry is not None
    assert (entry.state, entry.source_version) == ("live", 1)
    assert [(d.video_id, d.source_version, d.reason) for d in index.dead_letters()] == [("a", 2, "icd: undecodable")]


def test_dead_letter_is_settled_by_a_later_success_and_not_reopened_by_an_old_event(
    state: tuple[EventLog, IndexStore],
) -> None:
    log, index = state
    log.publish([Event("a", title="broken")])
    drain(log, index)
    assert len(index.dead_letters()) == 1
    log.publish([Event("a", title="fine")])
    drain(log, index)
    assert index.dead_letters() == []
    # the log read again from the start: the first version fails again, and is old news
    stop = threading.Event()
    loop.run(log, fixed(by_title), index, stop=stop,
             on_batch=lambda report: stop.set(), batch_size=1, consumer="again")  # fmt: skip
    assert index.committed("again") == 1
    assert index.dead_letters() == []
    assert states(index, "a") == ["live"]


def test_retry_after_the_clip_was_mended(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("a", title="broken")])
    drain(log, index)
    log.republish({letter.video_id: letter.source_version for letter in index.dead_letters()})
    mended: Scorer = lambda videos: by_title([replace(v, title="fine") for v in videos])  # noqa: E731
    drain(log, index, mended)
    assert states(index, "a") == ["live"]
    assert index.dead_letters() == []


def test_a_failing_scorer_commits_nothing_of_its_batch(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event(i, title="fine") for i in "abc"])

    def fails_at_c(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        if videos[0].video_id == "c":
            raise ModelError("weights are gone")
        return by_title(videos)

    with pytest.raises(ModelError, match="weights are gone"):
        drain(log, index, fails_at_c)
    assert index.committed("vmp") == 2
    drain(log, index)
    assert states(index, "a", "b", "c") == ["live", "live", "live"]
    assert index.database.query("SELECT count(*) FROM effects") == [(3,)]


def test_a_malformed_bundle_version_stops_before_the_sink(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("a", title="fine")])
    with pytest.raises(ModelError, match="expected NUMBER-HASH"):
        drain(log, index, partial(by_title, bundle="latest"))
    assert (index.committed("vmp"), states(index, "a")) == (0, [None])


def test_a_newer_epoch_replaces_and_an_older_does_not(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("a", title="fine")])
    drain(log, index, partial(by_title, bundle="2-cd"), epoch=2)
    assert [r.stale for r in drain(log, index, partial(by_title, bundle="3-ab"), consumer="older", epoch=1)] == [1]
    assert [r.stale for r in drain(log, index, partial(by_title, bundle="2-cd"), consumer="equal", epoch=2)] == [1]
    # the pair that was returned to has a lower number and a higher epoch
    assert [r.stale for r in drain(log, index, partial(by_title, bundle="1-ef"), consumer="newer", epoch=3)] == [0]
    entry = index.get("a")
    assert entry is not None
    assert (entry.bundle_version, entry.epoch) == ("icd=1-ef", 3)


def test_two_runs_of_one_consumer_repeat_work_but_no_effect(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event(i, title="fine") for i in "abc"])

    def overtaken(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        # the other run takes the same events, with another batch size, while this one scores
        if index.committed("vmp") == 0:
            drain(log, index, batch_size=1)
        return by_title(videos)

    reports = drain(log, index, overtaken)
    assert [report.events for report in reports] == [0]
    assert index.committed("vmp") == 3
    assert index.database.query("SELECT video_id, count(*) FROM effects GROUP BY 1") == [
        ("a", 1), ("b", 1), ("c", 1),
    ]  # fmt: skip


def test_a_set_stop_ends_after_the_batch_in_hand(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event(i, title="fine") for i in "abcde"])
    stop = threading.Event()
    loop.run(log, fixed(by_title), index, stop=stop,
             on_batch=lambda report: stop.set(), batch_size=2)  # fmt: skip
    assert index.committed("vmp") == 2


class StopAfterWaits:
    """Publishes during the first wait, ends at the second."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.waits = act, []

    def is_set(self) -> bool:
        return len(self.waits) == 2

    def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        self.act()
        return self.is_set()


def test_without_once_it_waits_for_new_events(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    stop = StopAfterWaits(lambda: log.publish([Event("late", title="fine")]))
    loop.run(log, fixed(by_title), index, stop=stop, on_batch=lambda r: None,
             batch_size=2, poll_interval=12.5)  # fmt: skip
    assert states(index, "late") == ["live"]
    assert stop.waits == [12.5, 12.5]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_to_stop_and_hands_the_second_back(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with loop.stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(30)
        assert stop.is_set()
        assert {n: signal.getsignal(n) for n in before} == before
    assert {n: signal.getsignal(n) for n in before} == before


def test_stop_wakes_a_waiting_loop_and_times_out_without() -> None:
    stop = loop.SignalStop()
    assert not stop.wait(0.001)
    # whichever comes first, set or wait, the wait of an hour must not be waited out
    setter = threading.Timer(0.05, stop.set)
    setter.start()
    assert stop.wait(3600)
    setter.join()


def test_signal_wakes_a_waiting_loop() -> None:
    with loop.stop_on_signals() as stop:
        sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        sender.start()
        assert stop.wait(3600)
        sender.join()
