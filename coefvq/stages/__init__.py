"""One module per DVC stage: read, one pure call, write.

``STAGES`` is what the command line offers and what tests/unit/test_contract.py holds dvc.yaml to: the
same names, and for each the same sections of params.yaml and recipe.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from coefvq.config import Params


@dataclass(frozen=True)
class StageSpec:
    """A stage's name, the sections it reads, and its one-line help.

    ``sections`` are those of params.yaml ({issue} stands for the issue), ``recipe`` those of recipe.yaml.
    """

    name: str
    sections: tuple[str, ...]
    per_issue: bool
    help: str
    recipe: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Dotted name of the module with ``run``."""
        return f"coefvq.stages.{self.name.replace('-', '_')}"

    def run(self, params: Params, issue: str | None) -> None:
        """Import the stage and run it."""
        module = import_module(self.module)
        if self.per_issue:
            module.run(params, issue)
        else:
            module.run(params)


STAGES = (
    StageSpec("ingest", ("issues", "ingest", "paths.media"), False, "Import and probe raw clips into the manifest."),
    StageSpec("validate", ("issues", "validate"), False, "Check the manifest with Great Expectations."),
    StageSpec(
        "split", ("seed", "issues", "split", "validate"), False, "Assign grouped train, val, test and traffic splits."
    ),
    StageSpec(
        "train-base",
        ("seed", "media.{issue}", "base.{issue}", "ingest.limits", "loading", "tracking"),
        True,
        "Train the light first-stage model.",
        ("models", "media", "base"),
    ),
    StageSpec(
        "train-mllm",
        ("seed", "media.{issue}", "mllm.{issue}", "ingest.limits", "loading", "tracking"),
        True,
        "Fine-tune the multimodal LLM with LoRA.",
        ("models", "media", "mllm"),
    ),
    StageSpec(
        "predict",
        ("media.{issue}", "ingest.limits", "loading", "predict"),
        True,
        "Score val, test and traffic with both models.",
        ("media",),
    ),
    StageSpec(
        "evaluate", ("seed", "evaluate"), True, "F1 and R@P of both models, the metadata shortcut and the Bayes rows."
    ),
    StageSpec(
        "thresholds",
        ("seed", "evaluate", "thresholds.{issue}"),
        True,
        "Pick the cascade's thresholds on validation data.",
    ),
    StageSpec(
        "stability",
        ("seed", "media.{issue}", "ingest.limits", "loading", "predict", "stability"),
        True,
        "Score videos near the thresholds in other ways and count who changes sides.",
        ("media",),
    ),
    StageSpec(
        "candidate",
        ("seed", "media.{issue}", "ingest.limits", "predict"),
        True,
        "Bind models, policy and data hashes into one candidate.",
        ("media",),
    ),
)
