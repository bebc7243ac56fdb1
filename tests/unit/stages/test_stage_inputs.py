"""What a stage may read: values of the settings of its issue, and keys that exist and change a result or do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import ValidationError

from coefvq.config import Inputs, Params, Tracked, Untracked, load_params
from coefvq.stages import STAGES, Stage
from coefvq.stages.inputs import IngestInputs, StabilityInputs, TrainBaseInputs, ValidateInputs

#: what changes no result: places, speed, and what may be opened at all
UNTRACKED = {"paths", "runtime", "ingest.protocols"}
#: what a stage only speaks of: it warns where the asked calls are fewer than the positives
SPOKEN_OF = {"split": {"thresholds"}}


@pytest.fixture(scope="module")
def params(repository: Path) -> Params:
    return load_params(repository / "params.yaml")


def untracked(kind: type[Inputs]) -> Iterator[str]:
    for field in kind.model_fields.values():
        yield from (key.key for key in field.metadata if isinstance(key, Untracked))
        if isinstance(field.annotation, type) and issubclass(field.annotation, Inputs):
            yield from untracked(field.annotation)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_key_exists_and_only_places_and_speed_are_untracked(stage: Stage, params: Params) -> None:
    inputs = stage.inputs.of(params, "ucc" if stage.per_issue else None)
    assert set(untracked(stage.inputs)) <= UNTRACKED | SPOKEN_OF.get(stage.name, set())
    with pytest.raises(ValidationError, match="frozen"):
        inputs.paths = None  # type: ignore[attr-defined]


def test_values_are_those_of_the_issue(params: Params) -> None:
    icd, ucc = (TrainBaseInputs.of(params, issue) for issue in ("icd", "ucc"))
    assert (icd.settings.issue, icd.model) == ("icd", params.base["icd"])
    assert (ucc.settings.issue, ucc.model) == ("ucc", params.base["ucc"])
    assert icd.model != ucc.model
    assert ucc.settings.reading.limits == params.ingest.limits
    assert ValidateInputs.of(params).expected == params.validate_
    assert IngestInputs.of(params).media is None
    assert StabilityInputs.per_issue()
    assert not IngestInputs.per_issue()


def test_a_group_stands_for_its_keys_and_each_key_comes_once() -> None:
    class Part(Inputs):
        seed: Annotated[int, Tracked("seed")]
        paths: Annotated[object, Untracked("paths")]

    class Whole(Inputs):
        first: Annotated[object, Tracked("media.{issue}")]
        part: Part
        seed: Annotated[int, Tracked("seed")]

    assert Whole.tracked() == ("media.{issue}", "seed")
    assert not Whole.per_issue()


def test_the_table_of_stages_and_the_commands_import_nothing_heavy(repository: Path) -> None:
    code = (
        "import sys, coefvq.__main__; print(sorted({'torch', 'pandas', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stages_that_run_no_model_import_no_torch(repository: Path) -> None:
    # `teach` runs one only where a base model is distilled
    light = ("ingest", "validate", "split", "teach", "evaluate", "thresholds", "candidate")
    code = "; ".join(["import sys", *(f"import coefvq.stages.{name}" for name in light)])
    code += "; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, check=False)
    assert done.returncode == 0
