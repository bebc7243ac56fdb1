"""What must hold for every prevalence and every combination of factors of the synthetic world."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.data.synthetic import bayes_table
from coefvq.data.synthetic.clips import describe
from coefvq.data.synthetic.factors import (
    ISSUES,
    PRIOR,
    Action,
    Claim,
    Edit,
    Factors,
    Object,
    Sound,
    Sticker,
    Topic,
)
from coefvq.data.synthetic.overlays import wrap
from coefvq.data.synthetic.world import calibrated_intercept, cells, posterior, sigmoid

shares = st.floats(0.001, 0.999)
issues = st.sampled_from(sorted(ISSUES))
factors = st.builds(
    Factors,
    object=st.sampled_from(Object),
    action=st.sampled_from(Action),
    topic=st.sampled_from(Topic),
    sticker=st.sampled_from(Sticker),
    edit=st.sampled_from(Edit),
    claim=st.sampled_from(Claim),
    sound=st.sampled_from(Sound),
)


@settings(deadline=None)
@given(issues, shares)
def test_mean_posterior_is_the_prevalence(issue: str, share: float) -> None:
    table = cells(issue)
    mean = float((sigmoid(table.logits + calibrated_intercept(issue, share)) * table.weights).sum())
    assert mean == pytest.approx(share, abs=1e-9)


@settings(deadline=None)
@given(issues, factors, st.floats(1e-9, 1 - 1e-9))
def test_posteriors_are_strictly_between_zero_and_one(issue: str, video: Factors, share: float) -> None:
    assert 0.0 < posterior(issue, video, share) < 1.0


@settings(deadline=None)
@given(issues, factors, shares, shares)
def test_posteriors_grow_with_prevalence(issue: str, video: Factors, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert posterior(issue, video, low) <= posterior(issue, video, high) + 1e-12


@settings(deadline=None)
@given(factors, shares, st.sampled_from(Sound), st.sampled_from(Object))
def test_issues_see_only_their_own_factors(video: Factors, share: float, sound: Sound, thing: Object) -> None:
    muted = Factors(**{**vars(video), "sound": sound})
    swapped = Factors(**{**vars(video), "object": thing})
    assert posterior("icd", video, share) == posterior("icd", muted, share)
    assert posterior("ucc", video, share) == posterior("ucc", swapped, share)


@settings(max_examples=40, deadline=None)
@given(shares, shares)
def test_seeing_more_never_hurts_the_best_scorer(icd: float, ucc: float) -> None:
    for views in bayes_table({"icd": icd, "ucc": ucc}, (60, 90)).values():
        for figure in ("auc", "f1", "recall_at_p60", "recall_at_p90"):
            rising = [views[view][figure] for view in ("vision", "vision+text", "all")]
            assert all(a <= b + 1e-9 for a, b in itertools.pairwise(rising)), figure
            assert min(rising) >= 0.0
            assert max(rising) <= 1.0 + 1e-12


@settings(max_examples=40, deadline=None)
@given(shares, shares)
def test_flagging_everything_reaches_the_prevalence_as_precision(icd: float, ucc: float) -> None:
    """The loosest threshold has precision = prevalence, though rounding may put it a hair below."""
    for issue, share in (("icd", icd), ("ucc", ucc)):
        table = bayes_table({"icd": icd, "ucc": ucc}, (100 * share,))
        assert table[issue]["vision"][f"recall_at_p{100 * share:g}"] == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(issues, shares)
def test_cells_cover_the_prior(issue: str, share: float) -> None:
    table = cells(issue)
    assert table.weights.sum() == pytest.approx(1.0, abs=1e-12)
    for axis, name in enumerate(table.factors):
        others = tuple(i for i in range(table.weights.ndim) if i != axis)
        kind = next(k for k in (Object, Action, Topic, Sticker, Edit, Claim, Sound) if k.__name__.lower() == name)
        assert table.weights.sum(axis=others) == pytest.approx([PRIOR[level] for level in kind])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), shares, shares)
def test_a_video_is_the_same_whenever_it_is_described(seed: int, index: int, icd: float, ucc: float) -> None:
    prevalence = {"icd": icd, "ucc": ucc}
    clip = describe(seed, index, prevalence)
    assert clip == describe(seed, index, prevalence)
    assert clip.posteriors == {issue: posterior(issue, clip.factors, prevalence[issue]) for issue in ISSUES}
    assert set(clip.labels.values()) <= {0, 1}


@settings(deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=9)), st.integers(3, 12))
def test_wrap_keeps_every_word_in_order(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), lambda line: len(line) <= width)
    assert " ".join(lines).split() == words
    assert all(len(line) <= width or " " not in line for line in lines)
