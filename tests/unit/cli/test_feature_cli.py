"""``coefvq features``: what scripts read of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coefvq.cli.features import app
from coefvq.models.dataset import VideoDataset
from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.features.store import FeatureStore
from coefvq.training.loop import FitData, FitPlan, fit
from coefvq.training.sampling import LengthGrouped
from tests.settings import training_settings
from tests.unit.frozen_models import frozen_model, stored_clips


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path))
    found = FeatureStore(tmp_path / "features", 2**30)
    videos, clips = stored_clips(tmp_path, 5)
    with found.lease() as lease:
        FeatureBuilder(cached_model(frozen_model("multitower")), found, clips, lease, 1).build(videos)
    return found


def run(repository: Path, *arguments: str, code: int = 0) -> dict[str, object]:
    command = [*arguments, "--json", "--params", str(repository / "params.yaml")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == code, result.output
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


def test_stats_verify_prune(store: FeatureStore, repository: Path) -> None:
    parts = run(repository, "stats")["parts"]
    assert isinstance(parts, list)
    assert {part["name"]: part["entries"] for part in parts} == {
        "vision_features": 5,
        "text_features": 5,
        "audio_features": 5,
    }
    assert run(repository, "verify")["damaged"] == []
    shard = store.all_shards()[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert run(repository, "verify", code=1)["damaged"] == [str(shard.relative_to(store.root))]
    run(repository, "verify", "--remove")
    assert not shard.exists()
    assert run(repository, "prune", "--unused-days", "1")["shards"] == 0
    assert run(repository, "prune", "--max-gib", "0")["shards"] == 2
    assert store.size() == 0


class Recorded(VideoDataset):
    """Remembers which rows were read."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.read: list[int] = []

    def __getitem__(self, index: int):
        self.read.append(index)
        return super().__getitem__(index)


def test_the_trainer_takes_the_order_of_the_sampler(tmp_path: Path) -> None:
    videos, clips = stored_clips(tmp_path, 8)
    labels = [number % 2 for number in range(8)]
    train, val = Recorded(videos, clips, labels), VideoDataset(videos[:4], clips, labels[:4])
    lengths = [3, 9, 4, 8, 5, 7, 6, 2]
    fit(
        frozen_model("frames"),
        FitData(train, val, sampler=LengthGrouped(lengths, 4, 1)),
        FitPlan(training_settings(num_train_epochs=2.0), 1),
    )
    expected = LengthGrouped(lengths, 4, 1)
    first = list(expected)
    expected.set_epoch(1)
    assert train.read == [*first, *expected]
    assert train.read[:8] != train.read[8:]
