"""The page's tables and its lineage: every number as the text it is shown as."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from coefvq.cascade.policy import CascadePolicy, threshold_text
from coefvq.evaluation.intervals import Interval
from coefvq.evaluation.slices import DERIVED, slice_columns, slice_rows, with_intervals
from coefvq.evaluation.table import DASH, footnotes, plain_figure, policy_name, result_rows
from coefvq.reporting.html.decisions import Per1000, TestVideos
from coefvq.reporting.html.figures import FEW_VIDEOS, LOOK_PSI, SHIFTED_PSI, Shift
from coefvq.reporting.html.inputs import ReportInputs

#: beyond this many test videos an interval is narrow, and redrawing all of them takes minutes
_MANY = 200_000
_SLICE_REPLICATES = 200


@dataclass(frozen=True)
class Table:
    """Texts; the first column names the row. ``strong`` is the row that is released."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: int | None = None
    notes: tuple[str, ...] = ()


def per_1000_table(rows: Sequence[Per1000]) -> Table:
    header = (
        "per 1,000 videos",
        "MLLM calls",
        "flagged rightly",
        "flagged wrongly",
        "missed",
        "precision",
        "recall",
        "F1",
    )
    return Table(
        header,
        tuple(
            (
                row.name,
                f"{whole.calls:,}",
                f"{whole.right}",
                f"{whole.wrong}",
                f"{whole.missed}",
                percent(row.precision),
                percent(row.recall),
                percent(row.f1),
            )
            for row in rows
            for whole in (row.whole(),)
        ),
        strong=0,
    )


def champion_table(given: ReportInputs) -> Table:
    """The figures both pairs were registered with; each on the test split of its own time."""
    mine = (given.candidate or {}).get("metrics", {}).get("cascade", {})
    served = given.served.candidate["metrics"]["cascade"] if given.served else {}
    names = {"f1": "F1", "precision": "precision", "recall": "recall", "average_precision": "AP", "roc_auc": "AUC"}
    names |= {key: f"R@P{key.removeprefix('r_at_p')}" for key in mine if key.removeprefix("r_at_p").isdigit()}
    rows = [
        (pair, *(percent(figures.get(key)) for key in names), _plain(figures.get("qps_ratio")))
        for pair, figures in (("this pair", mine), ("served pair", served))
    ]
    return Table(("percent", *names.values(), "QPS ratio"), tuple(rows))


def recall_table(given: ReportInputs, videos: TestVideos) -> Table:
    """Every approach against drawn labels, F1 and R@P with their 95 % bootstrap intervals."""
    # against drawn labels, as everything on this page: intervals and examples need real answers
    rows = result_rows({**given.evaluation, "test_posterior": None}, given.thresholds)
    targets = given.evaluation["precision_targets"]
    scored = _scored(given, videos) if len(videos.label) <= _MANY else {}
    kept = _kept(given, next((row.name for row in rows if row.chosen), ""))
    body, strong = [], None
    for number, row in enumerate(rows):
        known = kept.get(row.name) or (_intervals(videos, *scored[row.name], targets) if row.name in scored else {})
        cells = [row.name, _with_interval(row.f1, known.get("f1"))]
        cells += [
            _with_interval(value, known.get(f"r_at_p{target:g}"))
            for value, target in zip(row.recalls.values(), targets, strict=True)
        ]
        figures = map(plain_figure, row.own.values())
        body.append((*cells, percent(row.roc_auc), *figures, _plain(row.qps_ratio)))
        strong = number if row.chosen else strong
    recalls, own = (tuple(rows[0].recalls), tuple(rows[0].own)) if rows else ((), ())
    header = ("approach", "F1", *recalls, "AUC", *own, "QPS ratio")
    return Table(header, tuple(body), strong, tuple(footnotes(rows)))


def _scored(given: ReportInputs, videos: TestVideos) -> dict[str, tuple[Any, float]]:
    """Score column and threshold by the row's name in the table of results."""
    test = given.evaluation["test"]
    found: dict[str, tuple[Any, float]] = {
        "base": (videos.base, test["base"]["decision_threshold"]),
        "MLLM": (videos.mllm, test["mllm"]["decision_threshold"]),
    }
    for entry in given.thresholds["policies"]:
        if entry["policy"] is not None:
            policy = CascadePolicy.from_dict(entry["policy"])
            score = policy.ranking_score(videos.base, videos.mllm, videos.views)
            found.setdefault(policy_name(entry, given.thresholds), (score, policy.decision_threshold))
    return found


def _kept(given: ReportInputs, chosen: str) -> dict[str, dict[str, Interval]]:
    """Intervals that the pipeline has computed already, by the row's name."""
    found = {}
    sources = (("base", given.evaluation, "base"), ("MLLM", given.evaluation, "mllm"))
    for name, report, key in (*sources, (chosen, given.thresholds, "cascade")):
        made = (report.get("detail") or {"intervals": {}})["intervals"].get(key)
        if made is not None:
            found[name] = {figure: Interval(**interval) for figure, interval in made.items()}
    return found


def _intervals(videos: TestVideos, score: Any, threshold: float, targets: Sequence[float]) -> dict[str, Interval]:
    return with_intervals(videos.label, score, videos.weight, threshold, targets, groups=videos.group, replicates=400)


def _with_interval(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None or interval.low is None or interval.high is None:
        return percent(value)
    return f"{100 * value:.1f} [{100 * interval.low:.0f}–{100 * interval.high:.0f}]"


def slice_table(given: ReportInputs, videos: TestVideos) -> Table | None:
    """The pair on parts of test at its frozen thresholds; None without a manifest or with one part only."""
    detail = given.thresholds.get("detail")
    if detail is not None:
        return _slices([{**row, "pair": row["cascade"]} for row in detail["slices"]], given.words.positive)
    if given.manifest is None or len(videos.label) > _MANY:
        return None
    known = given.manifest.set_index(given.manifest["video_id"].astype(str))
    columns = [name for name in DERIVED if name not in ("has_audio",) or "has_audio" in known]
    slices = slice_columns(known, columns)
    place = known.index.get_indexer(pd.Index(list(videos.video_id)))
    if (place < 0).any():
        return None
    policy = CascadePolicy.from_dict(given.thresholds["policy"])
    score = policy.ranking_score(videos.base, videos.mllm, videos.views)
    rows = slice_rows(
        videos.label,
        {"pair": (score, policy.decision_threshold)},
        videos.weight,
        {name: values[place] for name, values in slices.items() if len(set(values[place].tolist())) > 1},
        (),
        groups=videos.group,
        replicates=_SLICE_REPLICATES,
    )
    return _slices(rows, given.words.positive)


def _slices(rows: list[dict[str, Any]], positive: str) -> Table:
    """Rows by slicing, then in the order of their bands; a slicing with one part only says nothing."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    many = {column for column in columns if sum(row["column"] == column for row in rows) > 1}
    kept = [row for row in rows if row["column"] in many]
    kept.sort(key=lambda row: (columns.index(row["column"]), _lower_end(row["value"])))
    notes = () if kept else ("All test videos are alike in what is sliced by.",)
    header = ("slice", "videos", positive, "F1", "precision", "recall")
    return Table(header, tuple(_slice_cells(row) for row in kept), notes=notes)


def _lower_end(name: str) -> tuple[float, str]:
    """Where a band begins, so that bands come in the order of their numbers; words come last."""
    number = re.match(r"(under )?(\d+(?:\.\d+)?(?:e[+]?\d+)?)", name)
    if number is None:
        return math.inf, name
    return -1.0 if number[1] else float(number[2]), name


def _slice_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    name = f"{row['column'].replace('_', ' ')}: {row['value']}"
    figures = row.get("pair") or {}
    cells = [
        _with_interval(found["value"], Interval(found["value"], found["low"], found["high"])) if found else DASH
        for found in (figures.get(key) for key in ("f1", "precision", "recall"))
    ]
    return (name, f"{row['n']:,}", f"{row['positives']:,.0f}", *cells)


def drift_table(shifts: Sequence[Shift]) -> Table:
    rows = [(f"{one.model}, {one.split} against validation", f"{one.psi:.3f}", one.reading) for one in shifts]
    notes = (
        f"PSI: population stability index, corrected for sample size; below {LOOK_PSI:g} stable, from "
        f"{SHIFTED_PSI:g} shifted; with fewer than {FEW_VIDEOS} videos on a side it cannot tell.",
    )
    return Table(("scores", "PSI", "reading"), tuple(rows), notes=notes)


def lineage(given: ReportInputs) -> list[tuple[str, str]]:
    """What the pair was made from, as name and value."""
    rows = []
    if given.candidate is not None:
        pair = given.candidate
        rows.append(("content hash", str(pair["content_hash"])))
        for kind, name in (("base", "base model"), ("mllm", "MLLM")):
            part = pair[kind]
            rows.append((name, f"{part['model_id']}, run {part['run_id']}, sha256 {part['sha256'][:16]}…"))
        if teacher := pair["base"].get("teacher"):
            whose = "that of this pair" if teacher == pair["mllm"]["sha256"] else "another than that of this pair"
            rows.append(("base model distilled from", f"the MLLM with sha256 {teacher[:16]}…, {whose}"))
        data = pair["data"]
        rows += [
            ("data version", str(data["version"] or "none")),
            ("manifest", f"sha256 {data['manifest_sha256'][:16]}…"),
            ("splits", f"sha256 {data['splits_sha256'][:16]}…"),
            ("preprocessing", ", ".join(f"{key} {value}" for key, value in pair["preprocessing"].items())),
            ("parameters", ", ".join(f"{key} {value}" for key, value in pair["params"].items())),
        ]
    policy = {key: value for key, value in given.thresholds["policy"].items() if value is not None}
    rows.append(("policy", ", ".join(f"{key} {short(value)}" for key, value in policy.items())))
    for split, facts in ((given.splits or {}).get("splits") or {}).items():
        issue = facts.get("issues", {}).get(given.issue)
        if issue and facts.get("rows", 1):  # unlabelled may hold none
            rows.append((f"{split} split", f"{issue['labelled']:,} labelled, {issue['positives']:,} positive"))
    return rows


def short(value: Any) -> str:
    return threshold_text(value) if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def _plain(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"
