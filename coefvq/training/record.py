"""The record that a training writes while it runs; ``registry.tracking`` keeps it, which training does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from coefvq.data.splits.rows import DataHashes


class TrainingRecord(Protocol):
    """Curves, figures and the model of one training."""

    def log_curve(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One point of each curve."""

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Final figures."""

    def log_model_folder(self, path: Path, kind: Literal["base", "mllm"], issues: str | Sequence[str]) -> str:
        """The trained model of an issue, or of several that share it; returns its id."""

    def record(self) -> dict[str, str]:
        """The ids under which it was kept."""


class OpenRecord(Protocol):
    """Opens a record by its name, with the settings to log and the data of the training."""

    def __call__(
        self, name: str, logged: Mapping[str, Any], data: DataHashes
    ) -> AbstractContextManager[TrainingRecord]:
        """The record is closed when the block ends, as failed where it raises."""
