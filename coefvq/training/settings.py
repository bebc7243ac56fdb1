"""Settings that a training reads, as values; the stages fill them from params.yaml and recipe.yaml."""

from __future__ import annotations

from typing import Annotated

from coefvq.config import Inputs, Loading, MediaLimits, MediaSpec, Models, Paths, Runtime, Tracked, Untracked

# the place of each setting that several inputs read
SeedInput = Annotated[int, Tracked("seed")]
MediaInput = Annotated[MediaSpec, Tracked("media.{issue}")]
LimitsInput = Annotated[MediaLimits, Tracked("ingest.limits")]
RuntimeInput = Annotated[Runtime, Untracked("runtime")]
PathsInput = Annotated[Paths, Untracked("paths")]
ProtocolsInput = Annotated[tuple[str, ...], Untracked("ingest.protocols")]


class ReadingSettings(Inputs):
    """How clips come to a model: what one may cost, how many may be unreadable, how fast."""

    limits: LimitsInput
    loading: Annotated[Loading, Tracked("loading")]
    runtime: RuntimeInput


class TrainingSettings(Inputs):
    """What the training of any model reads, beside the section of the model itself."""

    issue: str
    seed: SeedInput
    models: Annotated[Models, Tracked("models")]
    media: MediaInput
    reading: ReadingSettings
    paths: PathsInput
    protocols: ProtocolsInput
