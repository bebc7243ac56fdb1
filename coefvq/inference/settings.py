"""Settings with which a model scores, and how to read those that a released pair carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from coefvq.config import Approximate, MediaLimits, Scoring
from coefvq.data.media.limits import kept_limits
from coefvq.errors import ModelError
from coefvq.files import sha256_json, sha256_tree

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier
    from coefvq.models.shared import TowerPool

Section = TypeVar("Section", bound=BaseModel)

NOTHING = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
EXACT = Scoring(dtype="float32", savings="exact", approximate=NOTHING)


@dataclass(frozen=True)
class Recorded:
    """How a released pair is scored, as its ``preprocessing`` says: what is computed how, and what a clip may cost."""

    scoring: Scoring
    limits: MediaLimits


def recorded(preprocessing: Mapping[str, Any]) -> Recorded:
    """The settings that a released pair was made with; exact and ``kept_limits(None)`` where it says nothing.

    Raises:
        ModelError: this version does not know the settings.
    """
    limits = _section(preprocessing, "limits", MediaLimits)
    return Recorded(_section(preprocessing, "scoring", Scoring) or EXACT, kept_limits(limits))


def _section(preprocessing: Mapping[str, Any], name: str, kind: type[Section]) -> Section | None:
    if name not in preprocessing:
        return None
    try:
        return kind.model_validate_json(json.dumps(preprocessing[name]))
    except ValueError as error:
        raise ModelError(
            f"preprocessing.{name} of the released pair: not known here ({error}); update coefvq"
        ) from error


def load_for_scoring(folder: Path, scoring: Scoring = EXACT, towers: TowerPool | None = None) -> Classifier:
    """A trained model with the switches of ``scoring`` on (coefvq/models/fast); it cannot be trained or saved.

    The base model, which sees every video, takes the exact savings only. Published towers are taken from ``towers``
    where it has them, if the model computes in float32 without approximations. An MLLM of several issues is taken from
    there as a whole, if a folder with the same bytes was loaded with the same settings; of one that differs in norm and
    head alone, all but these. A LLaVA-OneVision that another model of ``towers`` starts from is read and held once;
    this model's adapters then stay beside it.

    Raises:
        ModelError: a file is missing or does not fit, or an approximation does not fit this model.
    """
    from coefvq.models.model_config import read_config

    if towers is None or len(read_config(folder).issues) == 1:
        return _loaded(folder, scoring, towers)
    key = sha256_json([sha256_tree(folder), scoring.model_dump()])
    if key not in towers.models:
        towers.models[key] = _loaded(folder, scoring, towers)
    return towers.models[key]


def model_key(folder: Path, scoring: Scoring) -> str:
    """What a score of the model in ``folder`` depends on beside the clip: its files, and how it is computed here."""
    from coefvq.models.fast.conditions import has_bfloat16

    dtype = "bfloat16" if scoring.dtype == "auto" and has_bfloat16() else scoring.dtype
    return sha256_json([sha256_tree(folder), scoring.model_copy(update={"dtype": dtype}).model_dump(mode="json")])


def _loaded(folder: Path, scoring: Scoring, towers: TowerPool | None) -> Classifier:
    from coefvq.models.classifier import load, read_description
    from coefvq.models.trunks import on_trunk_of, trunk_key

    if towers is None:
        return ready_for_scoring(load(folder), scoring)
    config, text = read_description(folder)
    key = trunk_key(folder, config, scoring)
    if key is not None and key in towers.trunks:
        return on_trunk_of(towers.trunks[key], folder, config, text, towers.memo)
    backbone = towers.backbone(config, scoring)
    classifier = load(folder, backbone)
    if _adopts(classifier, scoring):
        towers.adopt(classifier)
    classifier = ready_for_scoring(classifier, scoring, apart=backbone is not None)
    if key is not None:
        towers.trunks[key] = classifier
    return classifier


def _adopts(classifier: Classifier, scoring: Scoring) -> bool:
    """Whether towers give this model what they give others: float32, without approximations."""
    from coefvq.models.fast.conditions import has_bfloat16

    applicable = _applicable(classifier, scoring)
    exact = applicable.dtype == "float32" or (applicable.dtype == "auto" and not has_bfloat16())
    return exact and applicable.approximate == NOTHING


def ready_for_scoring(classifier: Classifier, scoring: Scoring = EXACT, apart: bool = False) -> Classifier:
    """``load_for_scoring`` of a model that is loaded; its network is changed in place.

    With ``apart`` weights are neither merged with adapters nor packed, since other models have them too.
    """
    from coefvq.models.fast.switches import choose, prepare

    applicable = _applicable(classifier, scoring)
    switches = choose(applicable.savings, applicable.dtype, applicable.approximate)
    return prepare(classifier, [switch for switch in switches if not (apart and switch.replaces_weights)])[0]


def _applicable(classifier: Classifier, scoring: Scoring) -> Scoring:
    base = classifier.config.kind == "base"
    return scoring.model_copy(update={"dtype": "float32", "approximate": NOTHING}) if base else scoring
