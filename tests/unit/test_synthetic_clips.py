"""Facts of single videos: text shows the factors, labels follow posteriors, linked groups stay small."""

import json
import math
from collections import Counter, defaultdict
from datetime import timedelta
from itertools import combinations, pairwise

import numpy as np
import pytest

from coefvq.data.synthetic.clips import COLUMNS, Clip, describe, factors_row, metadata_row
from coefvq.data.synthetic.factors import ISSUES, Claim, Sticker
from coefvq.data.synthetic.overlays import sticker_patch
from coefvq.data.synthetic.render import SIZE
from coefvq.data.synthetic.texts import (
    CLAIM_PHRASES,
    STICKER_PHRASES,
    TOPIC_PHRASES,
    write_stickers,
    write_title,
)

PREVALENCE = {"icd": 0.07, "ucc": 0.09}
SECOND_HAND = {Claim.CREDIT, Claim.AGGREGATOR, Claim.DENIAL}


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [describe(11, index, PREVALENCE) for index in range(3000)]


@pytest.mark.parametrize("issue", ISSUES)
def test_labels_follow_the_posteriors(clips: list[Clip], issue: str) -> None:
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        group = [clip for clip in clips if low <= clip.posteriors[issue] < high]
        expected = sum(clip.posteriors[issue] for clip in group)
        spread = math.sqrt(sum(clip.posteriors[issue] * (1 - clip.posteriors[issue]) for clip in group))
        assert group
        assert abs(sum(clip.labels[issue] for clip in group) - expected) <= 4.5 * spread + 1e-6


@pytest.mark.parametrize("issue", ISSUES)
def test_views_and_creators_say_nothing_about_the_labels(clips: list[Clip], issue: str) -> None:
    """Given the factors they are independent, so what is left of the label must not follow them."""
    left = np.array([clip.labels[issue] - clip.posteriors[issue] for clip in clips])
    spread = math.sqrt(sum(clip.posteriors[issue] * (1 - clip.posteriors[issue]) for clip in clips))
    popular = np.array([clip.views for clip in clips]) > np.median([clip.views for clip in clips])
    per_creator = Counter(clip.creator_id for clip in clips)
    busy = np.array([per_creator[clip.creator_id] >= 6 for clip in clips])
    for group in (popular, busy):
        assert 0.2 < group.mean() < 0.8
        assert abs(left[group].sum()) < 4.5 * spread


def test_views_are_heavy_tailed(clips: list[Clip]) -> None:
    views = np.sort([clip.views for clip in clips])
    assert views[0] >= 0
    assert views[-30:].sum() > 0.25 * views.sum()  # one percent of the videos, a quarter of the views


def test_creators_are_about_one_per_four_videos_and_uneven(clips: list[Clip]) -> None:
    sizes = Counter(clip.creator_id for clip in clips).values()
    assert 3.5 < len(clips) / len(sizes) < 4.8
    assert max(sizes) >= 9 > 1 == min(sizes)


def test_sources_are_shared_by_few_second_hand_videos(clips: list[Clip]) -> None:
    by_source = defaultdict(list)
    for clip in clips:
        by_source[clip.source_id].append(clip)
    shared = [group for group in by_source.values() if len(group) > 1]
    assert {len(group) for group in shared} == {2, 3}
    assert all(clip.factors.claim in SECOND_HAND for group in shared for clip in group)
    assert 0.1 < sum(len(group) for group in shared) / len(clips) < 0.3


def test_videos_linked_by_creator_or_source_stay_in_their_circle(clips: list[Clip]) -> None:
    """A split grouped by both must not meet one group that swallows the data set."""
    for key in ("creator_id", "source_id"):
        circles = defaultdict(set)
        for clip in clips:
            circles[getattr(clip, key)].add(clip.index // 12)
        assert all(len(indices) == 1 for indices in circles.values())


def test_times_are_utc_and_follow_the_index(clips: list[Clip]) -> None:
    assert all(a.published_at < b.published_at for a, b in pairwise(clips))
    assert clips[0].published_at.utcoffset() == timedelta(0)
    assert describe(12, 0, PREVALENCE).published_at != clips[0].published_at


def test_seed_index_and_prevalence_decide_everything(clips: list[Clip]) -> None:
    assert describe(11, 5, PREVALENCE) == clips[5]
    assert describe(12, 5, PREVALENCE).factors != clips[5].factors
    often = describe(11, 5, {"icd": 0.9, "ucc": 0.9})
    assert (often.factors, often.title, often.views) == (clips[5].factors, clips[5].title, clips[5].views)
    assert often.posteriors["icd"] > clips[5].posteriors["icd"]


def test_rows_read_back(clips: list[Clip]) -> None:
    for clip in clips[:200]:
        row = dict(zip(COLUMNS, metadata_row(clip), strict=True))
        assert tuple(json.loads(row["stickers"])) == clip.stickers
        assert float(row["posterior_icd"]) == clip.posteriors["icd"]
        assert row["label_ucc"] == str(clip.labels["ucc"])
        assert row["file_name"] == f"videos/{clip.video_id}.mp4"
        assert factors_row(clip)["object"] == clip.factors.object.value
        assert (clip.stickers == ()) is (clip.factors.sticker is Sticker.NONE)


def test_each_meaning_has_its_own_phrases() -> None:
    tables = [*TOPIC_PHRASES.values(), *CLAIM_PHRASES.values(), *STICKER_PHRASES.values()]
    assert all(len(phrases) >= 10 for phrases in tables if phrases != ("",))
    for one, other in combinations(tables, 2):
        assert not set(one) & set(other)


@pytest.mark.parametrize("claim", Claim)
def test_titles_hold_a_phrase_of_topic_and_claim(claim: Claim) -> None:
    rng = np.random.default_rng(3)
    for topic, phrases in TOPIC_PHRASES.items():
        for _ in range(30):
            title = write_title(rng, topic, claim)
            assert "{" not in title
            assert title == title.strip()
            for table in (phrases, CLAIM_PHRASES[claim]):
                assert any(_longest_fixed_part(phrase) in title.lower() for phrase in table)


def _longest_fixed_part(phrase: str) -> str:
    parts = phrase.replace("{", "}").split("}")[::2]
    return max(parts, key=len).strip().lower()


@pytest.mark.parametrize("kind", STICKER_PHRASES)
def test_stickers_fit_the_picture_in_two_lines(kind: Sticker) -> None:
    for text in STICKER_PHRASES[kind]:
        assert text.isascii()  # the built-in font has no accents
        patch = sticker_patch(text, SIZE)
        assert patch.width <= SIZE - 2 * 5
        assert patch.height <= 34
    assert write_stickers(np.random.default_rng(0), kind)[0] in STICKER_PHRASES[kind]
