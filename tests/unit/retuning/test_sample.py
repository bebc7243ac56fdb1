"""Labels become weighted halves; what does not fit is refused with the number or the name that is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.cascade.curves import at_threshold
from coefvq.errors import DataError
from coefvq.retuning.sample import fresh_sample
from coefvq.retuning.traffic import ScoredTraffic, from_index
from coefvq.vmp.audit import DrawnLabel
from tests.unit.retuning.fresh_world import OLD, labels, truth, world


def labelled(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[scores["split"] != "traffic"]


def test_both_halves_hold_both_classes_evenly_and_no_video_is_in_both():
    sample = fresh_sample(world(400), labels(400, every=2), OLD, 5)
    halves = labelled(sample.scores).groupby("split")["label"].agg(["sum", "count"])
    assert abs(halves["sum"]["val"] - halves["sum"]["test"]) <= 1
    assert abs(halves["count"]["val"] - halves["count"]["test"]) <= 2
    assert labelled(sample.scores)["video_id"].is_unique
    assert (sample.scores["split"] == "traffic").sum() == 400
    assert (sample.labelled, sample.unused) == (200, 0)


def index_rows(n: int, rate: float, seed: int = 0) -> list[tuple[str, dict[str, object]]]:
    """The stream's log: escalated at 0.5, of the others a share audited."""
    traffic, rng, rows = world(n, seed).frame, np.random.default_rng(seed + 7), []
    for row in traffic.itertuples():
        score: dict[str, object] = {"base_score": row.base, "mllm_score": row.mllm, "bundle_version": "1-a"}
        if row.base < 0.5:
            drawn = rng.random() < rate
            score |= {"mllm_score": row.mllm if drawn else None} | ({"audit_probability": rate} if rate else {})
        score["positive"] = score["mllm_score"] is not None and row.mllm >= 0.5
        rows.append((str(row.video_id), score))
    return rows


def test_weights_of_the_index_by_hand():
    """Half of the flagged, half of the rejected and all audited at rate 0.25: weights 2, 2 and 4."""
    traffic = from_index("vmp", index_rows(2000, 0.25))
    kind = dict(zip(traffic.frame["video_id"], traffic.frame["kind"], strict=True))
    ids = {name: [video for video, found in kind.items() if found == name] for name in set(kind.values())}
    even = {name: rows[: len(rows) // 2 * 2] for name, rows in ids.items()}
    drop = {video for name in ("flagged", "rejected") for video in ids[name] if video not in even[name]}
    traffic = replace(traffic, frame=traffic.frame[~traffic.frame["video_id"].isin(drop)].reset_index(drop=True))
    chosen = [*even["flagged"][::2], *even["rejected"][::2], *ids["audited"]]
    values = truth(2000)
    given_labels = {video: DrawnLabel(int(values[int(video[1:])]), None) for video in chosen}
    complaint = ids["unseen"][0]
    sample = fresh_sample(traffic, {**given_labels, complaint: DrawnLabel(1, None)}, OLD, 5)
    weights = labelled(sample.scores).set_index("video_id")["weight"]
    assert {kind[video]: weight for video, weight in weights.items()} == {"flagged": 2, "rejected": 2, "audited": 4}
    assert sample.unused == 1  # nobody drew the complaint


def test_weighted_figures_agree_with_those_of_all_videos():
    """Brute force labels every video. The weighted sample estimates the same recall; the unweighted one does not."""
    n = 40_000
    whole = world(n, 3).frame
    exact = at_threshold(truth(n, 3), OLD.ranking_score(whole["base"], whole["mllm"]), 0.5)
    traffic = from_index("vmp", index_rows(n, 0.1, 3))
    drawn = traffic.frame.loc[traffic.frame["mllm"].notna(), "video_id"]
    values = truth(n, 3)
    sample = fresh_sample(traffic, {video: DrawnLabel(int(values[int(video[1:])]), None) for video in drawn}, OLD, 5)
    rows = labelled(sample.scores)
    score = OLD.ranking_score(rows["base"], rows["mllm"])
    weighted = at_threshold(rows["label"], score, 0.5, rows["weight"])
    plain = at_threshold(rows["label"], score, 0.5)
    assert weighted.recall == pytest.approx(exact.recall, abs=0.02)
    assert weighted.precision == pytest.approx(exact.precision, abs=1e-9)
    assert abs(plain.recall - exact.recall) > 0.1


@settings(max_examples=20, deadline=None)
@given(st.floats(min_value=0.01, max_value=1.0), st.integers(0, 50))
def test_equal_probabilities_change_nothing(probability: float, seed: int):
    without = fresh_sample(world(400, seed), labels(400, seed), OLD, 5).scores
    same = fresh_sample(world(400, seed), labels(400, seed, probability=probability), OLD, 5).scores
    assert (labelled(same)["weight"] == 1.0 / probability).all()
    figures = [
        at_threshold(rows["label"], OLD.ranking_score(rows["base"], rows["mllm"]), 0.5, rows["weight"])
        for rows in (labelled(without), labelled(same))
    ]
    assert figures[0] == figures[1]


def unscored(traffic: ScoredTraffic, rows: slice) -> ScoredTraffic:
    changed = traffic.frame.copy()
    changed.loc[changed.index[rows], "mllm"] = np.nan
    return replace(traffic, frame=changed)


def mixed() -> dict[str, DrawnLabel]:
    return labels(400, probability=0.5) | {"v00007": DrawnLabel(0, None)}


@pytest.mark.parametrize(
    ("traffic", "given_labels", "message"),
    [
        (world(400), labels(400) | {"zz": DrawnLabel(1, None)}, "labels: 1 of 401 videos are not among .*first zz;"),
        (world(400), labels(400, every=40), r"labels: 0 positive and 10 negative .* label 5 more positive videos$"),
        (world(400), labels(400, every=20), r"at least 5 of each are needed: label 2 more .*, about \d+ videos more"),
        (world(400), mixed(), "video v00007 has no probability, while others have one"),
        (unscored(world(400), slice(3, 9)), labels(400), "6 of 400 labelled videos have no MLLM score, first v00003"),
        (from_index("vmp", index_rows(400, 0.0)), labels(400), "none of these was audited"),
        (from_index("vmp", index_rows(400, 0.5)), {}, "none of the .* flagged videos has a label"),
    ],
)
def test_refused(traffic: ScoredTraffic, given_labels: dict[str, DrawnLabel], message: str):
    with pytest.raises(DataError, match=message):
        fresh_sample(traffic, given_labels, OLD, 5)


def test_labels_of_escalated_videos_alone_are_refused():
    traffic = world(1000)
    chosen = {video: label for video, label in labels(1000).items() if traffic.frame["base"][int(video[1:])] >= 0.5}
    with pytest.raises(DataError, match=r"of videos that the champion escalates, .* add a column probability"):
        fresh_sample(traffic, chosen, OLD, 5)
    fresh_sample(traffic, {video: replace(label, probability=0.5) for video, label in chosen.items()}, OLD, 5)
