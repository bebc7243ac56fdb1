"""From inputs to what the page shows: numbers become texts here, so that the template only places them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coefvq.config import LabelNames
from coefvq.reporting.html import figures, tables
from coefvq.reporting.html.charts import Picture
from coefvq.reporting.html.decisions import (
    Change,
    Decided,
    Per1000,
    TestVideos,
    alone,
    cascade,
    change,
    differing,
    per_1000,
)
from coefvq.reporting.html.inputs import Json, ReportInputs
from coefvq.reporting.html.tables import Table
from coefvq.reporting.html.verdict import Verdict, audit_plan, cautions, sentences, verdict

EXAMPLES = 6


@dataclass(frozen=True)
class Example:
    """One video on which two deciders differ; ``picture`` is a data URL or empty."""

    video_id: str
    title: str
    truth: str
    new: str
    old: str
    base: str
    mllm: str
    picture: str


@dataclass(frozen=True)
class Bar:
    """What becomes of the positives; ``parts`` are CSS class, share of all positives, count per 1,000 videos."""

    name: str
    text: str
    parts: tuple[tuple[str, float, str], ...]


@dataclass(frozen=True)
class Content:
    """Everything the template places."""

    issue: str
    positive: str
    name: str
    made_at: str
    verdict: Verdict
    sentences: Sequence[str]
    cautions: Sequence[str]
    per_1000: Table
    audit: str
    gate: Sequence[Json] | None
    against: Change | None
    against_name: str | None
    champion: Table | None
    recalls: Table
    size: str
    brackets: str
    bars: Sequence[Bar]
    precision_recall: Picture
    frontier: Picture
    reason: str
    reliability: Picture
    calibration: str
    slices: Table | None
    histograms: Sequence[Picture]
    drift: Table
    compared: tuple[str, str]
    gained: Sequence[Example]
    lost: Sequence[Example]
    counts: tuple[int, int]
    lineage: Sequence[tuple[str, str]]
    stability: str | None


def content(given: ReportInputs) -> Content:
    """Compute the page.

    Raises:
        DataError: the scores table is unusable.
    """
    videos = TestVideos.of(given.scores, given.manifest, _group_by(given))
    chosen = next(entry for entry in given.thresholds["policies"] if entry["selected"])
    policy = given.thresholds["policy"]
    deciders = _deciders(given, videos)
    now, base = deciders["cascade"], deciders["base"]
    served = _served_decisions(given, videos)
    against = None if served is None else change(now, served, videos)
    old = served or base
    over_base = change(now, base, videos)
    compared = over_base if against is None else against
    shifts = figures.shifts(given.scores)
    gained, lost = differing(now, old, videos, EXAMPLES)
    counted = {key: per_1000(item, videos) for key, item in deciders.items()}
    rows = [*counted.values(), *([] if served is None else [per_1000(served, videos)])]
    served_name = None if given.served is None else f"the served pair {given.served.bundle_version}"
    whole = int((given.scores["split"] == "traffic").sum())
    traffic = int(given.thresholds.get("traffic_measured", whole))  # reports of earlier versions measured on all
    synthetic = bool(given.scores["posterior"].notna().all())
    return Content(
        issue=given.issue,
        positive=given.words.positive,
        name=given.bundle_version or (str(given.candidate["content_hash"])[:12] if given.candidate else "candidate"),
        made_at=given.made_at,
        verdict=verdict(given.gate, against, given.is_served, served_name),
        sentences=sentences(counted["cascade"].whole(), counted["mllm"].whole(), chosen, traffic, given.words.positive),
        cautions=cautions(given.thresholds, counted["cascade"], over_base, shifts, given.stability, synthetic),
        per_1000=tables.per_1000_table(rows),
        audit=audit_plan(counted["cascade"], given.words.positive),
        gate=given.gate,
        against=against,
        against_name=served_name,
        champion=None if given.served is None else tables.champion_table(given),
        recalls=tables.recall_table(given, videos),
        size=f"Test split: {len(videos.label):,} videos, {int(videos.label.sum()):,} of them {given.words.positive}.",
        brackets=", with their 95 % intervals in small print" if len(videos.label) else "",
        bars=[_bar(row) for row in rows],
        precision_recall=figures.precision_recall(given, videos, counted["cascade"]),
        frontier=figures.frontier(given, chosen),
        reason=str(given.thresholds["reason"]),
        reliability=figures.reliability(videos, given.calibration),
        calibration=_calibration(given),
        slices=tables.slice_table(given, videos),
        histograms=figures.histograms(given.scores, policy),
        drift=tables.drift_table(shifts),
        compared=(now.name, old.name),
        gained=[_example(given, videos, i, now, old) for i in gained],
        lost=[_example(given, videos, i, now, old) for i in lost],
        counts=(compared.gained, compared.lost),
        lineage=tables.lineage(given),
        stability=_stability(given.stability),
    )


def example_ids(given: ReportInputs) -> list[str]:
    """Videos the page shows, so that the caller can make their thumbnails."""
    videos = TestVideos.of(given.scores, given.manifest, _group_by(given))
    deciders = _deciders(given, videos)
    old = _served_decisions(given, videos) or deciders["base"]
    gained, lost = differing(deciders["cascade"], old, videos, EXAMPLES)
    return [videos.video_id[i] for i in (*gained, *lost)]


def _group_by(given: ReportInputs) -> str | None:
    """What the pipeline's own intervals draw as wholes; reports of earlier versions do not say."""
    detail = given.evaluation.get("detail")
    return "source_id" if detail is None else detail["group_by"]


def _deciders(given: ReportInputs, videos: TestVideos) -> dict[str, Decided]:
    test = given.evaluation["test"]
    return {
        "cascade": cascade("this pair", given.thresholds["policy"], videos),
        "mllm": alone("MLLM on every video", videos.mllm, test["mllm"]["decision_threshold"], asked=True),
        "base": alone("base alone", videos.base, test["base"]["decision_threshold"], asked=False),
    }


def _served_decisions(given: ReportInputs, videos: TestVideos) -> Decided | None:
    """The served pair on these very videos; None where its scores or some of the videos are missing."""
    if given.served is None or given.served.scores is None:
        return None
    old = TestVideos.of(given.served.scores, None)
    if old.video_id != videos.video_id or not np.array_equal(old.label, videos.label):
        return None
    return cascade(
        "served pair", given.served.candidate["policy"], replace(old, weight=videos.weight, group=videos.group)
    )


def _bar(row: Per1000) -> Bar:
    whole = row.whole()
    shares = {"found": row.right, "filtered": row.missed_filtered, "rejected": row.missed_rejected}
    counts = {"found": whole.right, "filtered": whole.missed_filtered, "rejected": whole.missed_rejected}
    total = max(sum(shares.values()), 1e-300)
    text = f"{row.name}: {whole.right} found, {whole.missed_filtered} filtered out, {whole.missed_rejected} rejected"
    return Bar(row.name, text, tuple((name, share / total, f"{counts[name]}") for name, share in shares.items()))


def _calibration(given: ReportInputs) -> str:
    errors = [
        f"{name} {100 * given.evaluation['test'][key]['expected_calibration_error']:.1f}{_calibrated(given, key)}"
        for key, name in (("base", "base"), ("mllm", "MLLM"))
    ]
    return f"Expected calibration error on test, points: {', '.join(errors)}. Bars are 95 % intervals of each bin."


def _calibrated(given: ReportInputs, key: str) -> str:
    """What the calibrator kept with the pair makes of it; no decision depends on it."""
    row = (given.calibration or {}).get(key)
    if not row or row["chosen"] is None:
        return ""
    return f" ({100 * row['after'][row['chosen']]['expected_calibration_error']:.1f} after {row['chosen']} calibration)"


def _example(given: ReportInputs, videos: TestVideos, at: int, new: Decided, old: Decided) -> Example:
    video_id = videos.video_id[at]
    title = ""
    if given.manifest is not None:
        found = given.manifest.loc[given.manifest["video_id"] == video_id, "title"]
        title = str(found.iloc[0]) if len(found) else ""
    picture = given.thumbnails.get(video_id)
    return Example(
        video_id=video_id,
        title=title,
        truth=_word(bool(videos.label[at] > 0.5), given.words),
        new=_word(bool(new.positive[at]), given.words),
        old=_word(bool(old.positive[at]), given.words),
        base=f"{videos.base[at]:.2f}",
        mllm=f"{videos.mllm[at]:.2f}" if new.asked[at] else f"{videos.mllm[at]:.2f} (not asked)",
        picture="" if picture is None else "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii"),
    )


def _word(positive: bool, words: LabelNames) -> str:
    return words.positive if positive else words.negative


def _stability(stability: Json | None) -> str | None:
    if stability is None:
        return None
    side = "within" if stability["passed"] else "above"
    return (
        f"the {stability['n']} videos nearest to the thresholds were scored again in "
        f"{len(stability['variants'])} other ways; {100 * stability['flip_rate']:.2f} % of these decisions changed, "
        f"{side} the limit of {100 * stability['max_flip_rate']:.2f} %."
    )
