"""splits.parquet -> a fine-tuned MLLM of one issue, or of all that share it; the first of their stages trains."""

from __future__ import annotations

from coefvq.stages.common import recorded_in, recorder
from coefvq.stages.inputs import TrainMLLMInputs
from coefvq.training.run import train_and_record


def run(inputs: TrainMLLMInputs) -> None:
    """Fine-tune the second stage of the cascade."""
    issues = inputs.model.issues_with(inputs.settings.issue)
    record = recorder(inputs.tracking, "+".join(issues), "mllm")
    train_and_record(inputs.settings, inputs.model, record, recorded_in(inputs.tracking))
