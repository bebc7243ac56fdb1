"""The labelled rows of a split as columns: labels, scores of both models, views, weights and yardsticks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coefvq.cascade.curves import FloatArray
from coefvq.cascade.search import ScoredSplit
from coefvq.errors import DataError
from coefvq.evaluation.score_files import float_column
from coefvq.records import REQUIRED_SCORE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


#: rows of the report beside base and MLLM, and their columns in scores.parquet
SHORTCUT = "shortcut"


BOUNDS = {"bayes_vision": "posterior_vision", "bayes_vision_text": "posterior_vision_text", "bayes": "posterior"}


@dataclass(frozen=True)
class LabelledSplit:
    """Columns of one labelled split, each float64 [n]; ``posterior`` is None unless every row has one.

    ``yardsticks`` holds the scores of :data:`SHORTCUT` and :data:`BOUNDS` that every row has.
    """

    label: FloatArray
    posterior: FloatArray | None
    base: FloatArray
    mllm: FloatArray
    views: FloatArray
    weight: FloatArray
    yardsticks: Mapping[str, FloatArray]

    def scored(self) -> ScoredSplit:
        """The columns the threshold search takes."""
        return ScoredSplit(self.label, self.base, self.mllm, self.views, self.weight)

    def against_posterior(self) -> LabelledSplit | None:
        """The same rows with the posterior as soft label; None without one."""
        return None if self.posterior is None else replace(self, label=self.posterior)


def labelled_split(scores: pd.DataFrame, split: str) -> LabelledSplit:
    """The labelled rows of ``split`` as columns.

    Raises:
        DataError: a column is missing, there is no labelled row, or a score is missing.
    """
    rows = split_rows(scores, split)
    rows = rows[rows["label"].notna()]
    if not len(rows):
        raise DataError(f"scores: no labelled row in split '{split}'; label more videos or change split.fractions")
    for column in ("base", "mllm", "weight"):
        missing = rows[column].isna()
        if missing.any():
            video = rows.loc[missing, "video_id"].iloc[0]
            raise DataError(f"scores: {column} of video {video} ({split}) is missing; run predict again")
    yardsticks = _yardsticks(rows)
    return LabelledSplit(
        label=float_column(rows, "label"),
        posterior=yardsticks.get("bayes"),
        base=float_column(rows, "base"),
        mllm=float_column(rows, "mllm"),
        views=float_column(rows, "views"),
        weight=float_column(rows, "weight"),
        yardsticks=yardsticks,
    )


def split_rows(scores: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of ``split``, labelled or not.

    Raises:
        DataError: the table lacks a column of ``records.REQUIRED_SCORE_COLUMNS``.
    """
    missing = [column for column in REQUIRED_SCORE_COLUMNS if column not in scores.columns]
    if missing:
        raise DataError(f"scores: column '{missing[0]}' is missing; run predict again")
    return scores[scores["split"] == split]


def _yardsticks(rows: pd.DataFrame) -> dict[str, FloatArray]:
    """Yardsticks that every row has; a table written before one existed lacks its column."""
    columns = {SHORTCUT: SHORTCUT, **BOUNDS}
    found = {name: float_column(rows, column) for name, column in columns.items() if column in rows.columns}
    return {name: score for name, score in found.items() if not np.isnan(score).any()}
