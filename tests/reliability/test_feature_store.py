"""Builders that are killed, that run side by side, or that meet a full disk leave a store that is right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.features.shards import read_entry
from coefvq.training.features.store import FeatureStore
from tests.unit.frozen_models import frozen_model, stored_clips

pytestmark = pytest.mark.long

CHILD = Path(__file__).with_name("features_child.py")
COUNT = 96
KILLS = 3


def start(root: Path, clips: Path, *options: str, count: int = COUNT) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", str(CHILD), str(root), str(clips), str(count), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def counts(child: subprocess.Popen[str]) -> dict[str, int]:
    out, error = child.communicate(timeout=240)
    assert child.returncode == 0, error
    found: dict[str, int] = json.loads(out.splitlines()[-1])
    return found


def wait_for_shard(store: FeatureStore, child: subprocess.Popen[str], more_than: int) -> None:
    while len(store.all_shards()) <= more_than and child.poll() is None:
        time.sleep(0.005)


def test_kill_9_and_start_again(tmp_path: Path) -> None:
    """After each kill all that is there is whole, and at the end all is there with the right values."""
    videos, clips = stored_clips(tmp_path / "clips", COUNT)
    store = FeatureStore(tmp_path / "features", 2**30)
    draw = random.Random(5)
    killed = 0
    for _ in range(KILLS):
        child = start(store.root, tmp_path / "clips")
        wait_for_shard(store, child, len(store.all_shards()))
        time.sleep(draw.uniform(0.0, 0.1))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.communicate()
        assert store.verify() == []
    assert killed > 0
    before = len(store.all_shards())
    assert before > 0
    last = counts(start(store.root, tmp_path / "clips"))
    assert last["found"] > 0
    assert last["found"] + last["computed"] == COUNT
    _, size = store.prune()
    assert size == 0  # nothing whole was taken for a left-over
    assert not list(store.root.glob("*/.*.tmp"))
    model = cached_model(frozen_model("mllm"))
    fresh = FeatureStore(tmp_path / "fresh", 2**30)
    with store.lease() as one, fresh.lease() as other:
        found = FeatureBuilder(model, store, clips, one, 1).build(videos)
        expected = FeatureBuilder(model, fresh, clips, other, 1).build(videos[:40])
        assert found.computed == 0
        for name, entries in expected.index.items():
            for entry, shard in entries.items():
                assert torch.equal(read_entry(found.index[name][entry], entry), read_entry(shard, entry))


def test_two_builders_divide_the_work(tmp_path: Path) -> None:
    stored_clips(tmp_path / "clips", COUNT)
    children = [start(tmp_path / "features", tmp_path / "clips") for _ in range(2)]
    done = [counts(child) for child in children]
    # each video once, whoever was first
    assert sum(one["computed"] for one in done) == COUNT
    assert FeatureStore(tmp_path / "features", 2**30).verify() == []


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    stored_clips(tmp_path / "clips", 40)
    store = FeatureStore(tmp_path / "features", 2**30)
    child = start(store.root, tmp_path / "clips", "--file-bytes", "20000", count=40)
    _, error = child.communicate(timeout=240)
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert child.returncode == 7, error
    assert len(lines) == 1
    assert "File too large; free some space" in lines[0]
    assert "Traceback" not in error
    assert store.all_shards() == []
    assert not list(store.root.glob("*/.*.tmp"))
    assert counts(start(store.root, tmp_path / "clips", count=40))["computed"] == 40
