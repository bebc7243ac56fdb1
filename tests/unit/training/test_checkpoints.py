"""Checkpoints are whole or not there, belong to one run, and survive a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from coefvq.errors import StorageError, TrainingError
from coefvq.training.checkpoints import CheckpointFolder

IDENTITY = {"preset": "tiny", "manifest": "aa11", "training.learning_rate": 0.002, "model.issues": ("icd",)}


def folder(root: Path, limit: int = 2, **changes: str) -> CheckpointFolder:
    return CheckpointFolder(root / "run", IDENTITY | changes, limit=limit)


def written(kept: CheckpointFolder, *steps: int) -> None:
    for step in steps:
        kept.begin(step)
        kept.write(step, {"model.safetensors": bytes([step]) * 5000, "state.json": b"{}"})
        kept.commit(step)


def names(kept: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in kept.root.iterdir())


def test_the_newest_counts_and_the_limit_holds(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    assert kept.newest() is None
    written(kept, 2, 10, 100)
    found = kept.newest()
    assert found is not None
    assert found.step == 100
    assert names(kept) == ["step-00000010", "step-00000100"]
    kept.remove()
    assert not kept.root.exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "file gone", "manifest gone", "manifest cut"])
def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    kept = folder(tmp_path)
    written(kept, 1, 2)
    weights, manifest = (kept.at(2).path / name for name in ("model.safetensors", "manifest.json"))
    if damage == "truncate":
        os.truncate(weights, 4999)
    elif damage == "flip":
        weights.write_bytes(b"\x03" + weights.read_bytes()[1:])
    elif damage == "file gone":
        weights.unlink()
    elif damage == "manifest gone":
        manifest.unlink()
    else:
        os.truncate(manifest, 40)
    with pytest.warns(UserWarning, match=r"step-00000002: .*going on from an older one"):
        found = kept.newest()
    assert found is not None
    assert found.step == 1
    written(kept, 2)  # the same step again replaces the damaged one
    again = kept.newest()
    assert again is not None
    assert again.step == 2


def test_what_a_killed_process_left_is_not_seen_and_goes(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    written(kept, 1)
    kept.begin(2)
    kept.write(2, {"model.safetensors": b"half"})
    found = folder(tmp_path).newest()
    assert found is not None
    assert found.step == 1
    written(kept, 3)
    assert names(kept) == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize(("key", "old", "new"), [("preset", "tiny", "starter"), ("manifest", "aa11", "bb22")])
def test_another_preset_or_data_version_is_refused_with_both_named(
    tmp_path: Path, key: str, old: str, new: str
) -> None:
    written(folder(tmp_path), 1)
    with pytest.raises(TrainingError, match=rf"{key} {old} \(this run: {new}\)"):
        folder(tmp_path, **{key: new}).newest()


def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = folder(tmp_path)
    written(kept, 1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    kept.begin(2)
    with pytest.raises(StorageError, match=r"No space left on device; step 1 is kept .*free space") as caught:
        kept.write(2, {"model.safetensors": b"x" * 100})
    assert "\n" not in str(caught.value)
    assert names(kept) == ["step-00000001"]


def test_a_second_training_of_the_same_model_is_kept_away(tmp_path: Path) -> None:
    with folder(tmp_path).lock(), pytest.raises(TrainingError, match="another process"), folder(tmp_path).lock():
        pass
    with folder(tmp_path).lock():
        pass


def test_only_its_own_checkpoints_are_removed(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    written(kept, 1)
    (kept.root / "notes.txt").write_text("mine")
    kept.remove()
    assert names(kept) == ["notes.txt"]


def test_the_manifest_says_what_the_run_is(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    written(kept, 1)
    manifest = json.loads((kept.at(1).path / "manifest.json").read_text())
    assert manifest["identity"]["preset"] == "tiny"
    assert set(manifest["sha256"]) == {"model.safetensors", "state.json"}
