"""Which videos people shall label, drawn with known probabilities, and what their labels say about recall.

A draw freezes a window of the index: how many videos of each bundle and kind (:mod:`coefvq.vmp.audit`) it held, and
which of them were drawn. Within a bundle and kind the draw is a simple random sample, by a hash with a salt of its own:
the audit's hash chose which filtered-out videos the MLLM saw, and must not choose again. A video's inclusion
probability is the product of both (Horvitz and Thompson 1952). Labels come back for the draw as a whole: one that loses
more than 1 % of its videos is refused, because what is hard to label is not missing by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coefvq.cascade.audit_sample import AuditEstimate, estimate, uniform_draws
from coefvq.errors import DataError
from coefvq.vmp.audit import KINDS, kind_of
from coefvq.vmp.keys import shown

#: share of a draw that may come back without a label
MOST_LOST = 0.01
#: kinds that people label; the audited ones stand for the unseen
LABELLED = KINDS[:3]


@dataclass(frozen=True)
class Drawn:
    """A video to label; ``probability`` is that of being seen by the MLLM and drawn here, ``audit`` the first alone."""

    video_id: str
    bundle: str
    kind: str
    probability: float
    audit: float


@dataclass(frozen=True)
class Stratum:
    """One kind of videos of one bundle: how many there are, and how many of them are to be labelled."""

    bundle: str
    kind: str
    videos: int
    labels: int


@dataclass(frozen=True)
class Sample:
    """A draw before it is stored."""

    strata: list[Stratum]
    drawn: list[Drawn]
    unlogged: int


def draw(issue: str, scores: Iterable[tuple[str, Mapping[str, Any]]], labels: int, seed: int) -> Sample:
    """Draw ``labels`` videos, shared evenly among the kinds of each bundle as far as these go.

    Args:
        issue: its name, for errors.
        scores: (video id, the issue's scores as the index keeps them) per video of the window.
        labels: how many to label.
        seed: another seed draws other videos.

    Raises:
        DataError: no video was audited.
    """
    groups: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    unlogged = 0
    for video_id, score in scores:
        kind = _kind(score)
        if kind == "unlogged":
            unlogged += 1
        elif kind is not None:
            probability = float(score.get("audit_probability") or 1.0)
            groups[str(score.get("bundle_version")), kind].append((video_id, probability))
    if not any(kind == "audited" for _, kind in groups):
        raise DataError(
            f"--issue {issue}: no video of the window was audited for it; run `coefvq vmp run --audit-rate 0.02`, "
            "or widen --since"
        )
    sizes = {group: len(rows) for group, rows in sorted(groups.items()) if group[1] in LABELLED}
    quota = shares(sizes, labels)
    drawn = [row for group, size in quota.items() if size for row in _sample(group, groups[group], size, seed)]
    strata = [Stratum(*group, len(rows), quota.get(group, 0)) for group, rows in sorted(groups.items())]
    return Sample(strata, drawn, unlogged)


def _kind(score: Mapping[str, Any]) -> str | None:
    if score.get("awaits") == "mllm":
        return None  # not decided yet
    # a person's label needs no answer of the MLLM: a draw that still waits for one is not lost
    waits = score.get("awaits") == "audit" and score.get("audit_probability") is not None
    return "audited" if waits else kind_of(score)


def shares(sizes: Mapping[tuple[str, str], int], total: int) -> dict[tuple[str, str], int]:
    """Split ``total`` evenly; what a group is too small for goes to the others. The first get what does not divide."""
    given = dict.fromkeys(sizes, 0)
    while (left := total - sum(given.values())) and (open_groups := [key for key in sizes if given[key] < sizes[key]]):
        each, more = divmod(left, len(open_groups))
        for place, key in enumerate(open_groups):
            given[key] = min(sizes[key], given[key] + each + (place < more))
    return given


def _sample(group: tuple[str, str], rows: Sequence[tuple[str, float]], size: int, seed: int) -> list[Drawn]:
    bundle, kind = group
    # "label:" is the salt: the audit draws by the bare id
    order = np.argsort(uniform_draws([f"label:{video_id}" for video_id, _ in rows], seed), kind="stable")[:size]
    share = size / len(rows)
    chosen = [rows[place] for place in sorted(order.tolist())]
    return [Drawn(video_id, bundle, kind, audit * share, audit) for video_id, audit in chosen]


def check_labels(drawn: Sequence[Drawn], labelled: Collection[str]) -> None:
    """Refuse labels of other videos than the drawn ones, and a draw that lost more than 1 % of its own.

    Raises:
        DataError: in these cases.
    """
    others = sorted(set(labelled) - {row.video_id for row in drawn})
    if others:
        raise DataError(
            f"video '{shown(others[0])}' ({len(others)} in all) was not drawn: a label that did not come by chance "
            "cannot be weighed; delete the row"
        )
    lost = [row.video_id for row in drawn if row.video_id not in labelled]
    if len(lost) > MOST_LOST * len(drawn):
        raise DataError(
            f"{len(lost)} of {len(drawn)} drawn videos have no label, '{shown(lost[0])}' among them: more than "
            f"{100 * MOST_LOST:.0f} % lost makes the estimate biased; label them, or draw again"
        )


def estimates(
    strata: Sequence[Stratum], drawn: Sequence[Drawn], labels: Mapping[str, int]
) -> dict[str, AuditEstimate | str]:
    """Per bundle the estimate of recall, or in words why there is none."""
    found: dict[str, AuditEstimate | str] = {}
    for bundle in sorted({stratum.bundle for stratum in strata}):
        mine = [stratum for stratum in strata if stratum.bundle == bundle]
        try:
            found[bundle] = _estimate(mine, [row for row in drawn if row.bundle == bundle], labels)
        except DataError as error:
            found[bundle] = str(error)
    return found


def _estimate(strata: Sequence[Stratum], drawn: Sequence[Drawn], labels: Mapping[str, int]) -> AuditEstimate:
    """Horvitz–Thompson over the strata of one bundle; videos without a label have none."""
    flagged: list[bool] = []
    probability: list[float] = []
    label: list[float] = []
    for stratum in strata:
        rows = [row for row in drawn if row.kind == stratum.kind and row.video_id in labels]
        if stratum.kind in LABELLED and not rows:
            raise DataError(f"none of the {stratum.videos} {stratum.kind} videos has a label; draw more labels")
        rest = stratum.videos - len(rows)
        share = len(rows) / stratum.videos
        # the few that were lost are taken to be lost by chance
        probability += [row.audit * share for row in rows]
        label += [float(labels[row.video_id]) for row in rows]
        # below 1: the value itself is never looked at where there is no label
        probability += [0.5] * rest
        label += [float("nan")] * rest
        flagged += [stratum.kind == "flagged"] * stratum.videos
    return estimate(flagged, probability, label)
