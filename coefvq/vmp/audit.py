"""From the index's rows and a table of labels to an estimate of recall in production.

Rows fall into four kinds. *Flagged* and *rejected* videos (the MLLM said no) were escalated by the policy;
labels of a part of them are taken as a random part. *Audited* videos were filtered out, drawn, and escalated
anyway; the *unseen* were filtered out and not drawn, and a label that somebody has for one is not used: it did
not come by chance.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coefvq.cascade.audit_sample import AuditEstimate, estimate
from coefvq.data.importers import values
from coefvq.data.importers.columns import Expected
from coefvq.data.importers.tables import read_cells
from coefvq.errors import DataError
from coefvq.records import label_column

KINDS = ("flagged", "rejected", "audited", "unseen")


@dataclass(frozen=True)
class StreamAudit:
    """The estimate of one issue, with the rows and labels per kind.

    ``unlogged`` rows were filtered out while no audit ran: they have no probability and are left out.
    """

    issue: str
    rows: dict[str, int]
    labels: dict[str, int]
    unlogged: int
    estimate: AuditEstimate


@dataclass(frozen=True)
class DrawnLabel:
    """A label, 0 or 1, and the probability in (0, 1] with which the video was drawn for labelling; None: not said."""

    value: int
    probability: float | None


@dataclass(frozen=True)
class _Rows:
    """Per row of a kind the probability that the MLLM saw it, and its label, NaN without one."""

    probability: array[float] = field(default_factory=lambda: array("d"))
    label: array[float] = field(default_factory=lambda: array("d"))


def read_labels(path: Path, issue: str) -> dict[str, int]:
    """Labels of people: video id -> 0 or 1; see :func:`read_drawn_labels`."""
    return {video_id: label.value for video_id, label in read_drawn_labels(path, issue).items()}


def read_drawn_labels(path: Path, issue: str) -> dict[str, DrawnLabel]:
    """Labels of people by video id. Rows without a label say nothing and are left out.

    Raises:
        DataError: not a table, no column of ids or labels, a cell that does not fit, or an id without or with two rows.
    """
    columns = (label_column(issue), "label")
    table = read_cells(path, Expected(frozenset({"video_id", "probability", *columns})))
    labels: dict[str, DrawnLabel] = {}
    first: dict[str, int] = {}
    for number, row in table.rows:
        place = f"{path} row {number}"
        column = next((name for name in columns if name in row), None)
        if column is None or "video_id" not in row:
            raise DataError(f"{place}: expected the columns video_id and label; found {', '.join(row)}")
        label = values.truth(place, column, row[column])
        if label == label and label not in (0.0, 1.0):
            raise DataError(f"{place}: {column} = {values.shown(row[column])}: expected 0 or 1, or empty; correct it")
        video_id = values.text(place, "video_id", row["video_id"])
        if video_id is None:
            raise DataError(f"{place}: no video_id; give it one or delete the row")
        if first.setdefault(video_id, number) != number:
            raise DataError(f"{place}: id {video_id} comes again (first in row {first[video_id]}); keep one row")
        if label == label:
            labels[video_id] = DrawnLabel(int(label), _probability(place, row.get("probability"), table.decimal_comma))
    return labels


def _probability(place: str, cell: Any, decimal_comma: bool) -> float | None:
    probability = values.number(place, "probability", cell, math.nan, decimal_comma=decimal_comma)
    if math.isnan(probability):
        return None
    if not 0.0 < probability <= 1.0:
        raise DataError(
            f"{place}: probability = {values.shown(cell)}: expected a number above 0 and at most 1, with which the "
            "video was drawn for labelling; correct it"
        )
    return probability


def audit_stream(issue: str, scores: Iterable[tuple[str, Mapping[str, Any]]], labels: Mapping[str, int]) -> StreamAudit:
    """Estimate recall of one issue.

    Args:
        issue: name, for the result and for errors.
        scores: (video id, the issue's scores as the index keeps them) per video.
        labels: video id -> 0 or 1, of audited videos and of those that were escalated.

    Raises:
        DataError: no video was audited, a kind with rows has no label, or no positive is seen.
    """
    # numbers alone: the ids of a stream are too many to keep
    kinds = {kind: _Rows() for kind in KINDS}
    unlogged = 0
    for video_id, score in scores:
        kind = kind_of(score)
        if kind == "unlogged":
            unlogged += 1
        elif kind is not None:
            kinds[kind].probability.append(float(score.get("audit_probability") or 1.0))
            # somebody's label of an unseen video did not come by chance
            kinds[kind].label.append(math.nan if kind == "unseen" else labels.get(video_id, math.nan))
    rows = {kind: len(found.label) for kind, found in kinds.items()}
    if not rows["audited"]:
        raise DataError(
            f"--issue {issue}: no video was audited for it; run `coefvq vmp run --audit-rate 0.02` and publish again, "
            "or wait"
        )
    known = {kind: int(np.count_nonzero(~np.isnan(kinds[kind].label))) for kind in KINDS[:3]}
    for kind, count in known.items():
        if rows[kind] and not count:
            raise DataError(f"{issue}: none of the {rows[kind]} {kind} videos has a label; label some at random")
    # only a part of a kind has labels, and that counts in its probability
    shares = {kind: known[kind] / rows[kind] if kind in known else 1.0 for kind in KINDS if rows[kind]}
    flagged = np.repeat([kind == "flagged" for kind in shares], [rows[kind] for kind in shares])
    probability = np.concatenate([np.asarray(kinds[kind].probability) * share for kind, share in shares.items()])
    label = np.concatenate([np.asarray(kinds[kind].label) for kind in shares])
    return StreamAudit(issue, rows, known, unlogged, estimate(flagged, probability, label))


def kind_of(score: Mapping[str, Any]) -> str | None:
    """Which of ``KINDS`` a row is; ``unlogged``: filtered out while no audit ran.

    None: it could not be scored, or the MLLM's answer is pending.
    """
    if score.get("error") is not None or score.get("awaits") is not None:
        return None
    asked = score.get("mllm_score") is not None
    if score.get("audit_probability") is not None:
        return "audited" if asked else "unseen"
    if score.get("positive"):
        return "flagged"
    return "rejected" if asked else "unlogged"
