"""The table of the MLLM's scores that a base model is distilled from; the stage teach writes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from coefvq.config import Distil, Paths
from coefvq.data.locations import media_root
from coefvq.data.manifest import parquet_errors, to_inputs, write_table
from coefvq.data.splits.apart import check_unlabelled
from coefvq.data.splits.rows import labelled
from coefvq.errors import DataError, SplitError
from coefvq.files import check_regular
from coefvq.records import UNLABELLED, VideoInput
from coefvq.training.logged_scores import read_logged, row_weights

_COLUMNS = {"video_id": "str", "split": "str", "score": "float64", "teacher": "str", "made_from": "str"}
_WEIGHT = "weight"  # a column where scores were logged by a stream
_WORDS = {"str": "texts", "float64": "numbers"}
_REMEDY = "run the stage teach again"


@dataclass(frozen=True)
class TeacherScores:
    """``table`` has a row per video: id, split and P(positive); ``teacher`` is the SHA-256 of the MLLM's folder.

    ``made_from`` is the hash of everything the scores depend on. Both are empty where no base model is distilled.
    """

    table: pd.DataFrame
    teacher: str
    made_from: str

    def logits(self, videos: list[VideoInput]) -> list[float]:
        """Clamped logits in the order of ``videos``, NaN where the MLLM scored none."""
        from coefvq.training.distilling import teacher_logits

        return self._of(videos, teacher_logits(self.table["score"]), np.nan)

    def weights(self, videos: list[VideoInput]) -> list[float] | None:
        """What each of ``videos`` weighs beside the others; None where all are alike."""
        if _WEIGHT not in self.table:
            return None
        return self._of(videos, self.table[_WEIGHT], 1.0)

    def _of(self, videos: list[VideoInput], values: Iterable[float], missing: float) -> list[float]:
        known = dict(zip(self.table["video_id"], values, strict=True))
        return [float(known.get(video.video_id, missing)) for video in videos]


@dataclass(frozen=True)
class Teaching:
    """Videos without labels, the teacher's scores of these and of train, and their weight beside the labels."""

    unlabelled: list[VideoInput]
    scores: TeacherScores
    weight: float


def teacher_rows(rows: pd.DataFrame, issue: str, distil: Distil, near_duplicates: int | None) -> pd.DataFrame:
    """Rows of the manifest that the teacher scores: labelled ones of train, and unlabelled ones.

    Raises:
        SplitError: there are no unlabelled ones though they are asked for, or they are copies of val or test.
    """
    key = f"base.{issue}.distil.unlabelled"
    train = labelled(rows, issue, "train")
    if distil.unlabelled is None:
        return train
    unlabelled = rows[rows["split"] == distil.unlabelled]
    if unlabelled.empty:
        raise SplitError(
            f"{key}: split '{UNLABELLED}' holds no video; raise split.fractions.{UNLABELLED}, name videos in the "
            "column split of your data, or set it to null to distil on train alone"
        )
    check_unlabelled(rows, near_duplicates, key)
    return pd.concat([train, unlabelled], ignore_index=True)


def logged_rows(rows: pd.DataFrame, logged: str, issue: str) -> pd.DataFrame:
    """Of the teacher's rows the unlabelled ones that a stream has logged, with ``score`` and ``weight``.

    Raises:
        DataError: the table does not fit, or has no video of the split ``unlabelled``.
    """
    key = f"base.{issue}.distil.logged"
    found = read_logged(Path(logged), key)
    known = rows[rows["split"] == UNLABELLED].merge(found, on="video_id", how="inner")
    if known.empty:
        raise DataError(
            f"{key}: none of the {len(found)} videos of {logged} is in split '{UNLABELLED}'; add their clips to the "
            "data with unlabelled in the column split, or set it to null"
        )
    return known.assign(**{_WEIGHT: row_weights(known["probability"])})


def write_teacher(
    path: Path, asked: pd.DataFrame, teacher: str, made_from: str, logged: pd.DataFrame | None = None
) -> None:
    """Write the column ``score`` of the rows, except for videos that have none; with ``logged`` each has a weight."""
    rows = asked if logged is None else pd.concat([asked.assign(**{_WEIGHT: 1.0}), logged])
    columns = _COLUMNS if logged is None else {**_COLUMNS, _WEIGHT: "float64"}
    table = rows.dropna(subset="score").assign(teacher=teacher, made_from=made_from)[list(columns)]
    write_table(table.astype(columns).reset_index(drop=True), path)


def write_no_teacher(path: Path) -> None:
    """The table where no base model is distilled: no row."""
    write_table(pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in _COLUMNS.items()}), path)


def read_teacher(path: Path) -> TeacherScores:
    """Read the stage's table.

    Raises:
        DataError: it is missing, damaged or lacks a column.
    """
    check_regular(path, missing="run the stage teach (dvc repro)", remedy=_REMEDY)
    with parquet_errors(path, _REMEDY):
        table = pd.read_parquet(path)
    if missing := [name for name in _COLUMNS if name not in table]:
        raise DataError(f"{path}: no column '{missing[0]}'; {_REMEDY}")
    for name, kind in {**_COLUMNS, **({_WEIGHT: "float64"} if _WEIGHT in table else {})}.items():
        fits = pd.api.types.is_string_dtype if kind == "str" else pd.api.types.is_float_dtype
        if not fits(table[name]) or table[name].isna().any():
            raise DataError(f"{path}: column {name} holds something else than {_WORDS[kind]}; {_REMEDY}")
    first = table.iloc[0] if len(table) else None
    return TeacherScores(table, "" if first is None else first["teacher"], "" if first is None else first["made_from"])


def read_teaching(rows: pd.DataFrame, issue: str, distil: Distil, paths: Paths, protocols: tuple[str, ...]) -> Teaching:
    """What a base model of ``issue`` learns from its teacher; ``rows`` are manifest and splits joined.

    Raises:
        DataError: the teacher's table is missing, damaged or empty.
    """
    path = paths.teacher(issue)
    scores = read_teacher(path)
    if not scores.teacher:
        raise DataError(f"{path}: holds no score though base.{issue}.distil is on; {_REMEDY}")
    chosen = rows[rows["split"] == distil.unlabelled] if distil.unlabelled else rows.head(0)
    known = chosen[chosen["video_id"].isin(scores.table["video_id"])]
    return Teaching(to_inputs(known.reset_index(drop=True), media_root(paths), protocols), scores, distil.weight)
