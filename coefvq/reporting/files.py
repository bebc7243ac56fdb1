"""Reading back what the stages wrote as JSON: a file that was edited, cut or made by another version is named.

The types say what the readers of a report rely on; more keys than that do no harm.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from coefvq.errors import DataError
from coefvq.files import read_json

#: of one model or policy: numbers, None where undefined; intervals and bins are lists or objects
Figures = dict[str, float | list[Any] | dict[str, Any] | None]


class Split(TypedDict):
    """Figures of one split, by model."""

    n: int
    positives: float
    base: Figures
    mllm: Figures


class Evaluation(TypedDict):
    """evaluation.json."""

    issue: str
    precision_targets: list[float]
    test: Split
    test_posterior: Split | None
    val: NotRequired[Split | None]
    metrics: NotRequired[list[str]]
    detail: NotRequired[dict[str, Any]]


class PolicyFigures(TypedDict):
    """One P_base of thresholds.json; what was not reached has no policy and no figures."""

    p_base: float | None
    reachable: bool
    selected: bool
    qps_ratio: float | None
    policy: NotRequired[dict[str, Any] | None]
    val: NotRequired[Figures | None]
    test: Figures | None
    test_posterior: NotRequired[Figures | None]
    qps_ratio_val: NotRequired[float | None]
    base_precision_val: NotRequired[float | None]
    base_recall_val: NotRequired[float | None]
    base_recall_test: NotRequired[float | None]
    qps_ratio_interval: NotRequired[dict[str, float | None] | None]


class Thresholds(TypedDict):
    """thresholds.json."""

    issue: str
    policies: list[PolicyFigures]
    policy: dict[str, Any]
    reason: NotRequired[str]
    mode: NotRequired[str]
    precision_targets: NotRequired[list[float]]


class Stability(TypedDict):
    """stability.json."""

    n: int
    flip_rate: float
    variants: list[dict[str, Any]]


class ModelCalibration(TypedDict):
    """Calibrators of one model by kind, and the one that was chosen, if any."""

    chosen: str | None
    calibrators: dict[str, dict[str, Any]]


class Calibration(TypedDict):
    """calibration.json."""

    base: ModelCalibration
    mllm: ModelCalibration


def read_evaluation(path: Path) -> dict[str, Any]:
    """evaluation.json.

    Raises:
        DataError: it is missing, or a key does not fit.
    """
    return _read(path, Evaluation)


def read_thresholds(path: Path) -> dict[str, Any]:
    """thresholds.json, of whose policies exactly one is selected.

    Raises:
        DataError: it is missing, or a key does not fit.
    """
    found = _read(path, Thresholds)
    chosen = [entry for entry in found["policies"] if entry["selected"]]
    if len(chosen) != 1 or chosen[0]["test"] is None:
        raise DataError(f"{path}: policies: expected one that is selected and has figures; {_REMEDY}")
    return found


def read_stability(path: Path) -> dict[str, Any]:
    """stability.json.

    Raises:
        DataError: it is missing, or a key does not fit.
    """
    return _read(path, Stability)


def read_calibration(path: Path) -> dict[str, Any]:
    """calibration.json: its rows of the two models.

    Raises:
        DataError: it is missing, or a key does not fit.
    """
    read = _read(path, Calibration)
    found = {name: read[name] for name in Calibration.__annotations__}
    for name, row in found.items():
        if row["chosen"] is not None and row["chosen"] not in row["calibrators"]:
            raise DataError(f"{path}: {name}.chosen = {row['chosen']}: expected one of its calibrators; {_REMEDY}")
    return found


_REMEDY = "run its stage again"


def _read(path: Path, shape: Any) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path)
    try:
        _checker(shape).validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {key}: {first['msg'].lower()}; {_REMEDY}") from error
    return found


@lru_cache
def _checker(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
