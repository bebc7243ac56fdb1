"""Which scores go into which picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.calibration import Calibrator
from coefvq.cascade.curves import precision_recall_points
from coefvq.cascade.policy import CascadePolicy
from coefvq.data.validation.profile import values_psi
from coefvq.reporting.html import charts
from coefvq.reporting.html.charts import Curve, Picture
from coefvq.reporting.html.decisions import Per1000, TestVideos
from coefvq.reporting.html.inputs import Json, ReportInputs
from coefvq.reporting.plots import frontier_rows

if TYPE_CHECKING:
    import pandas as pd

#: common reading of the population stability index
LOOK_PSI, SHIFTED_PSI = 0.1, 0.25
_SPLIT_NAMES = {"val": "validation", "test": "test", "traffic": "traffic"}


def precision_recall(given: ReportInputs, videos: TestVideos, now: Per1000) -> Picture:
    policy = CascadePolicy.from_dict(given.thresholds["policy"])
    score = policy.ranking_score(videos.base, videos.mllm, videos.views)
    curves = [
        Curve(name, colour, precision_recall_points(videos.label, values, videos.weight), dashed)
        for name, colour, values, dashed in (
            ("base", "base", videos.base, True),
            ("MLLM", "mllm", videos.mllm, False),
            ("cascade", "cascade", score, False),
        )
    ]
    point = None if now.precision is None else (100 * now.recall, 100 * now.precision)
    return charts.precision_recall(curves, given.evaluation["precision_targets"], point, given.words.positive)


def frontier(given: ReportInputs, chosen: Json) -> Picture:
    targets = given.thresholds["precision_targets"]
    target = f"R@P{targets[0]:g}" if targets else "R@P60"
    rows = frontier_rows(given.scores, given.thresholds)
    return charts.frontier(rows, chosen, given.thresholds.get("mllm_only_f1_val"), target)


def reliability(videos: TestVideos, calibration: Json | None) -> Picture:
    """Both models as they are and, dashed, as the calibrator makes them that is kept with the pair."""
    models = (("base", "base", videos.base), ("mllm", "MLLM", videos.mllm))
    series = [
        (name, key, charts.reliability_bins(videos.label, score, videos.weight), False) for key, name, score in models
    ]
    for key, name, score in models:
        row = (calibration or {}).get(key)
        if row and row["chosen"] is not None:
            made = Calibrator.from_dict(row["calibrators"][row["chosen"]])(score)
            bins = charts.reliability_bins(videos.label, made, videos.weight)
            series.append((f"{name}, calibrated", key, bins, True))
    return charts.reliability(series)


def histograms(scores: pd.DataFrame, policy: Json) -> list[Picture]:
    pictures = []
    for title, column, threshold in (
        ("base", "base", min(CascadePolicy.from_dict(policy).base_boundaries())),
        ("MLLM", "mllm", policy["decision_threshold"]),
    ):
        series = [
            (name, colour, values, np.ones(len(values)))
            for (split, name), colour in zip(_SPLIT_NAMES.items(), ("dim", "mllm", "base"), strict=True)
            if len(values := _values(scores, split, column))
        ]
        pictures.append(charts.histograms(title, series, threshold))
    return pictures


def _values(scores: pd.DataFrame, split: str, column: str) -> Any:
    values = scores.loc[scores["split"] == split, column].to_numpy(dtype=np.float64, na_value=np.nan)
    return values[np.isfinite(values)]


#: with fewer videos on a side, two samples of one population differ by as much as a shift
FEW_VIDEOS = 100


@dataclass(frozen=True)
class Shift:
    """PSI of a model's scores of a split against validation; ``videos`` counts the smaller of both."""

    model: str
    split: str
    psi: float
    videos: int

    @property
    def reading(self) -> str:
        """``stable``, ``look`` or ``shifted``, or that there are too few videos to say."""
        if self.videos < FEW_VIDEOS:
            return f"too few ({self.videos})"
        return "stable" if self.psi < LOOK_PSI else "look" if self.psi < SHIFTED_PSI else "shifted"


def shifts(scores: pd.DataFrame) -> list[Shift]:
    """Both models' scores of test and traffic against those of validation."""
    found = []
    for model, column in (("base", "base"), ("MLLM", "mllm")):
        reference = _values(scores, "val", column)
        for split in ("test", "traffic"):
            current = _values(scores, split, column)
            if len(current) and len(reference):
                fewer = min(len(current), len(reference))
                found.append(Shift(model, split, values_psi(reference, current), fewer))
    return found
