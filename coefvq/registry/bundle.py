"""The candidate: everything that makes one pair what it is, as one immutable value.

``reports/<issue>/candidate.json`` holds it, and so does ``pair.json`` in the registry. Its content hash
covers what changes the pair's answers (both models' bytes, policy, preprocessing) and nothing else, so
training the same thing twice gives the same hash although run ids and durations differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from coefvq.config import IssueName
from coefvq.errors import RegistryError
from coefvq.files import read_json, sha256_json, sha256_tree

PartKind = Literal["base", "mllm"]
PART_KINDS: tuple[PartKind, ...] = ("base", "mllm")
REQUIRED_METRICS = ("base", "mllm", "cascade")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class ModelRef(_Part):
    """One trained model: its MLflow LoggedModel, the run that made it, and the hash of its folder.

    ``teacher`` is the hash of the MLLM's folder that a base model was distilled from.
    """

    model_id: Name
    run_id: Name
    sha256: Sha256
    teacher: Sha256 | None = None


class DataRef(_Part):
    """The data a pair was trained and judged on; ``version`` is the snapshot's tag, if it has one.

    ``profile`` is ``data.profile.profile`` of the training split, what later data is compared with.
    """

    manifest_sha256: Sha256
    splits_sha256: Sha256
    version: str | None
    profile: dict[str, JsonValue] | None = None


class Retuning(_Part):
    """How a pair came by re-tuning: from which bundle, on which scores and labels.

    The candidate's metrics are then those on the fresh labels; ``champion_f1`` is the F1 of that bundle's policy on
    the same ones. ``labelled``, ``positives`` and ``traffic`` count videos.
    """

    bundle_version: Name
    content_hash: Sha256
    labels_sha256: Sha256
    scores_sha256: Sha256
    labelled: int
    positives: int
    traffic: int
    champion_f1: float | None

    @property
    def version(self) -> str:
        """Version of the pair that it came from."""
        return version_of(self.bundle_version)


class Candidate(_Part):
    """A pair with its policy, preprocessing, data hashes, parameters and metrics.

    ``calibration`` maps "base" and "mllm" to a ``cascade.calibration.Calibrator`` as a dict, or null: what a score
    means as a probability. It changes no decision, so it is no part of the content hash. ``retuned`` is set where the
    models are those of an earlier pair and only the policy is new.
    """

    issue: IssueName
    content_hash: Sha256
    base: ModelRef
    mllm: ModelRef
    policy: dict[str, JsonValue]
    preprocessing: dict[str, JsonValue]
    data: DataRef
    params: dict[str, JsonValue]
    metrics: dict[str, JsonValue]
    calibration: dict[str, JsonValue] | None = None
    retuned: Retuning | None = None

    @model_validator(mode="after")
    def _has_metrics(self) -> Candidate:
        missing = [name for name in REQUIRED_METRICS if not isinstance(self.metrics.get(name), dict)]
        if missing:
            raise ValueError(f"metrics.{missing[0]}: expected an object; {', '.join(REQUIRED_METRICS)} are needed")
        return self

    def metric(self, group: str, key: str) -> JsonValue:
        """One figure of ``metrics``.

        Raises:
            KeyError: it is not there.
        """
        figures = self.metrics[group]
        return figures[key] if isinstance(figures, dict) else None

    def part(self, kind: PartKind) -> ModelRef:
        """The base model or the MLLM."""
        return self.base if kind == "base" else self.mllm

    @property
    def models_sha256(self) -> str:
        """Hex SHA-256 of what scores are made with: both models and the preprocessing, not the policy."""
        return sha256_json([self.base.sha256, self.mllm.sha256, dict(self.preprocessing)])

    def to_json(self) -> dict[str, Any]:
        """The value as candidate.json holds it."""
        return self.model_dump(mode="json")


def registered_name(issue: str, kind: Literal["base", "mllm", "cascade"]) -> str:
    """Name of a registered model, such as ``coefvq-icd-cascade``."""
    return f"coefvq-{issue}-{kind}"


def score_columns(issues: Sequence[str]) -> tuple[str, ...]:
    """Columns of the scores that a logged model answers with: one per issue where it has several."""
    return ("score",) if len(issues) == 1 else tuple(f"score_{issue}" for issue in issues)


def bundle_version(version: str, content_hash: str) -> str:
    """What a served score is stamped with: ``<cascade version>-<first 12 of the content hash>``."""
    return f"{version}-{content_hash[:12]}"


def version_of(bundle_version: str) -> str:
    """The cascade version in such a stamp."""
    return bundle_version.partition("-")[0]


def content_hash(
    issue: str, base_sha256: str, mllm_sha256: str, policy: Mapping[str, Any], preprocessing: Mapping[str, Any]
) -> str:
    """Hex SHA-256 over the parts that change the pair's answers.

    Raises:
        RegistryError: policy or preprocessing hold a value that JSON has no form for, such as NaN.
    """
    parts = {
        "issue": issue,
        "base": base_sha256,
        "mllm": mllm_sha256,
        "policy": dict(policy),
        "preprocessing": dict(preprocessing),
    }
    try:
        return sha256_json(parts)
    except (TypeError, ValueError) as error:
        raise RegistryError(
            f"candidate of {issue}: policy or preprocessing is not plain JSON ({error}); use finite numbers"
        ) from error


def model_ref(folder: Path, run_record: Path) -> ModelRef:
    """Reference to the model in ``folder``, whose training stage wrote ``run_record`` (run.json).

    Raises:
        RegistryError: the folder is empty, run.json lacks a key, or config.json names no proper teacher.
        DataError: run.json is missing or is not a JSON object.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        raise RegistryError(f"{folder}: no trained model here; run its training stage first")
    record = read_json(run_record)
    for key in ("run_id", "model_id"):
        if not isinstance(record.get(key), str):
            raise RegistryError(f"{run_record}: {key}: expected a text; run the training stage again")
    description = folder / "config.json"
    teacher = read_json(description).get("teacher") if description.is_file() else None
    ids = {name: record[name] for name in ("model_id", "run_id")}
    try:
        return ModelRef(**ids, sha256=sha256_tree(folder), teacher=teacher)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RegistryError(f"{folder}: {key}: {first['msg']}; run the training stage again") from error


def build_candidate(
    issue: str,
    *,
    base: ModelRef,
    mllm: ModelRef,
    policy: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    data: DataRef,
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    retuned: Retuning | None = None,
) -> Candidate:
    """Put the parts together and hash them.

    Args:
        metrics: ``base``, ``mllm`` and ``cascade`` (the gate's keys are in ``gates``), optionally more.

    Raises:
        RegistryError: a part does not fit; the message names its key.
    """
    raw = {
        "issue": issue,
        "content_hash": content_hash(issue, base.sha256, mllm.sha256, policy, preprocessing),
        "base": base.model_dump(),
        "mllm": mllm.model_dump(),
        "policy": dict(policy),
        "preprocessing": dict(preprocessing),
        "data": data.model_dump(),
        "params": dict(params),
        "metrics": dict(metrics),
        "calibration": None if calibration is None else dict(calibration),
        "retuned": None if retuned is None else retuned.model_dump(),
    }
    return parse_candidate(raw, f"candidate of {issue}")


def parse_candidate(raw: Any, source: str) -> Candidate:
    """Check a candidate in JSON form; ``source`` is named in errors.

    Raises:
        RegistryError: a key is missing, unknown or ill-typed, or the content hash is not that of the parts.
    """
    try:
        candidate = Candidate.model_validate_json(json.dumps(raw, allow_nan=False))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"{source}: {key}: " if key else f"{source}: "
        raise RegistryError(f"{where}{first['msg']}; run the candidate stage again") from error
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{source}: not plain JSON ({error}); use finite numbers and texts") from error
    expected = content_hash(
        candidate.issue, candidate.base.sha256, candidate.mllm.sha256, candidate.policy, candidate.preprocessing
    )
    if candidate.content_hash != expected:
        raise RegistryError(
            f"{source}: content_hash {candidate.content_hash[:12]} is not that of its parts ({expected[:12]}); "
            "it was edited by hand: run the candidate stage again"
        )
    return candidate


def read_candidate(path: Path) -> Candidate:
    """Read ``candidate.json`` or ``pair.json``.

    Raises:
        DataError: the file is missing or is not JSON.
        RegistryError: its contents do not fit.
    """
    return parse_candidate(read_json(path), str(path))
