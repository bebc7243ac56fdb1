"""splits.parquet -> a trained base model of one issue."""

from __future__ import annotations

from coefvq.stages.common import recorder
from coefvq.stages.inputs import TrainBaseInputs
from coefvq.training.run import train_and_record


def run(inputs: TrainBaseInputs) -> None:
    """Train the first stage of the cascade."""
    record = recorder(inputs.tracking, inputs.settings.issue, "base")
    train_and_record(inputs.settings, inputs.model, record)
