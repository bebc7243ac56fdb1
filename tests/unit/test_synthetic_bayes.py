"""The world's tables are sound, and its exact figures agree with an independent computation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_auc_score

from coefvq.data.synthetic import bayes_table
from coefvq.data.synthetic.factors import (
    FACTOR_TYPES,
    ISSUES,
    PRIOR,
    VIEWS,
    Action,
    Claim,
    Edit,
    Factors,
    Object,
    Sound,
    Sticker,
    Topic,
)
from coefvq.data.synthetic.world import (
    calibrated_intercept,
    cells,
    check_prevalence,
    draw_factors,
    posterior,
    raw_logit,
    sigmoid,
)
from coefvq.errors import DataError

PREVALENCE = {"icd": 0.07, "ucc": 0.09}
DUEL = Factors(Object.BLADE, Action.CLASH, Topic.THREAT, Sticker.UNSAFE, Edit.PIP, Claim.COMMENTARY, Sound.VOICE)


@pytest.mark.parametrize("name", FACTOR_TYPES)
def test_levels_of_each_factor_share_one(name: str) -> None:
    assert sum(PRIOR[level] for level in FACTOR_TYPES[name]) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("issue", ISSUES)
def test_tables_name_only_levels_of_their_factors_in_axis_order(issue: str) -> None:
    table = ISSUES[issue]
    axis = {level: position for position, name in enumerate(table.factors) for level in FACTOR_TYPES[name]}
    assert set(table.main) <= set(axis)
    # a pair keyed the wrong way round would silently count nothing
    assert all(axis[first] < axis[second] for first, second in table.pairs)


def test_fields_of_factors_are_the_factor_types() -> None:
    assert {name: type(getattr(DUEL, name)) for name in FACTOR_TYPES} == dict(FACTOR_TYPES)


def test_raw_logit_adds_main_and_pair_effects_and_sharpens() -> None:
    levels = (Object.BLADE, Action.CLASH, Topic.THREAT, Sticker.UNSAFE)
    assert raw_logit("icd", levels) == pytest.approx(1.7 * (4.2 + 2.6 + 1.8 + 1.4 + 1.5))
    assert raw_logit("ucc", (Edit.PIP, Claim.COMMENTARY, Sound.VOICE)) == pytest.approx(
        3.4 * (0.2 - 0.3 - 1.0 - 2.0 - 2.0 - 1.5)
    )


def test_posterior_is_the_logistic_of_the_calibrated_logit() -> None:
    logit = 1.7 * 11.5 + calibrated_intercept("icd", 0.07)
    assert posterior("icd", DUEL, 0.07) == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-12)
    cooking = replace(DUEL, action=Action.CALM, topic=Topic.COOK, sticker=Sticker.SAFE)
    assert posterior("icd", cooking, 0.07) < 0.01 < 0.99 < posterior("icd", DUEL, 0.07)


@pytest.mark.parametrize("issue", ISSUES)
def test_calibration_is_exact_over_the_prior(issue: str) -> None:
    table = cells(issue)
    for share in (1e-4, 0.07, 0.5, 0.93):
        mean = (sigmoid(table.logits + calibrated_intercept(issue, share)) * table.weights).sum()
        assert mean == pytest.approx(share, abs=1e-9)


def test_factors_are_drawn_from_their_priors() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_factors(rng) for _ in range(4000)]
    for name, kind in FACTOR_TYPES.items():
        for level in kind:
            count = sum(getattr(factors, name) is level for factors in drawn)
            expected, spread = 4000 * PRIOR[level], math.sqrt(4000 * PRIOR[level] * (1 - PRIOR[level]))
            assert abs(count - expected) < 4.5 * spread, (name, level)


@pytest.mark.parametrize("issue", ISSUES)
@pytest.mark.parametrize("view", VIEWS)
def test_bayes_table_agrees_with_scikit_learn(issue: str, view: str) -> None:
    """Each cell becomes a positive and a negative example, weighted by its mass."""
    table = cells(issue)
    chance = sigmoid(table.logits + calibrated_intercept(issue, PREVALENCE[issue]))
    hidden = tuple(i for i, name in enumerate(table.factors) if name not in VIEWS[view])
    seen = (chance * table.weights).sum(hidden, keepdims=True) / table.weights.sum(hidden, keepdims=True)
    score = np.round(np.broadcast_to(seen, chance.shape), 12).ravel()
    labels = np.repeat([1, 0], score.size)
    weights = np.concatenate([(chance * table.weights).ravel(), ((1 - chance) * table.weights).ravel()])
    scores = np.tile(score, 2)
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=weights)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)

    figures = bayes_table(PREVALENCE, (60, 90))[issue][view]

    assert figures["auc"] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    assert figures["f1"] == pytest.approx(f1.max(), abs=1e-9)
    for target in (60, 90):
        reached = recall[precision >= target / 100].max()
        assert figures[f"recall_at_p{target}"] == pytest.approx(reached, abs=1e-9)


def test_bayes_figures_of_the_default_world() -> None:
    """Each issue needs more than one modality: the whole view is far above vision alone."""
    table = bayes_table(PREVALENCE, (60,))
    assert table["icd"]["all"] == table["icd"]["vision+text"]  # inappropriate content is not heard
    assert 0.78 < table["icd"]["all"]["f1"] < 0.82
    assert 0.78 < table["ucc"]["all"]["f1"] < 0.82
    assert table["icd"]["vision"]["f1"] < 0.55
    assert table["ucc"]["vision"]["f1"] < 0.35 < table["ucc"]["vision+text"]["f1"] < 0.6


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
