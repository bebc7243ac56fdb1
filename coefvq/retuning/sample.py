"""From scored traffic and labels to the table that thresholds are chosen and judged on. Pure.

A label stands for as many videos as its weight says: 1 / the probability with which its video was drawn (Horvitz and
Thompson 1952). A labels file may give that probability. Without it, rows of the index tell it: of the *flagged* and
of the *rejected* videos a random part has labels, an *audited* video was drawn with a known probability. In a file
of scores labels without probabilities are a simple random sample.

One half of the labels chooses the thresholds, the other half judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coefvq.cascade.curves import FloatArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import DataError
from coefvq.files import sha256_json
from coefvq.records import REQUIRED_SCORE_COLUMNS
from coefvq.retuning.traffic import ScoredTraffic
from coefvq.vmp.audit import DrawnLabel

if TYPE_CHECKING:
    import pandas as pd

#: kinds of index rows that came to a label by chance
_DRAWN = ("flagged", "rejected", "audited")
#: labelled videos a random sample would have below the base threshold; with so many expected, none is no chance
_EXPECTED_BELOW = 10


@dataclass(frozen=True)
class FreshSample:
    """``scores`` has the columns of scores.parquet: labelled rows as ``val`` and ``test``, all traffic as ``traffic``.

    ``unused`` labels are of videos that were not drawn by chance, that failed, or that other models scored.
    """

    scores: pd.DataFrame
    labelled: int
    positives: int
    unused: int


def fresh_sample(
    traffic: ScoredTraffic,
    labels: Mapping[str, DrawnLabel],
    champion: CascadePolicy,
    min_labels: int,
    source: str = "labels",
) -> FreshSample:
    """Join, weigh and halve.

    Args:
        champion: the policy that is served, for messages about what was not labelled.
        min_labels: positives and negatives needed of each.
        source: what messages call the labels, such as their file.

    Raises:
        DataError: a label's video is unknown, labels do not cover the traffic, an MLLM score is missing, or there are
            too few labels.
    """
    import pandas as pd

    _refuse_unknown(traffic, labels, source)
    rows = traffic.frame[traffic.frame["video_id"].isin(labels)].copy()
    rows["label"] = [float(labels[video_id].value) for video_id in rows["video_id"]]
    given = _given(rows, labels, source)
    if given is None and traffic.frame["kind"].notna().any():
        rows = rows[rows["kind"].isin(_DRAWN)]
        given = _kept_by_kind(traffic, rows, source)
    if given is None:
        _refuse_one_sided(traffic, rows, champion, source)
        given = np.ones(len(rows))
    rows["weight"] = 1.0 / given
    _refuse_few(rows, min_labels, source)
    _refuse_unscored(traffic, rows)
    rows["split"] = _halves(rows)
    arriving = traffic.frame.assign(split="traffic", label=np.nan, weight=1.0)
    scores = pd.concat([rows, arriving], ignore_index=True).assign(posterior=np.nan)
    positives = int(rows["label"].sum())
    return FreshSample(scores[list(REQUIRED_SCORE_COLUMNS)], len(rows), positives, len(labels) - len(rows))


def _refuse_unknown(traffic: ScoredTraffic, labels: Mapping[str, DrawnLabel], source: str) -> None:
    known = {*traffic.frame["video_id"], *traffic.failed, *traffic.other_models}
    unknown = sorted(labels.keys() - known)
    if unknown:
        raise DataError(
            f"{source}: {len(unknown)} of {len(labels)} videos are not among those scored in {traffic.source}, first "
            f"{unknown[0]}; score them too, or delete their rows"
        )


def _given(rows: pd.DataFrame, labels: Mapping[str, DrawnLabel], source: str) -> FloatArray | None:
    """The probabilities that the labels file gives, [n]; None where it gives none."""
    found = [labels[video_id].probability for video_id in rows["video_id"]]
    missing = [video_id for video_id, value in zip(rows["video_id"], found, strict=True) if value is None]
    if len(missing) == len(found):
        return None
    if missing:
        raise DataError(
            f"{source}: video {missing[0]} has no probability, while others have one; give all of them, or delete the "
            "column"
        )
    return np.array(found, dtype=np.float64)


def _kept_by_kind(traffic: ScoredTraffic, rows: pd.DataFrame, source: str) -> FloatArray:
    """Probability of each labelled row of the index: that it was escalated, times the labelled share of its kind."""
    have, labelled = (frame["kind"].value_counts() for frame in (traffic.frame, rows))
    filtered = sum(int(have.get(kind, 0)) for kind in ("unseen", "unlogged"))
    if filtered and not have.get("audited", 0):
        raise DataError(
            f"{traffic.source}: {filtered} videos were filtered out and none of these was audited, so nobody knows "
            "what the base model misses; run `coefvq vmp run --audit-rate 0.02`, label the audited videos, or give "
            "labels with a column probability"
        )
    for kind in _DRAWN:
        if have.get(kind, 0) and not labelled.get(kind, 0):
            raise DataError(f"{source}: none of the {have[kind]} {kind} videos has a label; label some at random")
    share = np.asarray((labelled / have).reindex(rows["kind"]), dtype=np.float64)
    escalated = np.asarray(rows["audit_probability"].fillna(1.0), dtype=np.float64)
    return share * escalated


def _refuse_one_sided(traffic: ScoredTraffic, rows: pd.DataFrame, champion: CascadePolicy, source: str) -> None:
    """Labels of escalated videos alone are no random sample of the traffic, whatever the person thinks."""
    below = ~champion.escalates(traffic.frame["base"], traffic.frame["views"])
    seen = ~champion.escalates(rows["base"], rows["views"]) if len(rows) else np.zeros(0, dtype=bool)
    if not seen.any() and below.mean() * len(rows) >= _EXPECTED_BELOW:
        raise DataError(
            f"{source}: all {len(rows)} are of videos that the champion escalates, {100 * below.mean():.0f} % of the "
            "traffic it filters out; label a random sample, or add a column probability"
        )


def _refuse_few(rows: pd.DataFrame, min_labels: int, source: str) -> None:
    positives = int(rows["label"].sum())
    negatives = len(rows) - positives
    if min(positives, negatives) >= min_labels:
        return
    few, name = (positives, "positive") if positives <= negatives else (negatives, "negative")
    share = few / len(rows) if len(rows) else 0.0
    more = f", about {round((min_labels - few) / share):,} videos more as these were drawn" if share else ""
    raise DataError(
        f"{source}: {positives} positive and {negatives} negative of {len(rows)} usable labels; at least {min_labels} "
        f"of each are needed: label {min_labels - few} more {name} videos{more}"
    )


def _refuse_unscored(traffic: ScoredTraffic, rows: pd.DataFrame) -> None:
    unscored = rows.loc[rows["mllm"].isna(), "video_id"]
    if len(unscored):
        raise DataError(
            f"{traffic.source}: {len(unscored)} of {len(rows)} labelled videos have no MLLM score, first "
            f"{unscored.iloc[0]}; give a table with both scores (--scores), or delete their labels if they were drawn "
            "for another reason"
        )


def _halves(rows: pd.DataFrame) -> list[str]:
    """``val`` or ``test`` per row: each class in turn, in the order of a hash of the id."""
    sides = {"val": "test", "test": "val"}
    turn = {0.0: "val", 1.0: "val"}
    made = {}
    keyed = sorted(zip(rows["video_id"], rows["label"], strict=True), key=lambda item: sha256_json(str(item[0])))
    for video_id, label in keyed:
        made[video_id] = turn[label]
        turn[label] = sides[turn[label]]
    return [made[video_id] for video_id in rows["video_id"]]
