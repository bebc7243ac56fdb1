"""The paper's Tables 1 and 2 held to the rules of ``consistency``, with rounding taken into account.

One row breaks the ceiling (UCC, P_base 70). ``ceiling_break`` says by how much, and what each of the ways
out would need; which one it was, the tables do not tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from coefvq.cascade.consistency import Finding, Interval, Verdict, best_f1_bound, implied_prevalence
from coefvq.cascade.paper_tables import PAPER, ROUNDING, TARGETS, CascadeRow, PaperIssue


def audit_paper(tables: Mapping[str, PaperIssue] = PAPER) -> list[Finding]:
    """Every check that both tables allow, issue by issue."""
    return [finding for issue, table in tables.items() for finding in _issue(issue, table)]


def prevalence_range(table: PaperIssue) -> Interval:
    """Prevalences (shares) that all of an issue's rows allow together.

    Where Table 1 gives the base model's recall at P_base, the cost rule gives π. Where it does not, that
    recall lies between the highest recall of the cascade (the ceiling) and 1, which bounds π from both sides.
    Rows that break the ceiling are left to the check that reports them.
    """
    interval = Interval(0.0, 1.0)
    known = table.base.recall_at()
    for row in table.cascade:
        share = row.p_base / 100.0
        if row.p_base in known:
            recall = known[row.p_base] / 100.0
            allowed = implied_prevalence(row.qps_ratio, share, recall, row.digit / 2.0, ROUNDING / 100.0)
        else:
            top = (max(row.recalls) - ROUNDING) / 100.0
            calls = row.qps_ratio / 100.0
            half = row.digit / 200.0
            allowed = Interval((calls - half) * share, (calls + half) * share / top)
        interval = interval.intersect(allowed)
    return interval


def _issue(issue: str, table: PaperIssue) -> Iterator[Finding]:
    for model in (table.base, table.siglip, table.mllm):
        yield _order(f"{issue}, Table 1, {model.name}", model.recalls)
        bound = best_f1_bound(model.recall_at())
        text = f"F1 {model.f1:.1f}; the points of R@P alone reach {bound:.1f}"
        # a product of two rounded numbers: one more unit of slack than a printed digit
        holds = model.f1 >= bound - 2.0 * ROUNDING
        yield Finding("best F1", f"{issue}, Table 1, {model.name}", _said(holds), text, bound, model.f1)
    for row in table.cascade:
        yield _order(f"{issue}, Table 2, P_base {row.p_base:g}", row.recalls)
        yield _ceiling(issue, table, row)
    yield _calls_fall(issue, table)
    yield _prevalence(issue, table)


def _order(where: str, recalls: tuple[float, ...]) -> Finding:
    text = ", ".join(f"R@P{target:g} {recall:.1f}" for target, recall in zip(TARGETS, recalls, strict=True))
    return Finding("order of R@P", where, _said(list(recalls) == sorted(recalls, reverse=True)), text)


def _calls_fall(issue: str, table: PaperIssue) -> Finding:
    calls = [row.qps_ratio for row in table.cascade]
    hits = [row.qps_ratio * row.p_base / 100.0 for row in table.cascade]
    text = (
        f"calls {', '.join(map(str, calls))} %; escalated positives {', '.join(f'{h:.3f}' for h in hits)} % of videos"
    )
    holds = calls == sorted(calls, reverse=True) and hits == sorted(hits, reverse=True)
    return Finding("order of calls", f"{issue}, Table 2", _said(holds), text)


def _prevalence(issue: str, table: PaperIssue) -> Finding:
    allowed = prevalence_range(table)
    text = f"one prevalence must explain all rows: {100 * allowed.low:.3f} % to {100 * allowed.high:.3f} % does"
    if allowed.empty:
        text = (
            f"no prevalence explains all rows: at least {100 * allowed.low:.3f} %, at most {100 * allowed.high:.3f} %"
        )
    return Finding("cost", f"{issue}, Tables 1 and 2", _said(not allowed.empty), text)


def _ceiling(issue: str, table: PaperIssue, row: CascadeRow) -> Finding:
    where = f"{issue}, Table 2, P_base {row.p_base:g}"
    highest = max(row.recalls)
    known = table.base.recall_at()
    if row.p_base not in known:
        return Finding("ceiling", where, "not asked", f"Table 1 has no R@P{row.p_base:g} of the base model")
    ceiling = known[row.p_base]
    holds = highest <= ceiling + 2.0 * ROUNDING
    text = f"highest recall {highest:.1f}, base R@P{row.p_base:g} {ceiling:.1f}"
    if not holds:
        text = f"{text}. {ceiling_break(table, row)}"
    return Finding("ceiling", where, _said(holds), text, ceiling, highest)


def ceiling_break(table: PaperIssue, row: CascadeRow) -> str:
    """Why a row above its ceiling cannot come from one set of videos, and what each way out would take."""
    highest, ceiling = max(row.recalls), table.base.recall_at()[row.p_base]
    gap = highest - ceiling
    prevalence = prevalence_range(table)
    pi = (prevalence.low + prevalence.high) / 2.0
    positives = pi * table.test_videos
    error = 100.0 * math.sqrt(2.0 * ceiling / 100.0 * (1.0 - ceiling / 100.0) / positives)
    precision = 100.0 * pi * highest / row.qps_ratio
    upper = max((target for target, recall in table.base.recall_at().items() if recall >= highest), default=0.0)
    return (
        f"{gap:.1f} points too high. A video that the base model filters out is a negative at every threshold of the "
        f"MLLM, so on one set of videos no recall passes {ceiling:.1f}; rounding makes at most 0.1 of it. "
        f"Ways out, of which the paper states none: "
        f"(1) the threshold was found on another set than the figures. With {positives:.0f} positives in each, the "
        f"difference of two recalls has a standard error of {error:.1f} points, and this one would be "
        f"{gap / error:.1f} of them: possible by drift, hardly by chance. "
        f"(2) The threshold lies lower. A base recall of {highest} has a precision between {upper:g} and "
        f"{row.p_base:g} % on Table 1's set, but {row.qps_ratio} % of calls at a prevalence of {100 * pi:.2f} % would "
        f"mean {precision:.1f} %: the calls were then counted on yet another set. "
        f"(3) Views escalated videos from below the threshold after publication (section 2.2): that adds recall, and "
        f"no call when a video is published, which is what the QPS ratio counts. "
        f"(4) Filtered-out videos kept their base score instead of counting as negatives."
    )


def _said(holds: bool) -> Verdict:
    return "holds" if holds else "broken"
