"""The world's tables are sound, and its exact figures agree with independent computations."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_auc_score
from typer.testing import CliRunner

from coefvq.cli import data
from coefvq.errors import DataError
from coefvq.simulation.synthetic import bayes_table
from coefvq.simulation.synthetic.channel import MISTAKEN, channel_matrix
from coefvq.simulation.synthetic.factors import (
    FACTOR_TYPES,
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
from coefvq.simulation.synthetic.odds import ISSUES
from coefvq.simulation.synthetic.world import (
    VIEWS,
    calibrated_intercept,
    chance,
    check_prevalence,
    draw_shown,
    draw_truth,
    logits,
    posterior,
    raw_logit,
    shown_mass,
    sigmoid,
    true_mass,
    view_masses,
)

PREVALENCE = {"icd": 0.07, "ucc": 0.09}
DUEL = Factors(Object.BLADE, Action.CLASH, Topic.THREAT, Sticker.UNSAFE, Edit.LETTERBOX, Claim.COMMENTARY, Sound.SCREAM)
COOKING = Factors(Object.BLADE, Action.CALM, Topic.COOK, Sticker.SAFE, Edit.PIP, Claim.COMMENTARY, Sound.VOICE)


@pytest.mark.parametrize("name", FACTOR_TYPES)
def test_levels_of_each_factor_share_one(name: str) -> None:
    assert sum(PRIOR[level] for level in FACTOR_TYPES[name]) == pytest.approx(1.0, abs=1e-12)


def test_hidden_and_muted_are_shown_but_never_true() -> None:
    assert [level for level, share in PRIOR.items() if share == 0.0] == [Object.HIDDEN, Sound.MUTED]
    for name, kind in FACTOR_TYPES.items():
        shown = np.array([PRIOR[level] for level in kind]) @ channel_matrix(name)
        assert (shown > 0.02).all(), name


@pytest.mark.parametrize("name", FACTOR_TYPES)
def test_channels_are_noisy_but_mostly_tell_the_truth(name: str) -> None:
    matrix, levels = channel_matrix(name), list(FACTOR_TYPES[name])
    assert matrix.min() >= 0.0
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(levels)), abs=1e-12)
    for row, level in enumerate(levels):
        if PRIOR[level]:
            assert 0.80 <= matrix[row, row] <= 0.97, level
            assert all(type(shown) is type(level) is not shown for shown in MISTAKEN[level])


@pytest.mark.parametrize("issue", ISSUES)
def test_tables_name_levels_of_different_factors_in_axis_order(issue: str) -> None:
    table = ISSUES[issue]
    axis = {level: position for position, kind in enumerate(FACTOR_TYPES.values()) for level in kind}
    # a pair keyed the wrong way round would count in the grid of logits but not in raw_logit
    assert all(axis[first] < axis[second] for first, second in table.pairs)
    assert all(PRIOR[level] > 0 for level in (*table.main, *itertools.chain(*table.pairs)))


@pytest.mark.parametrize("issue", ISSUES)
def test_each_issue_hangs_on_every_modality_by_interactions(issue: str) -> None:
    """Pairs join picture with text, picture with sound, and text with sound."""
    modality = dict.fromkeys((Object, Action, Edit, Sticker), "picture") | dict.fromkeys((Topic, Claim), "text")
    met = {frozenset(modality.get(type(level), "sound") for level in pair) for pair in ISSUES[issue].pairs}
    for first, second in itertools.combinations(("picture", "text", "sound"), 2):
        assert frozenset({first, second}) in met


def test_fields_of_factors_are_the_factor_types() -> None:
    assert {name: type(getattr(DUEL, name)) for name in FACTOR_TYPES} == dict(FACTOR_TYPES)


def test_raw_logit_adds_main_and_pair_effects_and_sharpens() -> None:
    main, pairs = 3.4 + 2.4 + 2.2 + 1.4 - 0.8 + 2.4, 1.4 + 1.4
    assert raw_logit("icd", DUEL) == pytest.approx(2.4 * (main + pairs))
    main, pairs = -0.6 - 0.4 + 0.2 - 0.6 - 1.0, -0.8 - 2.0 - 1.5 - 2.0
    assert raw_logit("ucc", COOKING) == pytest.approx(3.4 * (main + pairs))


def test_chance_is_the_logistic_of_the_calibrated_logit() -> None:
    for factors in (DUEL, COOKING):
        logit = raw_logit("icd", factors) + calibrated_intercept("icd", 0.07)
        assert chance("icd", factors, 0.07) == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-9)
    assert chance("icd", COOKING, 0.07) < 0.01 < 0.99 < chance("icd", DUEL, 0.07)


@pytest.mark.parametrize("issue", ISSUES)
def test_calibration_is_exact_over_the_prior(issue: str) -> None:
    for share in (1e-4, 0.07, 0.5, 0.93):
        mean = (sigmoid(logits(issue) + calibrated_intercept(issue, share)) * true_mass()).sum()
        assert mean == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("issue", ISSUES)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shown", [DUEL, replace(COOKING, sound=Sound.MUTED), replace(DUEL, object=Object.HIDDEN)])
def test_posterior_agrees_with_summing_over_what_may_be_true(issue: str, view: str, shown: Factors) -> None:
    """Bayes' rule written out: all true levels that could have been shown so, one by one."""
    possible = []
    for name, kind in FACTOR_TYPES.items():
        levels, column = list(kind), list(kind).index(getattr(shown, name))
        likelihood = channel_matrix(name)[:, column] if name in VIEWS[view] else np.ones(len(levels))
        possible.append([(level, PRIOR[level] * share) for level, share in zip(levels, likelihood, strict=True)])
        possible[-1] = [(level, weight) for level, weight in possible[-1] if weight > 0]
    seen = [axis for axis, name in enumerate(FACTOR_TYPES) if name in VIEWS[view]]
    positive = total = 0.0
    grid = sigmoid(logits(issue) + calibrated_intercept(issue, PREVALENCE[issue]))
    unseen = tuple(axis for axis in range(len(FACTOR_TYPES)) if axis not in seen)
    mean = np.average(grid, axis=unseen, weights=true_mass().sum(axis=tuple(seen))) if unseen else grid
    for levels in itertools.product(*(possible[axis] for axis in seen)):
        weight = math.prod(weight for _, weight in levels)
        place = tuple(list(type(level)).index(level) for level, _ in levels)
        positive, total = positive + weight * float(mean[place]), total + weight
    assert posterior(issue, shown, PREVALENCE[issue], view) == pytest.approx(positive / total, rel=1e-9)


def test_true_and_shown_levels_are_drawn_from_their_distributions() -> None:
    rng = np.random.default_rng(0)
    truths = [draw_truth(rng) for _ in range(6000)]
    shown = [draw_shown(rng, truth) for truth in truths]
    for name, kind in FACTOR_TYPES.items():
        matrix = channel_matrix(name)
        for (row, true_level), (column, level) in itertools.product(enumerate(kind), enumerate(kind)):
            pairs = zip(truths, shown, strict=True)
            count = sum(getattr(a, name) is true_level and getattr(b, name) is level for a, b in pairs)
            share = PRIOR[true_level] * matrix[row, column]
            assert abs(count - 6000 * share) <= 5 * math.sqrt(6000 * share * (1 - share)), (true_level, level)


@pytest.mark.parametrize("issue", ISSUES)
@pytest.mark.parametrize("view", VIEWS)
def test_bayes_table_agrees_with_scikit_learn(issue: str, view: str) -> None:
    """Each combination that the view shows becomes a positive and a negative example, weighted by its mass."""
    positives, mass = (part.ravel() for part in view_masses(issue, PREVALENCE[issue], view))
    score = np.round(positives / mass, 12)
    labels = np.repeat([1, 0], score.size)
    weights = np.concatenate([positives, mass - positives])
    scores = np.tile(score, 2)
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=weights)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)

    figures = bayes_table(PREVALENCE, (60, 90))[issue][view]

    assert figures["auc"] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    assert figures["f1"] == pytest.approx(f1.max(), abs=1e-9)
    for target in (60, 90):
        reached = recall[precision >= target / 100].max()
        assert figures[f"recall_at_p{target}"] == pytest.approx(reached, abs=1e-9)


@pytest.mark.parametrize("issue", ISSUES)
def test_each_issue_needs_every_modality(issue: str) -> None:
    """At the default prevalence each step from picture to text to sound is worth at least ten points of F1."""
    table = bayes_table(PREVALENCE, (60,))[issue]
    vision, text, everything = (table[view]["f1"] for view in ("vision", "vision+text", "all"))
    assert 0.25 < vision < 0.45
    assert vision + 0.1 < text
    assert text + 0.1 < everything < 0.8
    assert table["vision"]["recall_at_p60"] < 0.2


@pytest.mark.parametrize("issue", ISSUES)
def test_the_demo_leaves_room_for_small_models(issue: str) -> None:
    assert bayes_table({"icd": 0.2, "ucc": 0.25}, ())[issue]["all"]["f1"] > 0.75


def test_truth_itself_would_be_a_better_scorer_than_anything_shown() -> None:
    """What the noise costs: the masses of the true factors have a higher AUC than those of the shown ones."""
    for issue, share in PREVALENCE.items():
        grid = sigmoid(logits(issue) + calibrated_intercept(issue, share))
        weights = np.concatenate([(grid * true_mass()).ravel(), ((1 - grid) * true_mass()).ravel()])
        auc = roc_auc_score(np.repeat([1, 0], grid.size), np.tile(grid.ravel(), 2), sample_weight=weights)
        assert auc > bayes_table(PREVALENCE, ())[issue]["all"]["auc"] + 0.01


def test_masses_are_a_few_ten_thousand_cells() -> None:
    assert true_mass().size == shown_mass().size == 105_840


@pytest.mark.parametrize(
    ("prevalence", "words"),
    [
        ({"icd": 0.07, "ucc": 0.09, "spam": 0.1}, "prevalence.spam: the synthetic world has no such issue"),
        ({"icd": 0.07}, "prevalence.ucc: missing"),
        ({"icd": 0.0, "ucc": 0.09}, "prevalence.icd = 0.0: expected a fraction"),
        ({"icd": 0.07, "ucc": 1.0}, "prevalence.ucc = 1.0: expected a fraction"),
        ({"icd": math.nan, "ucc": 0.1}, "prevalence.icd = nan: expected a fraction"),
    ],
)
def test_prevalence_that_does_not_fit_is_refused(prevalence: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_prevalence(prevalence)
    with pytest.raises(DataError):
        bayes_table(prevalence, (60,))


def test_the_command_prints_the_table() -> None:
    as_json = CliRunner().invoke(data.app, ["bayes", "--icd", "0.2", "--precision", "80", "--json"])
    table = json.loads(as_json.stdout)
    assert table == bayes_table({"icd": 0.2, "ucc": 0.09}, (80,))
    lines = CliRunner().invoke(data.app, ["bayes"]).stdout.splitlines()
    assert lines[0] == "| issue | view | F1 | R@P60 | R@P70 | AUC |"
    assert [line.split(" | ")[:2] for line in lines[2:]] == [[f"| {issue}", view] for issue in ISSUES for view in VIEWS]
    assert lines[4].split(" | ")[2] == f"{100 * bayes_table(PREVALENCE, ())['icd']['all']['f1']:.1f}"
