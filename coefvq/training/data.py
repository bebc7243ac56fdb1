"""What a training learns from: labelled videos of train and val, their descriptions, and the hashes of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coefvq.data.descriptions import read_descriptions
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs
from coefvq.data.splits.rows import DataHashes, data_hashes, labelled, split_manifest, validation_of_epochs
from coefvq.errors import SplitError
from coefvq.models.dataset import Label
from coefvq.models.heads import MISSING_LABEL
from coefvq.records import VideoInput, label_column
from coefvq.training.job import TrainingJob
from coefvq.training.settings import TrainingSettings
from coefvq.training.teacher import Teaching, read_teaching

_UNREAD = frozenset({"reason", "published_at", "size_bytes", "duration_s", "fps", "width", "height"})


@dataclass(frozen=True)
class LabelledVideos:
    """Videos of one split, their labels and their sampling weights, in one order.

    A label is 0 or 1 of one issue. Of several issues it is a tuple, in the order of the heads, -100 where an issue has
    none.
    """

    videos: list[VideoInput]
    labels: list[Label]
    weight: pd.Series[float]


@dataclass(frozen=True)
class TrainingData:
    """Train and val of a model; ``descriptions`` (of train) and ``teaching`` are None unless requested."""

    train: LabelledVideos
    val: LabelledVideos
    descriptions: list[tuple[str, ...]] | None
    hashes: DataHashes
    teaching: Teaching | None = None


def read_training_data(settings: TrainingSettings, job: TrainingJob) -> TrainingData:
    """Read, join and hash manifest and splits.

    Raises:
        DataError: a table is missing or damaged, a split has no labelled row, or a teacher is asked for and silent.
        SplitError: the labels of a split are all equal.
    """
    # a teacher looks for copies by the hash of the frames
    skip = _UNREAD if job.distil is not None else {*_UNREAD, "phash"}
    # the videos that a distilled model learns from may be in any split
    splits = None if job.distil is not None else ("train", "val")
    rows, issues = split_manifest(settings.paths, skip, splits), job.config.issues
    train = labelled(rows, issues, "train")
    descriptions = read_descriptions(train, Path(settings.paths.raw)) if job.reads_descriptions else None
    teaching = None
    if job.distil is not None:
        teaching = read_teaching(rows, settings.issue, job.distil, settings.paths, settings.protocols)
    return TrainingData(
        labelled_videos(train, settings, issues, "train"),
        labelled_videos(validation_of_epochs(rows, issues), settings, issues, "val"),
        descriptions,
        data_hashes(settings.paths),
        teaching,
    )


def labelled_videos(
    rows: pd.DataFrame, settings: TrainingSettings, issues: Sequence[str], split: str
) -> LabelledVideos:
    """Model inputs, labels and weights of the labelled rows of a split.

    Raises:
        SplitError: the labels of an issue are all equal.
    """
    columns = [rows[label_column(issue)].astype("Int64") for issue in issues]
    for issue, column in zip(issues, columns, strict=True):
        check_both_classes(column.dropna().tolist(), issue, split)
    filled = [column.fillna(MISSING_LABEL).tolist() for column in columns]
    labels: list[Label] = list(filled[0] if len(filled) == 1 else zip(*filled, strict=True))
    return LabelledVideos(to_inputs(rows, media_root(settings.paths), settings.protocols), labels, rows["weight"])


def check_both_classes(labels: Sequence[int], issue: str, split: str) -> None:
    """A model cannot learn, nor be chosen, from one class.

    Raises:
        SplitError: all labels are equal.
    """
    if len(set(labels)) < 2:
        missing = "positive" if not any(labels) else "negative"
        raise SplitError(
            f"split '{split}' has no {missing} for {issue} among {len(labels)} labelled videos; "
            "label more, or give that split a larger share (split.fractions)"
        )
