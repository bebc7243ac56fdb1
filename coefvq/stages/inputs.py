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
    MediaLimits,
    MediaSpec,
    MLLMParams,
    Paths,
    Predict,
    Runtime,
    Split,
    Stability,
    Thresholds,
    Tracked,
    Tracking,
    Untracked,
    Validate,
)
from coefvq.training.settings import ReadingSettings, TrainingSettings


class IngestInputs(Inputs):
    """Import and probing; DVC compares the place of the clips, since a table may name other clips there."""

    issues: Annotated[tuple[str, ...], Tracked("issues")]
    ingest: Annotated[Ingest, Tracked("ingest")]
    media: Annotated[str | None, Tracked("paths.media")]
    paths: Annotated[Paths, Untracked("paths")]
    runtime: Annotated[Runtime, Untracked("runtime")]


class ValidateInputs(Inputs):
    """Expectations on the manifest."""

    issues: Annotated[tuple[str, ...], Tracked("issues")]
    expected: Annotated[Validate, Tracked("validate")]
    paths: Annotated[Paths, Untracked("paths")]


class SplitInputs(Inputs):
    """Splitting, and expectations on each split."""

    seed: Annotated[int, Tracked("seed")]
    issues: Annotated[tuple[str, ...], Tracked("issues")]
    split: Annotated[Split, Tracked("split")]
    expected: Annotated[Validate, Tracked("validate")]
    paths: Annotated[Paths, Untracked("paths")]


class TrainBaseInputs(Inputs):
    """A base model, and where its run is recorded."""

    settings: TrainingSettings
    model: Annotated[BaseModelParams, Tracked("base.{issue}")]
    tracking: Annotated[Tracking, Tracked("tracking")]


class TrainMLLMInputs(Inputs):
    """An MLLM, and where its run is recorded."""

    settings: TrainingSettings
    model: Annotated[MLLMParams, Tracked("mllm.{issue}")]
    tracking: Annotated[Tracking, Tracked("tracking")]


class TeachInputs(Inputs):
    """The MLLM's scores for a base model that is distilled; what the MLLM sees is in its folder."""

    issue: str
    model: Annotated[BaseModelParams, Tracked("base.{issue}")]
    near_duplicates: Annotated[int | None, Tracked("split.near_duplicates")]
    predict: Annotated[Predict, Tracked("predict")]
    reading: ReadingSettings
    paths: Annotated[Paths, Untracked("paths")]
    protocols: Annotated[tuple[str, ...], Untracked("ingest.protocols")]


class PredictInputs(Inputs):
    """Scoring with both models; what they see is in their folders."""

    issue: str
    predict: Annotated[Predict, Tracked("predict")]
    reading: ReadingSettings
    paths: Annotated[Paths, Untracked("paths")]
    protocols: Annotated[tuple[str, ...], Untracked("ingest.protocols")]


class EvaluateInputs(Inputs):
    """Figures of both models; the seed draws the bootstrap."""

    issue: str
    seed: Annotated[int, Tracked("seed")]
    evaluate: Annotated[Evaluate, Tracked("evaluate")]
    paths: Annotated[Paths, Untracked("paths")]


class ThresholdsInputs(Inputs):
    """The search for a policy, and the figures it is judged by."""

    issue: str
    seed: Annotated[int, Tracked("seed")]
    evaluate: Annotated[Evaluate, Tracked("evaluate")]
    thresholds: Annotated[Thresholds, Tracked("thresholds.{issue}")]
    paths: Annotated[Paths, Untracked("paths")]


class StabilityInputs(Inputs):
    """Scoring near the thresholds in other ways."""

    issue: str
    seed: Annotated[int, Tracked("seed")]
    media: Annotated[MediaSpec, Tracked("media.{issue}")]
    predict: Annotated[Predict, Tracked("predict")]
    stability: Annotated[Stability, Tracked("stability")]
    reading: ReadingSettings
    paths: Annotated[Paths, Untracked("paths")]
    protocols: Annotated[tuple[str, ...], Untracked("ingest.protocols")]


class CandidateInputs(Inputs):
    """What a pair records of how it was made and is to be served."""

    issue: str
    seed: Annotated[int, Tracked("seed")]
    media: Annotated[MediaSpec, Tracked("media.{issue}")]
    limits: Annotated[MediaLimits, Tracked("ingest.limits")]
    predict: Annotated[Predict, Tracked("predict")]
    paths: Annotated[Paths, Untracked("paths")]
