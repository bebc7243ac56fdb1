"""What must hold for every prevalence and every combination of factors of the synthetic world."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.simulation.synthetic import bayes_table
from coefvq.simulation.synthetic.channel import channel_matrix
from coefvq.simulation.synthetic.clips import POSTERIORS, describe
from coefvq.simulation.synthetic.factors import FACTOR_TYPES, PRIOR, Factors
from coefvq.simulation.synthetic.odds import ISSUES
from coefvq.simulation.synthetic.overlays import wrap
from coefvq.simulation.synthetic.world import (
    VIEWS,
    chance,
    logits,
    posterior,
    raw_logit,
    shown_mass,
    true_mass,
    view_masses,
)

shares = st.floats(0.001, 0.999)
issues = st.sampled_from(sorted(ISSUES))
views = st.sampled_from(sorted(VIEWS))
shown_factors = st.builds(Factors, **{name: st.sampled_from(kind) for name, kind in FACTOR_TYPES.items()})
true_factors = st.builds(
    Factors,
    **{name: st.sampled_from([level for level in kind if PRIOR[level]]) for name, kind in FACTOR_TYPES.items()},
)


@settings(max_examples=60, deadline=None)
@given(issues, shares, views)
def test_the_mean_posterior_is_the_prevalence_in_every_view(issue: str, share: float, view: str) -> None:
    positives, mass = view_masses(issue, share, view)
    assert float((positives / mass * mass).sum()) == pytest.approx(share, abs=1e-9)
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(issues, shares, st.sampled_from([("vision", "vision+text"), ("vision", "all"), ("vision+text", "all")]))
def test_a_view_expects_of_a_wider_one_what_it_says_itself(issue: str, share: float, pair: tuple[str, str]) -> None:
    """Tower property: E[posterior of the wider view | what the narrow one shows] = posterior of the narrow one."""
    narrow, wide = (view_masses(issue, share, view) for view in pair)
    summed_out = tuple(axis for axis, size in enumerate(narrow[1].shape) if size == 1)
    wider_posterior = np.broadcast_to(wide[0] / wide[1], shown_mass().shape)
    expected = (wider_posterior * shown_mass()).sum(axis=summed_out) / shown_mass().sum(axis=summed_out)
    assert expected == pytest.approx((narrow[0] / narrow[1]).reshape(expected.shape), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(issues, shown_factors, shares, views, st.randoms(use_true_random=False))
def test_what_a_view_does_not_show_leaves_its_posterior_alone(
    issue: str, video: Factors, share: float, view: str, random: Random
) -> None:
    unseen = {name: kind for name, kind in FACTOR_TYPES.items() if name not in VIEWS[view]}
    other = Factors(**{**vars(video), **{name: random.choice(list(kind)) for name, kind in unseen.items()}})
    assert posterior(issue, video, share, view) == posterior(issue, other, share, view)


@settings(deadline=None)
@given(issues, true_factors, shares)
def test_probabilities_are_strictly_between_zero_and_one(issue: str, video: Factors, share: float) -> None:
    assert 0.0 < chance(issue, video, share) < 1.0
    assert all(0.0 < posterior(issue, video, share, view) < 1.0 for view in VIEWS)


@settings(max_examples=60, deadline=None)
@given(issues, shown_factors, views, shares, shares)
def test_posteriors_grow_with_prevalence(issue: str, video: Factors, view: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert posterior(issue, video, low, view) <= posterior(issue, video, high, view) + 1e-12


@settings(deadline=None)
@given(issues, true_factors)
def test_the_grid_of_logits_holds_the_logit_of_each_combination(issue: str, video: Factors) -> None:
    place = tuple(list(kind).index(getattr(video, name)) for name, kind in FACTOR_TYPES.items())
    assert logits(issue)[place] == pytest.approx(raw_logit(issue, video), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(shares, shares)
def test_seeing_more_never_hurts_the_best_scorer(icd: float, ucc: float) -> None:
    for table in bayes_table({"icd": icd, "ucc": ucc}, (60, 90)).values():
        for figure in ("auc", "f1", "recall_at_p60", "recall_at_p90"):
            rising = [table[view][figure] for view in ("vision", "vision+text", "all")]
            assert all(a <= b + 1e-9 for a, b in itertools.pairwise(rising)), figure
            assert min(rising) >= 0.0
            assert max(rising) <= 1.0 + 1e-12


@settings(max_examples=30, deadline=None)
@given(issues, shares)
def test_flagging_everything_reaches_the_prevalence_as_precision(issue: str, share: float) -> None:
    """The loosest threshold has precision = prevalence, though rounding may put it a hair below."""
    table = bayes_table({"icd": share, "ucc": share}, (100 * share,))
    assert table[issue]["vision"][f"recall_at_p{100 * share:g}"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", FACTOR_TYPES)
def test_masses_cover_prior_and_channel(name: str) -> None:
    axis = list(FACTOR_TYPES).index(name)
    others = tuple(number for number in range(len(FACTOR_TYPES)) if number != axis)
    prior = [PRIOR[level] for level in FACTOR_TYPES[name]]
    assert true_mass().sum(axis=others) == pytest.approx(prior, abs=1e-12)
    assert shown_mass().sum(axis=others) == pytest.approx(prior @ channel_matrix(name), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), shares, shares)
def test_a_video_is_the_same_whenever_it_is_described(seed: int, index: int, icd: float, ucc: float) -> None:
    prevalence = {"icd": icd, "ucc": ucc}
    clip = describe(seed, index, prevalence)
    assert clip == describe(seed, index, prevalence)
    for column, (issue, view) in POSTERIORS.items():
        exact = posterior(issue, clip.shown, prevalence[issue], view)
        assert clip.posteriors[column] == pytest.approx(exact, rel=1e-11)
    assert set(clip.labels.values()) <= {0, 1}


@settings(deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=9)), st.integers(3, 12))
def test_wrap_keeps_every_word_in_order(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), lambda line: len(line) <= width)
    assert " ".join(lines).split() == words
    assert all(len(line) <= width or " " not in line for line in lines)
