"""The steps of ``scale.py`` that are no commands of their own; run in a workspace.

``training``: all that ``train-base`` does before the first batch, but for decoding: no clip is there to decode.
``features``: a build of the feature cache with a tower that costs nothing, so that what is left is the cache's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from coefvq.compute.collection import collect_rarely
from coefvq.compute.freed_memory import keep_freed_memory
from coefvq.config import load_params
from coefvq.training.settings import TrainingSettings

_FLOATS = 32


class _StartedError(Exception):
    """The training is about to read its first batch."""


def training() -> None:
    """Read the tables, build the model and the datasets of ucc's base model."""
    from coefvq.data.media.clips import ClipStore
    from coefvq.stages.inputs import TrainBaseInputs
    from coefvq.training import run

    params = load_params(Path("params.yaml"))
    runtime = params.runtime.model_copy(update={"features": "off", "loader_workers": 1})
    inputs = TrainBaseInputs.of(params.model_copy(update={"runtime": runtime}), "ucc")

    @contextmanager
    def record(name: str, logged: Mapping[str, Any], data: Any) -> Iterator[Any]:
        yield None

    def started(*_: Any) -> None:
        raise _StartedError

    with patch.object(ClipStore, "try_fill", lambda *_: {}), patch.object(run, "fit", started):
        try:
            run.train_and_record(inputs.settings, inputs.model, record)
        except _StartedError:
            return
    raise SystemExit("the training did not come to its first batch")


def features() -> None:
    """Build a cache of the text of every video; the tower gives the same numbers for each."""
    import torch
    from torch import nn

    from coefvq.data.manifest import read_table
    from coefvq.data.media.clips import ClipStore
    from coefvq.models.dataset import Collator
    from coefvq.models.frozen import READS, FrozenPart
    from coefvq.models.text import train_text_encoder
    from coefvq.records import VideoInput
    from coefvq.training.features.build import FeatureBuilder
    from coefvq.training.features.keys import CachedModel, PartKey
    from coefvq.training.features.store import FeatureStore

    settings = TrainingSettings.of(load_params(Path("params.yaml")), "ucc")
    titles = read_table(Path("data/manifest.parquet"))["title"]
    videos = [VideoInput(str(row), Path("none"), title, sha256=f"{row:064x}") for row, title in enumerate(titles)]
    answer = torch.zeros(1, _FLOATS)
    part = FrozenPart("text", READS, lambda ids, mask: answer.clone(), (nn.Linear(1, 1),))
    collator = Collator(train_text_encoder(["a title"], 300, 64), 0, None)
    model = CachedModel((part,), {"text": PartKey("text", {})}, collator, torch.device("cpu"))
    store = FeatureStore(Path("cache/features"), 2**40)
    with store.lease() as lease:
        clips = ClipStore(Path("cache"), settings.media, settings.reading.limits)
        built = FeatureBuilder(model, store, clips, lease, 1).build(videos)
    if built.computed != len(videos):
        raise SystemExit(f"{built.computed} of {len(videos)} videos were computed; delete cache/features")


if __name__ == "__main__":
    # as every command does
    keep_freed_memory()
    collect_rarely()
    {"training": training, "features": features}[sys.argv[1]]()
