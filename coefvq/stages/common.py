"""What several stages share: validation files, the profile of train, settings of the figures, records of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.config import Evaluate, Paths, Tracking
from coefvq.data.manifest import column_names, read_table
from coefvq.data.splits.rows import CLIP_COLUMNS, DataHashes, columns_but, split_manifest
from coefvq.data.validation.profile import Profile, profile
from coefvq.data.validation.report import ValidationResult, to_html, to_json, to_markdown
from coefvq.evaluation.detail import DetailSettings
from coefvq.evaluation.slices import read_columns
from coefvq.files import write_json, write_text
from coefvq.redaction import redact_value
from coefvq.registry import tracking
from coefvq.registry.bundle import DataRef, PartKind
from coefvq.training.record import OpenRecord, TrainingRecord
from coefvq.training.shared_mllm import IsRecorded

if TYPE_CHECKING:
    import pandas as pd


def data_ref(hashes: DataHashes) -> DataRef:
    """The data of a model as a pair records it; the snapshot's tag is not known yet."""
    return DataRef(manifest_sha256=hashes.manifest, splits_sha256=hashes.splits, version=None)


def train_profile(paths: Paths, issues: Sequence[str]) -> Profile:
    """What the rows look like that models are trained on: without negatives that were dropped.

    Raises:
        DataError: manifest or splits are missing or damaged.
    """
    splits = read_table(Path(paths.splits), ("video_id", "split", "weight"))
    trained = splits.loc[(splits["split"] == "train") & (splits["weight"] > 0), "video_id"]
    rows = read_table(Path(paths.manifest), skip=CLIP_COLUMNS - {"stickers"}, video_ids=trained)
    return profile(rows, issues)


def write_validation(result: ValidationResult, folder: Path, name: str, title: str) -> None:
    """``<name>.json``, ``.md`` and ``.html`` of a validation."""
    write_text(folder / f"{name}.md", to_markdown(result, title))
    write_text(folder / f"{name}.html", to_html(result, title))
    write_json(folder / f"{name}.json", redact_value(to_json(result)))


def detail_settings(evaluate: Evaluate, seed: int) -> DetailSettings:
    """Slices, bootstrap and targets of the evaluation."""
    return DetailSettings(
        precision_targets=evaluate.precision_targets,
        slices=evaluate.slices,
        bootstrap=evaluate.bootstrap,
        group_by=evaluate.group_by,
        seed=seed,
    )


def evaluated_rows(paths: Paths, evaluate: Evaluate) -> pd.DataFrame:
    """The split manifest with the columns that slices and intervals read.

    Raises:
        DataError: a file is missing or damaged.
    """
    needed = read_columns(evaluate.slices, column_names(Path(paths.manifest)))
    if evaluate.group_by is not None:
        needed.add(evaluate.group_by)
    return split_manifest(paths, columns_but(paths, needed))


def recorder(settings: Tracking, issue: str, kind: PartKind) -> OpenRecord:
    """Records a training in the tracking store, which is opened when the training begins."""

    def open_record(name: str, logged: Mapping[str, Any], data: DataHashes) -> AbstractContextManager[TrainingRecord]:
        tracking.configure(settings.uri, settings.experiment)
        return tracking.training_run(name, issue, kind, logged, data_ref(data))

    return open_record


def recorded_in(settings: Tracking) -> IsRecorded:
    """Whether the tracking store still has a model that a training of the same settings made."""

    def is_recorded(model_id: str) -> bool:
        tracking.configure(settings.uri, settings.experiment)
        return tracking.has_model(model_id, "model")

    return is_recorded
