"""params.yaml (what is answered) and recipe.yaml (how models are made) as frozen, strict models.

Sections ``media``, ``base`` and ``mllm`` of the recipe hold for all issues. Sections of the same names in params.yaml
hold, for each issue, the keys that differ. ``load_params`` merges them, so that code sees one setting per issue.

A key that is unknown, missing or ill-typed fails with its dotted name, its value, what was expected
and, where one is near, the name that was probably meant. What a run used can be read in the file, which DVC
tracks; the few keys that may be left out are listed with their values in docs/operations.md, held by a test.
"""

from __future__ import annotations

from coefvq.config.cascade import Approximate, Evaluate, Gate, Predict, Scoring, Stability, Thresholds, Tracking
from coefvq.config.data import (
    Fractions,
    Ingest,
    LabelNames,
    LabelSource,
    Loading,
    MediaLimits,
    Negatives,
    Paths,
    Runtime,
    Split,
    Validate,
)
from coefvq.config.inputs import Inputs, Tracked, Untracked
from coefvq.config.models import (
    Alignment,
    AttentionLayers,
    BaseModelParams,
    Distil,
    Lora,
    MediaSpec,
    MLLMParams,
    Models,
    Recipe,
    Training,
)
from coefvq.config.params import Params, check_issue_names
from coefvq.config.reading import (
    PARAMS_FILE,
    RECIPE_FILE,
    check_form,
    load_params,
    load_recipe,
    parse_params,
    parse_recipe,
    read_mapping,
)
from coefvq.config.values import Fraction, IssueName, Percent, Precision, check_issue_name

__all__ = [
    "PARAMS_FILE",
    "RECIPE_FILE",
    "Alignment",
    "Approximate",
    "AttentionLayers",
    "BaseModelParams",
    "Distil",
    "Evaluate",
    "Fraction",
    "Fractions",
    "Gate",
    "Ingest",
    "Inputs",
    "IssueName",
    "LabelNames",
    "LabelSource",
    "Loading",
    "Lora",
    "MLLMParams",
    "MediaLimits",
    "MediaSpec",
    "Models",
    "Negatives",
    "Params",
    "Paths",
    "Percent",
    "Precision",
    "Predict",
    "Recipe",
    "Runtime",
    "Scoring",
    "Split",
    "Stability",
    "Thresholds",
    "Tracked",
    "Tracking",
    "Training",
    "Untracked",
    "Validate",
    "check_form",
    "check_issue_name",
    "check_issue_names",
    "load_params",
    "load_recipe",
    "parse_params",
    "parse_recipe",
    "read_mapping",
]
