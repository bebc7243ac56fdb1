"""The report's pictures as inline SVG, each with what its legend says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coefvq.cascade.curves import FloatArray, PRCurve, spread_indices
from coefvq.reporting.html.svg import Axis, Band, Line, Mark, Rule, chart

_POINTS = 160
_BINS = 24
_PERCENT = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Key:
    """One entry of a legend; ``shape`` is line, dash, dot or ring."""

    colour: str
    text: str
    shape: str = "line"


@dataclass(frozen=True)
class Picture:
    """A chart with its legend."""

    svg: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Curve:
    """A precision-recall curve with the name and colour it is drawn in."""

    name: str
    colour: str
    curve: PRCurve
    dashed: bool = False


def precision_recall(
    curves: Sequence[Curve], targets: Sequence[float], point: tuple[float, float] | None, positive: str
) -> Picture:
    """Curves on test with the precisions asked for, and where the chosen policy decides (recall, precision in %)."""
    x = Axis(f"recall: share of {positive} videos found, %", 0.0, 100.0, _PERCENT)
    y = Axis("precision: share of flags that are right, %", 0.0, 100.0, _PERCENT)
    lines = []
    for item in curves:
        at = spread_indices(item.curve.recall, _POINTS)
        recall, precision = 100 * item.curve.recall[at], 100 * item.curve.precision[at]
        lines.append(Line(item.colour, recall, precision, item.dashed, 2.6 if item.colour == "cascade" else 1.8))
    rules = [Rule(f"P {target:g}", y=target) for target in targets]
    marks = [] if point is None else [Mark("cascade", *point, "released thresholds", strong=True)]
    keys = [Key(item.colour, item.name, "dash" if item.dashed else "line") for item in curves]
    names = ", ".join(item.name for item in curves)
    return Picture(chart(x, y, f"Precision and recall on test: {names}", lines, marks, rules), tuple(keys))


def frontier(rows: Rows, chosen: Mapping[str, Any] | None, mllm_only: float | None, target: str) -> Picture:
    """Best F1 and R@P against MLLM calls on validation; ``rows`` are those of ``plots.frontier_rows``."""
    share = np.array([row["qps_ratio"] for row in rows if row["mark"] == "line" and row["qps_ratio"] > 0])
    low = max(float(share.min(initial=100.0)), 0.05)
    ticks = tuple(tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick)
    x = Axis("videos that reach the MLLM, % (log)", low, 100.0, ticks, log=True)
    y = Axis("%", 0.0, 100.0, _PERCENT)
    lines = []
    for series, colour, dashed in (("F1", "cascade", False), (target, "second", True)):
        found = [(row["qps_ratio"], row["value"]) for row in rows if row["series"] == series and row["mark"] == "line"]
        points = np.array(sorted(found)).reshape(-1, 2)
        lines.append(Line(colour, points[:, 0], points[:, 1], dashed, 2.6 if colour == "cascade" else 1.8))
    others = [row for row in rows if row["series"] == "policy"]
    marks = [Mark("text", max(float(row["qps_ratio"]), low), float(row["value"])) for row in others]
    if chosen is not None and chosen.get("qps_ratio_val") is not None:
        name = chosen.get("name") or "chosen policy" if chosen["p_base"] is None else f"P_base {chosen['p_base']:g}"
        calls = max(float(chosen["qps_ratio_val"]), low)  # a log axis has no 0
        marks.append(Mark("cascade", calls, 100 * chosen["val"]["f1"], name, strong=True))
    rules = [] if mllm_only is None else [Rule("", y=100 * mllm_only, colour="mllm")]
    keys = (
        Key("cascade", "best F1"),
        Key("second", target, "dash"),
        Key("mllm", "F1, MLLM on all", "dash"),
        Key("cascade", "chosen", "ring"),
        Key("text", "other policies", "dot"),
    )
    return Picture(chart(x, y, "What MLLM calls buy on validation", lines, marks, rules), keys)


@dataclass(frozen=True)
class Reliability:
    """Observed frequency per bin of score, all [k], with a 95 % interval each; shares."""

    score: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray


def reliability_bins(label: FloatArray, score: FloatArray, weight: FloatArray, bins: int = 8) -> Reliability:
    """Bins of equal count; intervals are Wilson's on the effective number of videos (Kish)."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    total = np.array([weight[part].sum() for part in parts])
    mean = np.array([(weight[part] * score[part]).sum() for part in parts]) / total
    observed = np.array([(weight[part] * label[part]).sum() for part in parts]) / total
    size = total**2 / np.array([(weight[part] ** 2).sum() for part in parts])
    z = 1.959964
    centre = (observed + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(observed * (1 - observed) / size + z**2 / (4 * size**2))
    return Reliability(mean, observed, centre - half, centre + half)


def reliability(series: Sequence[tuple[str, str, Reliability, bool]]) -> Picture:
    """Observed share of positives against the score, per ``(name, colour, bins, dashed)``; dashed: a line only."""
    x = Axis("score, %", 0.0, 100.0, _PERCENT)
    y = Axis("videos that are positive, %", 0.0, 100.0, _PERCENT)
    lines = [Line("dim", np.array([0.0, 100.0]), np.array([0.0, 100.0]), dashed=True, width=1.0)]
    bands: list[Band] = []
    marks: list[Mark] = []
    for _, colour, bins, dashed in series:
        lines.append(Line(colour, 100 * bins.score, 100 * bins.observed, dashed))
        points = [] if dashed else list(zip(bins.score, bins.observed, bins.low, bins.high, strict=True))
        marks += [Mark(colour, float(100 * at), float(100 * value)) for at, value, _, _ in points]
        bands += [Band(colour, float(100 * at), float(100 * low), float(100 * high)) for at, _, low, high in points]
    keys = [Key(colour, name, "dash" if dashed else "line") for name, colour, _, dashed in series]
    keys.append(Key("dim", "a score that is a probability", "dash"))
    return Picture(chart(x, y, "Reliability on test", lines, marks, (), bands), tuple(keys))


def histograms(title: str, series: Sequence[tuple[str, str, FloatArray, FloatArray]], threshold: float) -> Picture:
    """Share of videos per bin of score, per ``(name, colour, score, weight)``, with the threshold."""
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    shares = []
    for _, _, score, weight in series:
        counts, _ = np.histogram(score, bins=edges, weights=weight)
        shares.append(100.0 * counts / max(counts.sum(), 1e-300))
    top = _nice(max((float(share.max(initial=1.0)) for share in shares), default=1.0))
    x = Axis(f"{title} score, %", 0.0, 100.0, _PERCENT)
    y = Axis("videos per bin, %", 0.0, top, tuple(np.linspace(0.0, top, 5)))
    lines = [
        Line(colour, 100 * edges, np.append(share, share[-1]), steps=True, filled=number == 0, dashed=number == 1)
        for number, ((_, colour, _, _), share) in enumerate(zip(series, shares, strict=True))
    ]
    rules = [Rule("threshold", x=100 * threshold)]
    keys = [Key(colour, name, "dash" if n == 1 else "line") for n, (name, colour, _, _) in enumerate(series)]
    return Picture(chart(x, y, f"{title} scores by split", lines, (), rules), tuple(keys))


def _nice(value: float) -> float:
    """The next round number that four steps divide."""
    for top in (4.0, 8.0, 12.0, 20.0, 40.0, 60.0, 80.0, 100.0):
        if value <= top:
            return top
    return 100.0
