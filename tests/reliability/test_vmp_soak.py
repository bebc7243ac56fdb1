"""Two workers over 20,000 events, releases and a campaign, killed at every kind of step: the index is the oracle's.

On SQLite and PostgreSQL. Each worker is a process of its own that ends itself by SIGKILL at a step that its plan names,
so the kill hits exactly there; some are killed from outside at any moment.
"""

from __future__ import annotations

import multiprocessing.context
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coefvq.vmp import retention
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.log import open_log
from coefvq.vmp.loop import CONSUMER
from coefvq.vmp.state import open_state
from tests.old_vmp_state import as_version
from tests.reliability.vmp_crew import EVENTS, Crew, Traffic, check_index, decisions, known_bundles, reported
from tests.reliability.vmp_soak_child import Job, Plan
from tests.vmp_world import NOW

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # beside other work

OLD = 1_000
#: kinds of steps of a migration, and of how many of them one is chosen; a server makes its newest tables at once
MIGRATION = {"sqlite": (("CREATE", 3), ("ALTER", 5), ("INSERT deployments", 1), ("INSERT videos", 1), ("DROP", 2),
                        ("COMMIT", 2), ("UPDATE entries", 1)),
             "postgres": (("CREATE", 3), ("CREATE", 20), ("CREATE", 9), ("INSERT coefvq_vmp_schema", 1),
                          ("COMMIT", 1))}  # fmt: skip
#: the steps of a stream in four parts, and of how many of them one is chosen
STREAM = (
    (("INSERT deployments", 1), ("poll", 6), ("INSERT videos", 9), ("INSERT entries", 9), ("DELETE due", 6),
     ("INSERT pending", 12), ("COMMIT", 9), ("INSERT offsets", 6), ("judged", 9)),
    (("UPDATE deployments", 1), ("judged", 6), ("INSERT effects", 12), ("BEGIN", 9), ("UPDATE pending", 6),
     ("INSERT dead_letters", 4), ("INSERT videos", 9), ("applied", 9), ("COMMIT", 12)),
    (("INSERT test_fences", 1), ("applied", 6), ("INSERT due", 6), ("INSERT offsets", 6), ("DELETE pending", 12),
     ("answered", 4), ("INSERT budget", 6), ("INSERT entries", 9), ("poll", 9)),
    (("INSERT deployments", 1), ("DELETE dead_letters", 2), ("INSERT effects", 9), ("COMMIT", 12), ("BEGIN", 12),
     ("INSERT entries", 12), ("INSERT offsets", 9), ("INSERT videos", 9), ("poll", 6)),
)  # fmt: skip
CAMPAIGN = (("UPDATE campaigns", 4), ("INSERT entries", 4), ("COMMIT", 6), ("answered", 3), ("INSERT effects", 4),
            ("DELETE pending", 9), ("BEGIN", 6), ("UPDATE campaigns", 2), ("INSERT videos", 3))  # fmt: skip
COMPACTION = (("DELETE events", 200), ("INSERT cut", 1), ("DELETE effects", 1), ("COMMIT", 2), ("VACUUM", 1),
              ("BEGIN", 3))  # fmt: skip


def plans(rng: random.Random, steps: Sequence[tuple[str, int]], anywhere: int = 0) -> list[Plan | None]:
    found: list[Plan | None] = [Plan(step, rng.randint(1, most)) for step, most in steps]
    found += [None] * anywhere
    rng.shuffle(found)
    return found


def test_kills_of_two_workers_leave_the_oracle_s_index(
    state: Path, workers: multiprocessing.context.ForkServerContext, index_place: Path | str
) -> None:
    rng, store = random.Random(3), "sqlite" if isinstance(index_place, Path) else "postgres"
    traffic, record = Traffic(random.Random(5)), decisions(6, 3, EVENTS)
    crew = Crew(workers, Job(state, record), rng)
    if store == "sqlite":
        with open_state(state) as (log, _):
            traffic.publish(log, OLD, views=False)
        crew.finish()
        as_version(state, 1)
    else:
        with open_log(state / "log.sqlite") as log:
            traffic.publish(log, OLD)
    crew.work(plans(rng, MIGRATION[store]), kind="migrate", at_once=1)
    # each pair of workers finds new events: one that does not come to its step takes all there are
    pairs = [[*plans(rng, steps[at : at + 2]), None] for steps in STREAM for at in range(0, len(steps), 2)]
    for number, pair in enumerate(pairs, start=1):
        with open_state(state) as (log, _):
            traffic.publish(log, EVENTS * number // len(pairs))
        crew.work(pair)
        if number == len(pairs) // 2:
            crew.work(plans(rng, COMPACTION[:3]), kind="compact", at_once=1)
    crew.finish()
    with open_state(state) as (_, index):
        assert index.committed(CONSUMER) == EVENTS
        started = Campaigns(index.database).start(NOW)
        assert started.total > 100
    crew.work(plans(rng, CAMPAIGN, anywhere=2))
    crew.finish()
    crew.work(plans(rng, COMPACTION), kind="compact", at_once=1)

    with open_state(state) as (log, index):
        last = Campaigns(index.database).last()
        assert last is not None
        assert last.state == "done"
        head, bundles = max(known_bundles(index).items())
        assert bundles == record[-1][1].bundle_text
        kinds = check_index(index, traffic, head, record[-1][1].bundles)
        now = datetime.now(UTC)
        done = retention.compact(state, log, index, now, timedelta(0), timedelta(days=36_500))
        assert check_index(index, traffic, head, record[-1][1].bundles) == kinds
    effects, doubled = reported(state)
    print(f"{store}: {crew.kills.total()} kills ({dict(sorted(crew.kills.items()))}), {crew.busy} busy, "
          f"{len(traffic.events)} events, {traffic.refused} duplicates refused, {dict(kinds)}, {done}")  # fmt: skip
    missing = [event.offset for event in traffic.events if effects[CONSUMER, event.offset] != 1]
    assert (missing, doubled) == ([], 0)
    assert crew.kills.total() >= 50
    assert set(kinds) == {"live", "removed", "deleted", "poison"}
    assert traffic.refused > 100


def test_the_harness_sees_a_sink_that_commits_first(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    rng, traffic = random.Random(7), Traffic(random.Random(5))
    with open_state(state) as (log, _):
        traffic.publish(log, 1_000)
    crew = Crew(workers, Job(state, decisions(0, 0, 1_000)), rng)
    crew.work([Plan("between", 3), Plan("between", 2)], kind="commit first")
    crew.work([Plan()], kind="commit first")
    effects, _ = reported(state)
    lost = sum(effects["rows", event.offset] == 0 for event in traffic.events)
    print(f"commit first: {crew.kills.total()} kills lost {lost} of {len(traffic.events)} events")
    assert crew.kills["between"] == 2
    assert lost > 0
