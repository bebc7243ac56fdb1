"""One module per DVC stage: read, one pure call, write.

``STAGES`` is what the command line offers and what tests/unit/test_contract.py holds dvc.yaml to: the
same names, and for each the sections of params.yaml and recipe.yaml that its inputs come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from coefvq.config import Inputs, Recipe
from coefvq.stages.inputs import (
    CandidateInputs,
    EvaluateInputs,
    IngestInputs,
    PredictInputs,
    SplitInputs,
    StabilityInputs,
    TeachInputs,
    ThresholdsInputs,
    TrainBaseInputs,
    TrainMLLMInputs,
    ValidateInputs,
)


@dataclass(frozen=True)
class Stage:
    """A stage's name, what it may read, and its one-line help; its module has ``run`` of the inputs."""

    name: str
    inputs: type[Inputs]
    help: str

    @property
    def per_issue(self) -> bool:
        """Whether the stage runs for each issue by itself."""
        return self.inputs.per_issue()

    @property
    def sections(self) -> tuple[str, ...]:
        """Sections of params.yaml that DVC compares; ``{issue}`` stands for the issue."""
        return tuple(key for key in self.inputs.tracked() if "{issue}" in key or key not in Recipe.model_fields)

    @property
    def recipe(self) -> tuple[str, ...]:
        """Sections of recipe.yaml that DVC compares: those that hold for all issues."""
        named = {key.partition(".")[0] for key in self.inputs.tracked()}
        return tuple(name for name in Recipe.model_fields if name in named)

    @property
    def module(self) -> str:
        """Dotted name of the module with ``run``."""
        return f"coefvq.stages.{self.name.replace('-', '_')}"

    def run(self, inputs: Inputs) -> None:
        """Import the stage, which takes seconds, and run it."""
        import_module(self.module).run(inputs)


STAGES = (
    Stage("ingest", IngestInputs, "Import and probe raw clips into the manifest."),
    Stage("validate", ValidateInputs, "Check the manifest with Great Expectations."),
    Stage("split", SplitInputs, "Assign grouped train, val, test, traffic and unlabelled splits."),
    Stage("train-mllm", TrainMLLMInputs, "Fine-tune the multimodal LLM with LoRA."),
    Stage("teach", TeachInputs, "Score train and unlabelled videos with the MLLM, for a base model that is distilled."),
    Stage("train-base", TrainBaseInputs, "Train the light first-stage model."),
    Stage("predict", PredictInputs, "Score val, test and traffic with both models."),
    Stage("evaluate", EvaluateInputs, "F1 and R@P of both models, the metadata shortcut and the Bayes rows."),
    Stage("thresholds", ThresholdsInputs, "Pick the cascade's thresholds on validation data."),
    Stage("stability", StabilityInputs, "Score videos near the thresholds in other ways and count who changes sides."),
    Stage("candidate", CandidateInputs, "Bind models, policy and data hashes into one candidate."),
)
