"""Facts of single videos: text says what is shown, labels follow every posterior, linked groups stay small."""

import itertools
import json
import math
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import timedelta
from itertools import combinations, pairwise

import numpy as np
import pytest

from coefvq.simulation.synthetic.captions import caption
from coefvq.simulation.synthetic.clips import COLUMNS, POSTERIORS, Clip, describe, factors_row, metadata_row
from coefvq.simulation.synthetic.factors import (
    FACTOR_TYPES,
    Action,
    Claim,
    Edit,
    Factors,
    Object,
    Sound,
    Sticker,
    Topic,
)
from coefvq.simulation.synthetic.odds import ISSUES
from coefvq.simulation.synthetic.overlays import sticker_patch
from coefvq.simulation.synthetic.phrases import LANGUAGES, PHRASES
from coefvq.simulation.synthetic.render import SIZE
from coefvq.simulation.synthetic.texts import capitalised, fill, joined, write
from coefvq.simulation.synthetic.world import VIEWS, chance

PREVALENCE = {"icd": 0.07, "ucc": 0.09}
SECOND_HAND = {Claim.CREDIT, Claim.AGGREGATOR, Claim.DENIAL}
BASE = Factors(Object.BALL, Action.CALM, Topic.VAGUE, Sticker.NONE, Edit.PLAIN, Claim.NONE, Sound.MUSIC)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [describe(11, index, PREVALENCE) for index in range(3000)]


@pytest.mark.parametrize("column", POSTERIORS)
def test_labels_follow_the_posterior_of_every_view(clips: list[Clip], column: str) -> None:
    """Monte Carlo: in each range of a posterior, the share of positives is what it says."""
    issue, _ = POSTERIORS[column]
    tested = 0
    for low, high in pairwise((0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)):
        group = [clip for clip in clips if low <= clip.posteriors[column] < high]
        expected = sum(clip.posteriors[column] for clip in group)
        spread = math.sqrt(sum(clip.posteriors[column] * (1 - clip.posteriors[column]) for clip in group))
        assert abs(sum(clip.labels[issue] for clip in group) - expected) <= 4 * spread + 1e-6
        tested += len(group) > 30
    assert tested >= 4


@pytest.mark.parametrize("issue", ISSUES)
def test_labels_follow_the_true_factors_rather_than_the_shown_ones(clips: list[Clip], issue: str) -> None:
    labels = [clip.labels[issue] for clip in clips]
    by_truth = [chance(issue, clip.truth, PREVALENCE[issue]) for clip in clips]
    by_looks = [chance(issue, clip.shown, PREVALENCE[issue]) for clip in clips]
    spread = math.sqrt(sum(share * (1 - share) for share in by_truth))
    assert abs(sum(labels) - sum(by_truth)) < 4 * spread
    brier = [np.mean((np.array(labels) - np.array(shares)) ** 2) for shares in (by_truth, by_looks)]
    assert brier[0] < 0.7 * brier[1]


def test_a_factor_is_shown_wrongly_now_and_then(clips: list[Clip]) -> None:
    for name in FACTOR_TYPES:
        wrong = np.mean([getattr(clip.truth, name) is not getattr(clip.shown, name) for clip in clips])
        assert 0.05 < wrong < 0.15, name


@pytest.mark.parametrize("issue", ISSUES)
def test_views_and_creators_say_nothing_about_the_labels(clips: list[Clip], issue: str) -> None:
    """Given what is shown they are independent, so what is left of the label must not follow them."""
    shares = np.array([clip.posteriors[f"posterior_{issue}"] for clip in clips])
    left = np.array([clip.labels[issue] for clip in clips]) - shares
    popular = np.array([clip.views for clip in clips]) > np.median([clip.views for clip in clips])
    per_creator = Counter(clip.creator_id for clip in clips)
    busy = np.array([per_creator[clip.creator_id] >= 6 for clip in clips])
    per_source = Counter(clip.source_id for clip in clips)
    relayed = np.array([per_source[clip.source_id] > 1 for clip in clips])
    english = np.array([clip.writing.language == "en" for clip in clips])
    for group in (popular, busy, relayed, english):
        assert 0.1 < group.mean() < 0.8
        assert abs(left[group].sum()) < 4.5 * math.sqrt((shares * (1 - shares))[group].sum())


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
    assert all(clip.shown.claim in SECOND_HAND for group in shared for clip in group)
    assert 0.1 < sum(len(group) for group in shared) / len(clips) < 0.3


def test_videos_linked_by_creator_or_source_stay_in_their_circle(clips: list[Clip]) -> None:
    """A split grouped by both must not meet one group that swallows the data set."""
    for key in ("creator_id", "source_id"):
        circles = defaultdict(set)
        for clip in clips:
            circles[getattr(clip, key)].add(clip.index // 12)
        assert all(len(indices) == 1 for indices in circles.values())


def test_copies_share_the_source_of_strangers_and_change_nothing_else(clips: list[Clip]) -> None:
    copied = [describe(11, index, PREVALENCE, copies=0.2) for index in range(500)]
    changed = [clip for clip, plain in zip(copied, clips, strict=False) if clip.source_id != plain.source_id]
    assert 0.15 < len(changed) / len(copied) < 0.25
    assert [replace(clip, source_id="") for clip in copied] == [replace(clip, source_id="") for clip in clips[:500]]
    circles = defaultdict(set)
    for clip in copied:
        circles[clip.source_id].add(clip.index // 12)
    assert sum(len(found) > 1 for found in circles.values()) > 25


def test_times_are_utc_follow_the_index_and_spread_over_a_year(clips: list[Clip]) -> None:
    assert all(a.published_at < b.published_at for a, b in pairwise(clips))
    assert clips[0].published_at.utcoffset() == timedelta(0)
    assert timedelta(days=330) < clips[1999].published_at - clips[0].published_at < timedelta(days=366)
    assert describe(12, 0, PREVALENCE).published_at != clips[0].published_at


def test_seed_index_and_prevalence_decide_everything(clips: list[Clip]) -> None:
    assert describe(11, 5, PREVALENCE) == clips[5]
    assert describe(12, 5, PREVALENCE).truth != clips[5].truth
    often = describe(11, 5, {"icd": 0.9, "ucc": 0.9})
    for name in ("truth", "shown", "writing", "creator_id", "views"):
        assert getattr(often, name) == getattr(clips[5], name)
    assert all(often.posteriors[column] > clips[5].posteriors[column] for column in POSTERIORS)


def test_rows_read_back(clips: list[Clip]) -> None:
    for clip in clips[:200]:
        row = dict(zip(COLUMNS, metadata_row(clip), strict=True))
        assert tuple(json.loads(row["stickers"])) == clip.writing.stickers
        assert {column: float(row[column]) for column in POSTERIORS} == clip.posteriors
        assert row["label_ucc"] == str(clip.labels["ucc"])
        assert row["file_name"] == f"videos/{clip.video_id}.mp4"
        line = factors_row(clip)
        for name, kind in FACTOR_TYPES.items():
            assert kind(line["shown"][name]) is getattr(clip.shown, name)
            assert kind(line["true"][name]) is getattr(clip.truth, name)
        assert line["language"] in LANGUAGES
        assert line["description"] == caption(clip.shown)
        assert (clip.writing.stickers == ()) is (clip.shown.sticker is Sticker.NONE)


def test_posterior_columns_name_issue_and_view() -> None:
    ends = ("", "_vision_text", "_vision")
    assert {view for _, view in POSTERIORS.values()} == set(VIEWS)
    assert list(POSTERIORS) == [f"posterior_{issue}{end}" for end in ends for issue in ISSUES]


def test_languages_are_used_as_often_as_they_should(clips: list[Clip]) -> None:
    counts = Counter(clip.writing.language for clip in clips)
    assert sum(LANGUAGES.values()) == pytest.approx(1.0)
    for language, share in LANGUAGES.items():
        assert abs(counts[language] - 3000 * share) < 4.5 * math.sqrt(3000 * share * (1 - share))


def test_every_level_can_be_said_in_every_language_and_no_phrase_means_two_things() -> None:
    meaning: dict[str, object] = {}
    for book in PHRASES.values():
        assert set(book.topic) == set(Topic)
        assert set(book.claim) == set(Claim) - {Claim.NONE}
        assert set(book.sticker) == set(Sticker) - {Sticker.NONE}
        assert len(book.days) == 7
        for level, phrases in itertools.chain(book.topic.items(), book.claim.items(), book.sticker.items()):
            assert len(phrases) == len(set(phrases)) >= 4
            for phrase in phrases:
                assert meaning.setdefault(phrase, level) is level, phrase
                assert "{mood}" not in phrase or book.moods


@pytest.mark.parametrize("language", PHRASES)
def test_titles_and_stickers_say_what_is_shown(clips: list[Clip], language: str) -> None:
    book = PHRASES[language]
    for clip in [clip for clip in clips if clip.writing.language == language][:150]:
        title, shown, used = clip.writing.title, clip.shown, clip.writing.phrases
        assert title == title.strip()
        assert "{" not in title
        said = [book.topic[shown.topic][used["topic"]]]
        if shown.claim is not Claim.NONE:
            said.append(book.claim[shown.claim][used["claim"]])
        assert all(_longest_fixed_part(phrase)[1:] in title for phrase in said)
        if shown.sticker is not Sticker.NONE:
            assert clip.writing.stickers == (book.sticker[shown.sticker][used["sticker"]],)


def _longest_fixed_part(phrase: str) -> str:
    return max(phrase.replace("{", "}").split("}")[::2], key=len).strip()


def test_capital_letters_know_turkish() -> None:
    assert capitalised("iddiayı kaybettim", "tr") == "İddiayı kaybettim"
    assert capitalised("isso não", "pt") == "Isso não"
    assert capitalised("¿cómo?", "es") == "¿cómo?"


def test_parts_are_joined_as_sentences_are() -> None:
    assert joined(["who is next?", "filmed by me"], ". ") == "who is next? filmed by me"
    assert joined(["one", "two"], " | ") == "one | two"
    assert joined(["one"], " | ") == "one"


def test_no_title_repeats_a_hashtag(clips: list[Clip]) -> None:
    tags = [[word for word in clip.writing.title.split() if word.startswith("#")] for clip in clips]
    assert {len(words) for words in tags} == {0, 1, 2}
    assert all(len(words) == len(set(words)) for words in tags)


def test_gaps_are_filled_with_many_things() -> None:
    rng = np.random.default_rng(1)
    filled = {fill(rng, PHRASES["en"], "{name} {n} {day} {mood}") for _ in range(200)}
    assert len(filled) > 190
    assert write(rng, BASE).phrases.keys() == {"topic"}


@pytest.mark.parametrize("name", FACTOR_TYPES)
def test_descriptions_tell_levels_apart(name: str) -> None:
    lines = [caption(Factors(**{**vars(BASE), name: level})) for level in FACTOR_TYPES[name]]
    assert all(one != other and "{" not in one for one, other in combinations(lines, 2))


@pytest.mark.parametrize("language", PHRASES)
def test_stickers_fit_the_picture_in_two_lines_and_have_all_their_letters(language: str) -> None:
    font_of_missing = np.asarray(sticker_patch("\uf8ff", SIZE))
    for text in itertools.chain(*PHRASES[language].sticker.values()):
        patch = sticker_patch(text, SIZE)
        assert patch.width <= SIZE - 2 * 5
        assert patch.height <= 34
        for letter in set(text) - {" "}:
            drawn = np.asarray(sticker_patch(letter, SIZE))
            assert drawn.shape != font_of_missing.shape or not np.array_equal(drawn, font_of_missing), letter
