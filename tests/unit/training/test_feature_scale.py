"""The work of a feature build grows as the videos do, and several processes see each other's shards."""

from __future__ import annotations

import errno
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from coefvq.errors import StorageError
from coefvq.training.features import index as index_module
from coefvq.training.features import store as store_module
from coefvq.training.features.index import JOURNAL
from coefvq.training.features.keys import PartKey
from coefvq.training.features.store import FeatureStore

CHUNK = 8
KEY = PartKey("vision", {"weights": "a"})


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Names listed, sizes asked, headers read and journal bytes read by stores."""
    work: Counter[str] = Counter()

    def count(place: Any, name: str, size: Any) -> None:
        real = getattr(place, name)

        def counting(*given: Any) -> Any:
            answer = real(*given)
            work[name] += size(answer, given)
            return answer

        patch.setattr(place, name, counting)

    with monkeypatch.context() as patch:
        count(index_module, "listed", lambda names, _: 1 + len(names))
        count(index_module, "_lines", lambda _, given: given[2] - given[1])
        count(store_module, "entries_of", lambda *_: 1)
        count(FeatureStore, "all_shards", lambda shards, _: 1 + len(shards))
        yield work


def entries(chunk: int) -> list[str]:
    return [f"{chunk * CHUNK + row:064x}" for row in range(CHUNK)]


def build(root: Path, chunks: int, max_bytes: int = 2**30) -> None:
    """As builders do: look for everything, then chunk by chunk look again and write."""
    store = FeatureStore(root, max_bytes)
    with store.lease() as lease:
        store.lookup(KEY, [name for chunk in range(chunks) for name in entries(chunk)], lease)
        for chunk in range(chunks):
            if store.lookup(KEY, entries(chunk), lease):
                continue
            store.write(KEY, {name: torch.full((4,), chunk % 251, dtype=torch.uint8) for name in entries(chunk)}, lease)


def test_a_build_does_work_in_proportion_to_its_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = {}
    for chunks in (20, 120):
        with counted(monkeypatch) as work:
            build(tmp_path / str(chunks), chunks)
        done[chunks] = sum(work.values())
    assert math.log(done[120] / done[20], 6) <= 1.05, done


def test_a_second_build_reads_each_header_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, 60)
    with counted(monkeypatch) as work:
        build(tmp_path, 60)
    assert work["entries_of"] == 60
    assert work["listed"] == 61
    assert work["_lines"] == 0


def test_a_store_sees_what_another_process_wrote_and_what_it_evicted(tmp_path: Path) -> None:
    here, there = FeatureStore(tmp_path, 2**30), FeatureStore(tmp_path, 2**30)
    with there.lease() as other:
        there.write(KEY, {entries(0)[0]: torch.zeros(4)}, other)
    with here.lease() as lease:
        assert list(here.lookup(KEY, entries(0), lease)) == entries(0)[:1]
        with there.lease() as other:
            path = there.write(KEY, {entries(1)[0]: torch.ones(4)}, other)
            assert here.lookup(KEY, [], lease) == {}
        assert there.prune(max_bytes=0)[0] == 1, "the leased one stays"
        assert not path.exists()
        assert here.lookup(KEY, [*entries(0), *entries(1)], lease).keys() == {entries(0)[0]}
        with there.lease() as other:  # evicted, journal gone, written again
            there.write(KEY, {entries(1)[0]: torch.ones(4)}, other)
        assert here.lookup(KEY, entries(1), lease) == {entries(1)[0]: path}


def test_a_lost_size_or_journal_is_counted_again(tmp_path: Path) -> None:
    build(tmp_path, 3)
    store = FeatureStore(tmp_path, 2**30)
    size = store.size()
    (tmp_path / "size").write_text("nonsense")
    (tmp_path / KEY.digest / JOURNAL).unlink()
    build(tmp_path, 4)
    assert (tmp_path / "size").read_text() == str(store.size())
    assert store.size() > size


def test_eviction_makes_room_for_many_shards_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = 400  # bytes of such a shard, about
    store = FeatureStore(tmp_path, 60 * content)
    with counted(monkeypatch) as work:
        for chunk in range(150):
            with store.lease() as lease:
                store.write(KEY, {entries(chunk)[0]: torch.full((4,), chunk, dtype=torch.int64)}, lease)
    assert store.size() <= store.max_bytes
    assert work["all_shards"] < 150 * 40, "not a listing for each shard that comes"


def test_a_disk_that_fills_during_a_build_is_one_line_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, 3)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device.*free some space") as caught:
            build(tmp_path, 4)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*.safetensors") if path.name.startswith(".")]
    with counted(monkeypatch) as work:
        build(tmp_path, 4)
    assert work["entries_of"] == 3, "what was written before is there, and no more"
