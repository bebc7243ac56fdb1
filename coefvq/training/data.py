"""What a training learns from: labelled videos of train and val, their descriptions, and the hashes of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coefvq.config import Distil
from coefvq.data.descriptions import read_descriptions
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs
from coefvq.data.splits.rows import DataHashes, data_hashes, labelled, labels_of, split_manifest, validation_of_epochs
from coefvq.errors import SplitError
from coefvq.records import VideoInput
from coefvq.training.settings import TrainingSettings
from coefvq.training.teacher import Teaching, read_teaching


@dataclass(frozen=True)
class LabelledVideos:
    """Videos of one split, their 0/1 labels and their sampling weights, in one order."""

    videos: list[VideoInput]
    labels: list[int]
    weight: pd.Series[float]


@dataclass(frozen=True)
class TrainingData:
    """Train and val of one issue; ``descriptions`` of train and ``teaching`` are None where nobody asked for them."""

    train: LabelledVideos
    val: LabelledVideos
    descriptions: list[tuple[str, ...]] | None
    hashes: DataHashes
    teaching: Teaching | None = None


def read_training_data(
    settings: TrainingSettings, with_descriptions: bool, distil: Distil | None = None
) -> TrainingData:
    """Read, join and hash manifest and splits.

    Raises:
        DataError: a table is missing or damaged, a split has no labelled row, or a teacher is asked for and silent.
        SplitError: the labels of a split are all equal.
    """
    rows = split_manifest(settings.paths)
    train = labelled(rows, settings.issue, "train")
    descriptions = read_descriptions(train, Path(settings.paths.raw)) if with_descriptions else None
    teaching = None
    if distil is not None:
        teaching = read_teaching(rows, settings.issue, distil, settings.paths, settings.protocols)
    data = TrainingData(
        labelled_videos(train, settings),
        labelled_videos(validation_of_epochs(rows, settings.issue), settings),
        descriptions,
        data_hashes(settings.paths),
        teaching,
    )
    for split, part in (("train", data.train), ("val", data.val)):
        check_both_classes(part.labels, settings.issue, split)
    return data


def labelled_videos(rows: pd.DataFrame, settings: TrainingSettings) -> LabelledVideos:
    """Model inputs, labels and weights of labelled rows."""
    videos = to_inputs(rows, media_root(settings.paths), settings.protocols)
    return LabelledVideos(videos, labels_of(rows, settings.issue), rows["weight"])


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
