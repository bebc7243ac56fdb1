"""What each stage may read: one frozen model per stage, apart from the stages since these import torch and pandas.

``paths`` say where a stage reads and writes, ``protocols`` which clips may be opened by URL.
"""

from __future__ import annotations

from typing import Annotated

from coefvq.config import (
    BaseModelParams,
    Evaluate,
    Ingest,
    Inputs,
    MLLMParams,
    Predict,
    Split,
    Stability,
    Thresholds,
    Tracked,
    Tracking,
    Untracked,
    Validate,
)
from coefvq.training.settings import (
    LimitsInput,
    MediaInput,
    PathsInput,
    ProtocolsInput,
    ReadingSettings,
    RuntimeInput,
    SeedInput,
    TrainingSettings,
)

# the place of each setting that several stages read
IssuesInput = Annotated[tuple[str, ...], Tracked("issues")]
ValidateInput = Annotated[Validate, Tracked("validate")]
BaseInput = Annotated[BaseModelParams, Tracked("base.{issue}")]
PredictInput = Annotated[Predict, Tracked("predict")]
EvaluateInput = Annotated[Evaluate, Tracked("evaluate")]
TrackingInput = Annotated[Tracking, Tracked("tracking")]


class IngestInputs(Inputs):
    """Import and probing; DVC compares the place of the clips, since a table may name other clips there."""

    issues: IssuesInput
    ingest: Annotated[Ingest, Tracked("ingest")]
    media: Annotated[str | None, Tracked("paths.media")]
    paths: PathsInput
    runtime: RuntimeInput


class ValidateInputs(Inputs):
    """Expectations on the manifest."""

    issues: IssuesInput
    expected: ValidateInput
    paths: PathsInput


class SplitInputs(Inputs):
    """Splitting, and expectations on each split; thresholds change no split, only what is said about them."""

    seed: SeedInput
    issues: IssuesInput
    split: Annotated[Split, Tracked("split")]
    thresholds: Annotated[dict[str, Thresholds], Untracked("thresholds")]
    expected: ValidateInput
    paths: PathsInput


class TrainBaseInputs(Inputs):
    """A base model, and where its run is recorded."""

    settings: TrainingSettings
    model: BaseInput
    tracking: TrackingInput


class TrainMLLMInputs(Inputs):
    """An MLLM, and where its run is recorded."""

    settings: TrainingSettings
    model: Annotated[MLLMParams, Tracked("mllm.{issue}")]
    tracking: TrackingInput


class TeachInputs(Inputs):
    """The MLLM's scores for a base model that is distilled; what the MLLM sees is in its folder."""

    issue: str
    model: BaseInput
    near_duplicates: Annotated[int | None, Tracked("split.near_duplicates")]
    predict: PredictInput
    reading: ReadingSettings
    paths: PathsInput
    protocols: ProtocolsInput


class PredictInputs(Inputs):
    """Scoring with both models; what they see is in their folders."""

    issue: str
    predict: PredictInput
    reading: ReadingSettings
    paths: PathsInput
    protocols: ProtocolsInput


class EvaluateInputs(Inputs):
    """Figures of both models; the seed draws the bootstrap."""

    issue: str
    seed: SeedInput
    evaluate: EvaluateInput
    paths: PathsInput


class ThresholdsInputs(Inputs):
    """The search for a policy, and the figures it is judged by."""

    issue: str
    seed: SeedInput
    evaluate: EvaluateInput
    thresholds: Annotated[Thresholds, Tracked("thresholds.{issue}")]
    paths: PathsInput


class StabilityInputs(Inputs):
    """Scoring near the thresholds in other ways."""

    issue: str
    seed: SeedInput
    media: MediaInput
    predict: PredictInput
    stability: Annotated[Stability, Tracked("stability")]
    reading: ReadingSettings
    paths: PathsInput
    protocols: ProtocolsInput


class CandidateInputs(Inputs):
    """What a pair records of how it was made and is to be served."""

    issue: str
    seed: SeedInput
    media: MediaInput
    limits: LimitsInput
    predict: PredictInput
    paths: PathsInput
