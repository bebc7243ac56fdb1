"""Fill the feature cache for a model before it is trained; not a stage of the pipeline, a service to it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

from coefvq.config import Params
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs
from coefvq.errors import ConfigError
from coefvq.records import SPLITS, VideoInput
from coefvq.stages.common import split_manifest
from coefvq.stages.loading import clip_store, decide, feature_store
from coefvq.stages.training import TrainingJob, fresh_classifier, training_rows
from coefvq.terminal import progress
from coefvq.training.features.build import Builder
from coefvq.training.features.keys import cached_model


def build_features(
    params: Params, issue: str, kind: Literal["base", "mllm"], splits: Sequence[str], runs: int, dry_run: bool
) -> dict[str, Any]:
    """Compute what is missing; no ``splits`` means the labelled rows of train and val.

    Returns:
        ``decision`` (one line: what auto would do and why), and unless ``dry_run`` what was computed.

    Raises:
        ConfigError: nothing in the model is frozen, or a split is unknown.
        StorageError: the disk or the limit is full.
    """
    if unknown := set(splits) - set(SPLITS):
        raise ConfigError(f"--split {sorted(unknown)[0]}: expected one of {', '.join(SPLITS)}")
    job: TrainingJob = import_module(f"coefvq.stages.train_{kind}").job(params, issue)
    (train, _), (val, _) = training_rows(params, split_manifest(params), issue)
    classifier = fresh_classifier(params, job, train)
    model = cached_model(classifier)
    if not model.parts:
        raise ConfigError(f"{kind} of {issue}: nothing in preset {job.config.preset} is frozen, so nothing can be kept")
    videos = _of_splits(params, splits) if splits else [*train, *val]
    store = feature_store(params)
    with store.lease() as lease:
        builder = Builder(model, store, clip_store(params, classifier), lease, params.runtime.workers)
        passes = runs * job.training.num_train_epochs
        asked = params.model_copy(update={"runtime": params.runtime.model_copy(update={"features": "auto"})})
        facts: dict[str, Any] = {"decision": f"auto: {decide(asked, builder, videos, passes)[1]}"}
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


def _of_splits(params: Params, splits: Sequence[str]) -> list[VideoInput]:
    rows = split_manifest(params)
    return to_inputs(
        rows[rows["split"].isin(splits)].reset_index(drop=True), media_root(params.paths), params.ingest.protocols
    )
