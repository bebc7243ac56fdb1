"""Settings that a training reads, as values; the stages fill them from params.yaml and recipe.yaml."""

from __future__ import annotations

from typing import Annotated

from coefvq.config import Inputs, Loading, MediaLimits, MediaSpec, Models, Paths, Runtime, Tracked, Untracked


class ReadingSettings(Inputs):
    """How clips come to a model: what one may cost, how many may be unreadable, how fast."""

    limits: Annotated[MediaLimits, Tracked("ingest.limits")]
    loading: Annotated[Loading, Tracked("loading")]
    runtime: Annotated[Runtime, Untracked("runtime")]


class TrainingSettings(Inputs):
    """What the training of any model reads, beside the section of the model itself."""

    issue: str
    seed: Annotated[int, Tracked("seed")]
    models: Annotated[Models, Tracked("models")]
    media: Annotated[MediaSpec, Tracked("media.{issue}")]
    reading: ReadingSettings
    paths: Annotated[Paths, Untracked("paths")]
    protocols: Annotated[tuple[str, ...], Untracked("ingest.protocols")]
