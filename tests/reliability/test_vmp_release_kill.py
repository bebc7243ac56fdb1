"""kill -9 while a worker migrates, releases, rolls back and walks a campaign: the index is that of a run without."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coefvq.vmp.log import open_log
from coefvq.vmp.records import Event
from coefvq.vmp.state import open_state
from tests.old_vmp_state import as_version
from tests.reliability import vmp_release_child
from tests.reliability.test_vmp_kill import Child, advance, go_on

pytestmark = pytest.mark.long

EVENTS = 150
#: a step, and at most how many of it pass before the kill, in the order of a run: migration first, campaign last.
#: A step that a run meets once must not be passed: the child would run to its end
STEPS = (
    ("CREATE", 1), ("DROP", 1), ("ALTER", 3), ("INSERT deployments", 1), ("INSERT entries", 3), ("INSERT effects", 3),
    ("INSERT videos", 3), ("COMMIT", 2), ("INSERT effects", 3), ("UPDATE deployments", 1), ("INSERT offsets", 2),
    ("INSERT campaigns", 1), ("INSERT effects", 2), ("UPDATE campaigns", 1), ("COMMIT", 1), ("INSERT entries", 2),
)  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A schema-1 state that the first pair read a third of; some videos change, go or come back."""
    rng, folder = random.Random(5), tmp_path / "vmp"
    with open_state(folder) as (log, _):
        while log.last_offset() < EVENTS:
            video_id = f"v{log.last_offset() // 12 + rng.randrange(5):03}"
            if rng.random() < 0.1 and log.newest([video_id]):
                log.publish([Event(video_id, "delete")])
            else:
                # schema 1 knew no events of views alone
                log.publish([Event(video_id, title=f"title {log.last_offset()}", views=rng.randrange(900))])
    vmp_release_child.live(folder, releases=1)
    as_version(folder, 1)
    return folder


@contextmanager
def child(state: Path, order: str) -> Iterator[Child]:
    command = [sys.executable, "-m", vmp_release_child.__name__, str(state), order]
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def kill_at(state: Path, step: str, times: int, racing: bool, order: str = "one transaction") -> bool:
    """SIGKILL at a step; False if the child ended before."""
    with child(state, order) as process:
        if not advance(process, step, times):
            return False
        if racing:
            go_on(process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return True


def finish(state: Path, order: str = "one transaction") -> None:
    with child(state, order) as process:
        assert not advance(process, "never")
    assert process.returncode == 0


def contents(state: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything the index holds but wall-clock times, and the log."""
    queries = {
        "entries": "SELECT * FROM entries ORDER BY video_id",
        "videos": "SELECT * FROM videos ORDER BY video_id",
        "deployments": "SELECT epoch, decision, bundles, models, withdrawn, fence FROM deployments ORDER BY epoch",
        "dead_letters": "SELECT video_id, source_version, epoch, held FROM dead_letters ORDER BY video_id",
        "due": "SELECT * FROM due",
        "campaigns": "SELECT number, state, epoch, total, scored, decided, changed FROM campaigns",
        "effects": "SELECT consumer, offset, video_id, source_version, epoch, outcome, written FROM effects "
        "ORDER BY consumer, offset, video_id, epoch",
        "offsets": "SELECT * FROM offsets",
    }
    with open_state(state, create=False) as (_, index):
        found = {name: index.database.query(sql) for name, sql in queries.items()}
    with open_log(state / "log.sqlite") as log:
        return found | {"log": [(event.video_id, event.source_version) for event in log.poll(0, EVENTS)]}


def test_kills_at_every_kind_of_step_change_nothing(state: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(state, whole)
    vmp_release_child.live(whole)
    rng = random.Random(11)
    for number, (step, most) in enumerate(STEPS):
        assert kill_at(state, step, rng.randint(1, most), racing=number % 2 == 1), f"ended before {step} ({number})"
    finish(state)
    expected = contents(whole)
    assert contents(state) == expected
    # the run was worth comparing
    states = {cells[2] for cells in expected["entries"]}
    assert {"live", "deleted"} <= states
    assert expected["dead_letters"]
    assert expected["campaigns"][0][1] == "done"
    # a withdrawn verdict stays out of sight where the pair returned to cannot score the video
    with open_state(state) as (_, index):
        withdrawn = {name for (name,) in index.database.query("SELECT video_id FROM served WHERE state = 'withdrawn'")}
        assert withdrawn <= {letter.video_id for letter in index.dead_letters()}


def test_the_harness_sees_a_campaign_that_stores_its_place_first(state: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(state, whole)
    vmp_release_child.live(whole)
    assert kill_at(state, "between", 1, racing=False, order="cursor first")
    finish(state, "cursor first")
    assert contents(state)["entries"] != contents(whole)["entries"]
