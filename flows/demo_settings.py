"""What the demo makes and asks, by recipe; light, since the help of its command shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SyntheticDemo:
    """Clips of a demo, percent of the videos that may reach the MLLM, and dotted keys of params.yaml."""

    videos: int
    prevalence: dict[str, float]
    calls: float
    settings: dict[str, Any] = field(default_factory=dict)


#: some 400 labels: adapters and projector stay as descriptions taught them, and the head alone learns the issue
_HEAD_ALONE = {"num_train_epochs": 8, "learning_rate": 0.0, "projector_learning_rate": 0.0}
#: Near the paper's prevalence and largest share of calls, since few calls cannot hold many positives (docs/cascade.md).
#: Negatives of train are thinned, and the base models also learn from some videos without their labels.
STARTER = SyntheticDemo(
    2000,
    {"icd": 0.10, "ucc": 0.12},
    15.0,
    {
        "split.fractions": {"train": 0.54, "val": 0.13, "test": 0.14, "traffic": 0.15, "unlabelled": 0.04},
        "split.negatives.train": 0.2,
        "base.icd.distil.unlabelled": "unlabelled",
        "base.ucc.distil.unlabelled": "unlabelled",
        **{f"mllm.{issue}.training.{key}": value for issue in ("icd", "ucc") for key, value in _HEAD_ALONE.items()},
    },
)
#: of other recipes, whose models may learn from many positives only
OTHERS = SyntheticDemo(2000, {"icd": 0.2, "ucc": 0.25}, 40.0)


def synthetic_demo(recipe: str) -> SyntheticDemo:
    """The demo that suits a recipe, for minutes on two cores."""
    return STARTER if recipe == "starter" else OTHERS
