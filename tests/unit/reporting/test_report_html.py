"""The report page: nothing from outside, every text escaped, words that follow from the figures."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from PIL import Image

from coefvq.config import LabelNames
from coefvq.evaluation.report import cascade_report, evaluation_report
from coefvq.reporting.html import ReportInputs, Served, build, pictures, wanted_thumbnails
from coefvq.reporting.html.decisions import Per1000, TestVideos, alone, cascade, change, differing, per_1000
from coefvq.reporting.html.figures import shifts
from coefvq.reporting.html.verdict import verdict
from tests.unit.report_world import inputs

ADDRESS = re.compile(r"(?:https?:)?//[a-z0-9]", re.IGNORECASE)


class _Page(HTMLParser):
    """Attributes that load something, tags, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def given() -> ReportInputs:
    return inputs()


@pytest.fixture(scope="module")
def page(given) -> str:
    return build(given)


def test_nothing_is_loaded_from_anywhere(page):
    parsed = _Page(page)
    assert all(load.startswith(("data:", "#")) for load in parsed.loads), parsed.loads
    assert "script" not in parsed.tags
    assert "default-src 'none'" in page
    # neither in the style sheet nor in a chart; the SVG namespace is a name, not an address
    assert not ADDRESS.search(page.replace("http://www.w3.org/2000/svg", ""))
    assert not re.search(r"url\(|@import", page)


def test_titles_are_text(given):
    evil = '<img src=x onerror="alert(1)">{{ 7 * 7 }}</title>'
    manifest = given.manifest.assign(title=evil)
    page = build(replace(given, manifest=manifest))
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "49" not in _Page(page).text.split("Examples")[1].split("Where it comes from")[0]


def test_pictures_are_shown(given):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    wanted = wanted_thumbnails(given)
    assert 0 < len(wanted) <= 12
    page = build(replace(given, thumbnails=dict.fromkeys(wanted, buffer.getvalue())))
    assert page.count("data:image/jpeg;base64,") == len(wanted)
    assert "no picture" not in page


def test_every_part_is_there(page):
    text = _Page(page).text
    for heading in (
        "What happens to 1,000 videos",
        "The gate",
        "Against what is served now",
        "How much is found at which precision",
        "Are the scores probabilities",
        "Slices",
        "Examples",
        "Where it comes from",
    ):
        assert heading in text
    assert page.count("<svg") == 5
    # intervals of F1 and R@P stand beside base, MLLM and every reachable policy
    assert len(re.findall(r"<small>\d+–\d+</small>", page)) > 10


def test_svg_files_need_no_page(given):
    for svg in pictures(given).values():
        assert svg.startswith("<svg")
        assert "var(--" not in svg
        assert not ADDRESS.search(svg.replace("http://www.w3.org/2000/svg", ""))


def test_counts_by_hand():
    videos = TestVideos(
        video_id=tuple("abcde"),
        label=np.array([1.0, 1, 1, 0, 0]),
        weight=np.array([1.0, 1, 1, 1, 4]),
        base=np.array([0.9, 0.8, 0.1, 0.9, 0.0]),
        mllm=np.array([0.9, 0.1, 0.9, 0.9, 0.0]),
        views=np.full(5, np.nan),
        group=None,
    )
    policy = {"issue": "icd", "base_threshold": 0.5, "decision_threshold": 0.5, "p_base": None, "views_trigger": None}
    row = per_1000(cascade("pair", policy, videos), videos)
    assert (row.right, row.wrong, row.missed_filtered, row.missed_rejected) == (125, 125, 125, 125)
    assert (row.calls, row.precision, row.recall) == (375, 0.5, pytest.approx(1 / 3))
    assert row.f1 == pytest.approx(0.4)


def test_change_agrees_with_counting():
    given = inputs()
    videos = TestVideos.of(given.scores, None)
    new, old = alone("new", videos.mllm, 0.5, True), alone("old", videos.base, 0.5, False)
    found = change(new, old, videos)
    assert found.points == pytest.approx(100 * (per_1000(new, videos).f1 - per_1000(old, videos).f1))
    assert found.low < found.points < found.high
    truth = videos.label > 0.5
    assert found.gained - found.lost == ((new.positive == truth).sum() - (old.positive == truth).sum())
    gained, lost = differing(new, old, videos, 4)
    assert all(new.positive[i] == truth[i] != old.positive[i] for i in gained)
    assert all(old.positive[i] == truth[i] != new.positive[i] for i in lost)
    assert len(gained) == min(4, found.gained)


def _better(scores: pd.DataFrame, by: float) -> pd.DataFrame:
    """The same videos scored by an MLLM that is worse by ``by``: its scores mixed with noise."""
    rng = np.random.default_rng(5)
    return scores.assign(mllm=(1 - by) * scores["mllm"] + by * rng.random(len(scores)))


@pytest.mark.parametrize(("by", "headline"), [(0.9, "Better than"), (0.0, "No clear difference")])
def test_the_served_pair_is_compared_on_the_same_videos(given, by, headline):
    served = Served("7-abc", {**given.candidate}, _better(given.scores, by))
    text = _Page(build(replace(given, served=served))).text
    assert headline in text
    assert "On the same test videos" in text


def test_a_worse_pair_is_called_worse(given):
    scores = _better(given.scores, 0.9)
    targets = (60.0, 70.0, 80.0, 90.0)
    worse = replace(
        given,
        scores=scores,
        evaluation=evaluation_report(scores, "icd", targets),
        thresholds=cascade_report(scores, "icd", [30, 40], 0.03, None, targets),
        served=Served("7-abc", given.candidate, given.scores),
    )
    text = _Page(build(worse)).text
    assert "Worse than the served pair 7-abc" in text
    assert "does not clearly earn its calls" in text


def test_other_test_videos_are_not_compared(given):
    served = Served("7-abc", given.candidate, given.scores.drop(index=given.scores.index[600:650]))
    text = _Page(build(replace(given, served=served))).text
    assert "cannot be compared one by one" in text


def test_a_refused_gate_comes_first():
    checks = [{"name": "qps_ratio", "passed": False, "explanation": "80 % of traffic reach the MLLM"}]
    found = verdict(checks, None, False, None)
    assert found.tone == "bad"
    assert "80 %" in found.reason


def test_cautions_name_drift_and_few_positives(given):
    text = _Page(build(given)).text
    assert "test videos are positive" in text
    drifted = given.scores.copy()
    traffic = drifted["split"] == "traffic"
    drifted.loc[traffic, "base"] = 1 - drifted.loc[traffic, "base"]
    assert "base scores of traffic differ from validation" in _Page(build(replace(given, scores=drifted))).text


def test_the_teacher_of_a_distilled_base_is_named(given, page):
    assert "distilled from" not in _Page(page).text
    base = {**given.candidate["base"], "teacher": given.candidate["mllm"]["sha256"]}
    taught = _Page(build(replace(given, candidate={**given.candidate, "base": base}))).text
    assert "the MLLM with sha256 aaaaaaaaaaaaaaaa…, that of this pair" in taught
    other = _Page(build(replace(given, candidate={**given.candidate, "base": {**base, "teacher": "b" * 64}}))).text
    assert "the MLLM with sha256 bbbbbbbbbbbbbbbb…, another than that of this pair" in other


def test_the_page_speaks_of_the_issue_in_its_own_words(given):
    text = _Page(build(replace(given, words=LabelNames(positive="brawl", negative="calm")))).text
    assert "brawl videos are missed" in text
    assert "brawl videos found" in text
    assert "violation" not in text
    assert "positive videos are missed" in _Page(build(given)).text


@drawn(counts=st.lists(st.floats(0.0, 400.0), min_size=4, max_size=4), calls=st.floats(0.0, 1000.0))
def test_counts_that_are_shown_add_up(counts, calls):
    right, wrong, filtered, rejected = counts
    row = Per1000("pair", calls, right, wrong, filtered + rejected, filtered, rejected, n=10, positives=3)
    whole = row.whole()
    shown = (whole.right, whole.wrong, whole.missed_filtered, whole.missed_rejected)
    assert all(abs(a - b) < 1 for a, b in zip(shown, counts, strict=True))
    assert whole.right + whole.missed == round(right + filtered + rejected)
    assert whole.flagged == whole.right + whole.wrong


def test_few_videos_are_neither_stable_nor_shifted():
    rng = np.random.default_rng(1)
    frames = [
        pd.DataFrame({"split": split, "base": rng.normal(mean, 0.1, n), "mllm": rng.normal(mean, 0.1, n)})
        for split, n, mean in (("val", 200, 0.5), ("test", 200, 0.5), ("traffic", 28, 0.9))
    ]
    found = {f"{one.model} {one.split}": one.reading for one in shifts(pd.concat(frames))}
    assert found == dict.fromkeys(("base test", "MLLM test"), "stable") | dict.fromkeys(
        ("base traffic", "MLLM traffic"), "too few (28)"
    )
    frames[2] = pd.concat([frames[2]] * 4)
    assert {one.reading for one in shifts(pd.concat(frames)) if one.split == "traffic"} == {"shifted"}
