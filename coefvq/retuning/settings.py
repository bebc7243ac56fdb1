"""What a re-tuning reads of params.yaml and recipe.yaml, and what the person gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from coefvq.config import Evaluate, Gate, Inputs, Thresholds, Untracked
from coefvq.stages.inputs import StabilityInputs
from coefvq.vmp.keys import DEFAULT

CANDIDATE = "candidate.json"
#: fewer labels of a class than this make a threshold luck
MIN_LABELS = 20


class RetuneSettings(Inputs):
    """The rule that chooses thresholds, the limits of the gate, and how clips near a threshold are scored again."""

    issue: str
    evaluate: Annotated[Evaluate, Untracked("evaluate")]
    thresholds: Annotated[Thresholds, Untracked("thresholds.{issue}")]
    gate: Annotated[Gate, Untracked("gate")]
    stability: StabilityInputs

    @property
    def folder(self) -> Path:
        """Where a proposal is written; DVC does not know it, since no stage makes it."""
        return self.stability.paths.report(self.issue, "retuned")


@dataclass(frozen=True)
class RetuneRequest:
    """Where scores and labels are.

    ``scores`` is a table of scored traffic; None: the videos of ``tenant`` in the index of the VMP state in the folder
    ``state``. ``qps`` is the percent of videos that may reach the MLLM; None: the rule of ``thresholds`` in
    params.yaml. Fewer positive or negative labels than ``min_labels`` are refused.
    """

    labels: Path
    scores: Path | None
    state: Path
    qps: float | None = None
    min_labels: int = MIN_LABELS
    tenant: str = DEFAULT
