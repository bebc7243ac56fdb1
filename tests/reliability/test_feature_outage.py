"""Thirty seconds without the cache, then without the service: no event is lost, no verdict is wrong, memory is flat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from coefvq.vmp import loop
from coefvq.vmp.features.lookup import open_lookup
from coefvq.vmp.features.settings import FeatureSettings
from coefvq.vmp.features.values import HeldError
from coefvq.vmp.index import open_index
from coefvq.vmp.log import open_log
from coefvq.vmp.records import BatchReport, Event
from coefvq.vmp.rules import parse_rules
from tests import feature_stores as real
from tests.unit.vmp.features.test_feature_lookup import harmless
from tests.vmp_world import FixedDeployment, by_rules, deployment

pytestmark = pytest.mark.long

OUTAGE_SECONDS = 30.0
EVENTS_PER_SECOND = 10
RULES = parse_rules(
    'rules: [{name: distrusted, when: [{field: creators.reputation, op: "<", value: 0.3}], then: removed}]\n'
    "default: live",
    "rules.yaml",
)


class Script(threading.Thread):
    """Publishes all the time; meanwhile it kills one server after the other and starts it again."""

    def __init__(self, log: Path, steps: list[tuple[float, Callable[[], None]]]) -> None:
        super().__init__(daemon=True)
        self.log, self.steps, self.sent, self.ended = log, steps, 0, threading.Event()

    def run(self) -> None:
        with open_log(self.log) as log:
            for seconds, step in self.steps:
                for _ in range(int(seconds)):
                    self.ended.wait(1.0)  # the time of the outage itself
                    log.publish([self._event(self.sent + number) for number in range(EVENTS_PER_SECOND)])
                    self.sent += EVENTS_PER_SECOND
                step()
        self.ended.set()

    @staticmethod
    def _event(number: int) -> Event:
        return Event(f"v{number}", creator_id=f"c{number % 17}")


def test_cache_and_service_are_down_thirty_seconds_each(tmp_path: Path) -> None:
    with (
        real.redis_server() as (cache, url),
        real.thrift_service(tmp_path) as (service, port, path),
        open_log(tmp_path / "log.sqlite") as log,
        open_index(tmp_path / "index.sqlite") as index,
    ):
        world = real.thrift_world(service, port, path)
        world.put({f"c{number}": {"reputation": number / 17} for number in range(16)})  # nothing about c16
        source = {"kind": "redis", "url": url, "behind": world.source, "ttl_s": 1, "absent_ttl_s": 1}
        made = replace(world, source=source).settings(missing="hold", deadline_s=2.0, breaker_seconds=2.0)
        script = Script(
            tmp_path / "log.sqlite",
            [(5, cache.kill), (OUTAGE_SECONDS, cache.start), (5, service.kill), (OUTAGE_SECONDS, service.start),
             (5, lambda: None)],
        )  # fmt: skip
        stop, held, memory = threading.Event(), [], []

        def on_batch(report: BatchReport) -> None:
            memory.append(psutil.Process().memory_info().rss)
            if script.ended.is_set() and index.committed("vmp") == script.sent:
                stop.set()

        def on_hold(error: HeldError) -> None:
            held.append(error)
            memory.append(psutil.Process().memory_info().rss)

        with open_lookup(FeatureSettings(stores=(made,))) as lookup:
            script.start()
            judged = replace(deployment(harmless, decide=by_rules(RULES), rules=RULES), lookup=lookup)
            loop.run(log, FixedDeployment(judged), index, stop=stop, on_batch=on_batch, on_hold=on_hold,
                     batch_size=32, poll_interval=0.5)  # fmt: skip
        script.join()
        assert script.sent == 750
        # c16 is not known: a dead letter, not a wait
        unknown = {f"v{number}" for number in range(script.sent) if number % 17 == 16}
        assert {letter.video_id for letter in index.dead_letters()} == unknown
        for number in range(script.sent):
            entry, who = index.get(f"v{number}"), number % 17
            if who == 16:
                assert entry is None
                continue
            assert entry is not None
            assert (entry.rule, entry.rank) == ("distrusted" if who < 5.1 else "default", 2)
            assert entry.value["features"]["creators"] == {"status": "found", "reputation": who / 17}
        assert index.database.query("SELECT count(*), count(DISTINCT offset) FROM effects") == [(750, 750)]
        assert len(held) > 10  # the service's outage was seen; the cache's was not needed
        assert max(memory) - memory[len(memory) // 10] < 30 * 2**20
