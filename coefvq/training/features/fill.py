"""Fill the feature cache for a model before it is trained; not a stage of the pipeline, a service to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from coefvq.config import BaseModelParams, MLLMParams
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs
from coefvq.data.splits.rows import labelled, split_manifest
from coefvq.errors import ConfigError
from coefvq.records import SPLITS, VideoInput
from coefvq.terminal import progress
from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.job import fresh_classifier, training_job
from coefvq.training.loading import clip_store, decide, feature_store
from coefvq.training.settings import TrainingSettings


def build_features(
    settings: TrainingSettings, section: BaseModelParams | MLLMParams, splits: Sequence[str], runs: int, dry_run: bool
) -> dict[str, Any]:
    """Compute what the model of ``section`` misses; no ``splits`` means the labelled rows of train and val.

    Returns:
        ``decision`` (one line: what auto would do and why), and unless ``dry_run`` what was computed.

    Raises:
        ConfigError: nothing in the model is frozen, or a split is unknown.
        StorageError: the disk or the limit is full.
    """
    if unknown := set(splits) - set(SPLITS):
        raise ConfigError(f"--split {sorted(unknown)[0]}: expected one of {', '.join(SPLITS)}")
    job, reading, rows = training_job(settings, section), settings.reading, split_manifest(settings.paths)
    kind, issue = job.config.kind, job.config.issue
    train, val = (_videos(labelled(rows, job.config.issues, split), settings) for split in ("train", "val"))
    classifier = fresh_classifier(job, settings.seed, reading.limits, train)
    model = cached_model(classifier)
    if not model.parts:
        raise ConfigError(f"{kind} of {issue}: nothing in preset {job.config.preset} is frozen, so nothing can be kept")
    chosen = rows[rows["split"].isin(splits)].reset_index(drop=True)
    videos = _videos(chosen, settings) if splits else [*train, *val]
    store = feature_store(reading.runtime)
    with store.lease() as lease:
        builder = FeatureBuilder(model, store, clip_store(reading, classifier), lease, reading.runtime.workers)
        passes = runs * job.training.num_train_epochs
        facts: dict[str, Any] = {"decision": f"auto: {decide(builder, videos, passes, 'auto')[1]}"}
        if dry_run:
            return facts
        with progress(f"features [{issue} {kind}]", len(videos)) as advance:
            built = builder.build(videos, advance)
    return facts | {
        "videos": len(videos),
        "computed": built.computed,
        "found": built.found,
        "bytes": built.tensor_bytes,
        "seconds": round(built.seconds, 3),
        "skipped": {name: str(error) for name, error in built.skipped.items()},
        "keys": {name: key.digest for name, key in model.keys.items()},
    }


def _videos(rows: pd.DataFrame, settings: TrainingSettings) -> list[VideoInput]:
    return to_inputs(rows, media_root(settings.paths), settings.protocols)
