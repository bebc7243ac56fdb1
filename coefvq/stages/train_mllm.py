"""splits.parquet -> a fine-tuned MLLM of one issue."""

from __future__ import annotations

from coefvq.stages.common import recorder
from coefvq.stages.inputs import TrainMLLMInputs
from coefvq.training.run import train_and_record


def run(inputs: TrainMLLMInputs) -> None:
    """Fine-tune the second stage of the cascade."""
    record = recorder(inputs.tracking, inputs.settings.issue, "mllm")
    train_and_record(inputs.settings, inputs.model, record)
