"""Curves as rows for ``dvc plots`` and as one picture of the result.

Rows are flat dicts with one and the same set of keys, values in percent, at most ``MAX_ROWS`` per series
with both ends kept; ``series`` names the colour and ``mark`` says whether a row belongs to a line or is a
point of its own (a policy). Precision-recall is drawn on test, against the posterior where every row
has one; the frontier on validation, where the policies were chosen, so that they lie on it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.curves import FloatArray, PRCurve, precision_recall_points, spread_indices
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import FrontierPoint, frontier_points
from coefvq.evaluation.labelled import LabelledSplit, labelled_split
from coefvq.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 300
DEFAULT_TARGET = 60.0
DOTS_PER_INCH = 180

# Okabe and Ito's palette: distinct under the common colour-vision deficiencies; line styles repeat it
STYLES: dict[str, dict[str, Any]] = {
    "base": {"color": "#0072B2", "linestyle": (0, (5, 2)), "linewidth": 1.6},
    "mllm": {"color": "#D55E00", "linestyle": "solid", "linewidth": 1.6},
    "cascade": {"color": "#009E73", "linestyle": "solid", "linewidth": 2.6},
    "bayes": {"color": "#000000", "linestyle": (0, (1, 1.5)), "linewidth": 1.6},
}
DISPLAY = {"base": "base", "mllm": "MLLM", "cascade": "released policy", "bayes": "Bayes bound"}

Rows = list[dict[str, Any]]
#: precision target (percent), and the points that search the base threshold for it
Frontier = tuple[float, Sequence[FrontierPoint]]


def pr_curves(scores: pd.DataFrame, cascade: Mapping[str, Any] | None = None) -> dict[str, PRCurve]:
    """Test curves of base, MLLM, the chosen cascade (given its report) and Bayes (given posteriors).

    Raises:
        DataError: the scores table is unusable.
    """
    test = labelled_split(scores, "test")
    soft = test.against_posterior() or test
    score_of: dict[str, FloatArray] = {"base": soft.base, "mllm": soft.mllm}
    if cascade is not None:
        policy = CascadePolicy.from_dict(cascade["policy"], "cascade report")
        score_of["cascade"] = policy.ranking_score(soft.base, soft.mllm, soft.views)
    if soft.posterior is not None:
        score_of["bayes"] = soft.posterior
    return {name: precision_recall_points(soft.label, score, soft.weight) for name, score in score_of.items()}


def pr_curve_rows(scores: pd.DataFrame, cascade: Mapping[str, Any] | None = None) -> Rows:
    """Rows ``series, mark, recall, precision, threshold`` of :func:`pr_curves`."""
    rows: Rows = []
    for name, curve in pr_curves(scores, cascade).items():
        for at in _drawn(curve):
            rows.append(
                {
                    "series": name,
                    "mark": "line",
                    "recall": 100.0 * float(curve.recall[at]),
                    "precision": 100.0 * float(curve.precision[at]),
                    "threshold": float(curve.threshold[at]),
                }
            )
    return rows


def frontier_rows(
    scores: pd.DataFrame, cascade: Mapping[str, Any] | None = None, frontier: Frontier | None = None
) -> Rows:
    """Rows ``series, mark, qps_ratio, value``: best F1 and R@P (first target) over the QPS ratio on val.

    With the cascade's report, each reachable policy is a point of the series "policy" or "chosen". ``frontier`` is
    that of the same scores and report, if it is known.
    """
    target, points = frontier or validation_frontier(scores, cascade)
    rows: Rows = []
    for point in points:
        shared = {"mark": "line", "qps_ratio": point.qps_ratio}
        rows.append({"series": "F1", **shared, "value": 100.0 * point.f1})
        rows.append({"series": f"R@P{target:g}", **shared, "value": 100.0 * point.recall})
    for entry in _reachable(cascade):
        rows.append(
            {
                "series": "chosen" if entry["selected"] else "policy",
                "mark": "point",
                "qps_ratio": entry["qps_ratio_val"],
                "value": 100.0 * entry["val"]["f1"],
            }
        )
    return rows


def score_histogram_rows(scores: pd.DataFrame, bins: int = 20) -> Rows:
    """Rows ``series, mark, score, share``: per model and class of test, percent of the class per bin."""
    test = labelled_split(scores, "test")
    rows: Rows = []
    for model, score in (("base", test.base), ("mllm", test.mllm)):
        for name, member in (("positive", test.label), ("negative", 1.0 - test.label)):
            counts, edges = np.histogram(score, bins=bins, range=(0.0, 1.0), weights=test.weight * member)
            share = 100.0 * counts / max(counts.sum(), np.finfo(float).tiny)
            centre = (edges[:-1] + edges[1:]) / 2.0
            rows += [
                {"series": f"{model}, {name}", "mark": "line", "score": float(x), "share": float(y)}
                for x, y in zip(centre, share, strict=True)
            ]
    return rows


def write_result_figure(
    scores: pd.DataFrame, cascade: Mapping[str, Any], path: Path, frontier: Frontier | None = None
) -> None:
    """Write :func:`result_figure` atomically."""
    picture = result_figure(scores, cascade, frontier)
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)


def result_figure(scores: pd.DataFrame, cascade: Mapping[str, Any], frontier: Frontier | None = None) -> bytes:
    """PNG of 1800 × 810 pixels: test curves beside the validation frontier with the chosen point.

    Equal input gives equal bytes.

    Args:
        scores: a table with ``records.SCORE_COLUMNS``.
        cascade: what ``report.cascade_report`` returned for it.
        frontier: as for ``frontier_rows``.

    Raises:
        DataError: the scores table is unusable.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.5), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_curves(left, pr_curves(scores, cascade), labelled_split(scores, "test"), cascade)
    _draw_frontier(right, *(frontier or validation_frontier(scores, cascade)), cascade)
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{cascade['issue']}: base, MLLM and cascade", fontsize=12)
    buffer = io.BytesIO()
    # the version stamp would change the bytes with every matplotlib release
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_curves(axes: Any, curves: Mapping[str, PRCurve], test: LabelledSplit, cascade: Mapping[str, Any]) -> None:
    for target in cascade["precision_targets"]:
        axes.axhline(target, color="0.6", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.annotate(f"P {target:g}", (100, target), (2, 0), textcoords="offset points", fontsize=7, va="center")
    for name, curve in curves.items():
        at = _drawn(curve)
        axes.plot(100 * curve.recall[at], 100 * curve.precision[at], label=DISPLAY[name], **STYLES[name])
    soft = "posterior as label" if test.posterior is not None else "drawn labels"
    count = f"n = {len(test.label)}, {test.label.sum():g} positive"
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="recall, %", ylabel="precision, %")
    axes.set_title(f"Test ({count}; {soft})", fontsize=10)
    axes.legend(loc="best", fontsize=8, framealpha=0.9)


def _draw_frontier(axes: Any, target: float, points: Sequence[FrontierPoint], cascade: Mapping[str, Any]) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    share = [point.qps_ratio for point in points]
    left_edge = min((ratio for ratio in share if ratio > 0.0), default=1.0)  # a log axis has no 0
    axes.plot(share, [100 * point.f1 for point in points], color="#009E73", linewidth=2.2, label="best F1")
    axes.plot(
        share,
        [100 * point.recall for point in points],
        color="#CC79A7",
        linestyle=(0, (5, 2)),
        linewidth=1.6,
        label=f"R@P{target:g}",
    )
    axes.axhline(100 * cascade["mllm_only_f1_val"], color="#D55E00", linewidth=1.2, label="F1, MLLM on every video")
    for where, entries in _by_place(_reachable(cascade)).items():
        chosen = any(entry["selected"] for entry in entries)
        marker = {"marker": "*", "s": 190} if chosen else {"marker": "o", "s": 42}
        name = ", ".join(entry.get("name") or _p_base_or_all(entry) for entry in entries)
        place = (max(where[0], left_edge), where[1])
        side = {"xytext": (6, 8), "ha": "left"} if place[0] == left_edge else {"xytext": (-6, 8), "ha": "right"}
        axes.scatter(*place, color="#000000", zorder=3, **marker)
        axes.annotate(name, place, textcoords="offset points", fontsize=9, **side)
    axes.scatter([], [], color="#000000", marker="o", s=42, label="other policies")
    axes.scatter([], [], color="#000000", marker="*", s=120, label="chosen policy")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlim=(None, 110), ylim=(0, 102), xlabel="videos sent to the MLLM, % (log)", ylabel="%")
    axes.set_title("Validation: what the base threshold buys", fontsize=10)
    axes.legend(loc="best", fontsize=8, framealpha=0.9)


def validation_frontier(scores: pd.DataFrame, cascade: Mapping[str, Any] | None) -> Frontier:
    """What ``frontier_rows`` and ``result_figure`` draw; the search is the dear part of both."""
    targets = cascade["precision_targets"] if cascade is not None else ()
    target = targets[0] if targets else DEFAULT_TARGET
    return target, frontier_points(labelled_split(scores, "val").scored(), target / 100.0)


def _by_place(entries: Sequence[dict[str, Any]]) -> dict[tuple[float, float], list[dict[str, Any]]]:
    """Policies by their point (QPS ratio, F1, in percent): several P_base may lead to one threshold."""
    places: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for entry in entries:
        places.setdefault((entry["qps_ratio_val"], 100 * entry["val"]["f1"]), []).append(entry)
    return places


def _p_base_or_all(entry: Mapping[str, Any]) -> str:
    return "all" if entry["p_base"] is None else f"{entry['p_base']:g}"


def _reachable(cascade: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [entry for entry in (cascade or {"policies": []})["policies"] if entry["policy"] is not None]


def _drawn(curve: PRCurve) -> Any:
    """Positions worth drawing: even in recall."""
    return spread_indices(curve.recall, MAX_ROWS)
