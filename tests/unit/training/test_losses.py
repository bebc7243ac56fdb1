"""Losses against torch's and against other writings of the papers' formulas; missing labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, log_softmax

from coefvq.errors import DataError
from coefvq.training.losses import ClassificationLoss, LossSpec, class_prior, label_table

EVEN = torch.full((1, 2), 0.5)


def loss_of(kind: str, weight: float = 1.0, gamma: float = 2.0, prior: torch.Tensor = EVEN) -> ClassificationLoss:
    return ClassificationLoss(LossSpec(kind, weight, gamma), prior)  # type: ignore[arg-type]


def sample(seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, 2, generator=generator) * 3
    return logits.requires_grad_(), torch.randint(0, 2, shape, generator=generator)


@given(st.integers(0, 999), st.floats(0.1, 50.0))
def test_without_missing_labels_it_is_torchs_weighted_mean(seed: int, weight: float) -> None:
    logits, labels = sample(seed, (7,))
    expected = cross_entropy(logits, labels, torch.tensor([1.0, weight]))
    assert loss_of("cross_entropy", weight)(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)


@given(st.integers(0, 999), st.floats(0.0, 5.0), st.floats(0.1, 20.0))
def test_focal_loss_is_the_papers(seed: int, gamma: float, weight: float) -> None:
    logits, labels = sample(seed, (9,))
    p = log_softmax(logits.double(), dim=1).exp()[torch.arange(9), labels]
    alpha = torch.where(labels == 1, weight, 1.0)
    expected = (-alpha * (1 - p) ** gamma * p.log()).sum() / alpha.sum()
    assert loss_of("focal", weight, gamma)(logits, labels).item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-7)


def test_focal_loss_without_gamma_is_cross_entropy() -> None:
    logits, labels = sample(1, (9,))
    plain = loss_of("cross_entropy", 3.0)(logits, labels)
    assert loss_of("focal", 3.0, 0.0)(logits, labels).item() == pytest.approx(plain.item(), rel=1e-6)


def test_logit_adjustment_is_fitted_by_the_log_odds_without_the_prior() -> None:
    """Menon et al.: the minimiser's logits are those of balanced classes, so with no evidence they are equal."""
    labels = torch.tensor([1] * 5 + [0] * 95)
    adjusted = loss_of("logit_adjusted", prior=class_prior(labels.tolist()))
    even, prior = torch.zeros(100, 2, requires_grad=True), torch.zeros(100, 2)
    prior[:, 1] = np.log(5 / 95)
    adjusted(even, labels).backward()
    assert even.grad is not None
    assert even.grad.sum(dim=0).abs().max() < 1e-6
    assert adjusted(prior, labels) > adjusted(even, labels)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "logit_adjusted"])
def test_missing_labels_are_left_out(kind: str) -> None:
    logits, labels = sample(3, (6, 2))
    loss = loss_of(kind, 3.0, prior=torch.tensor([[0.9, 0.1], [0.6, 0.4]]))
    there = labels.clone()
    there[2:, 1] = -100
    value = loss(logits, there)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[2:, 1].abs().max() == 0.0
    assert logits.grad[:2].abs().min() > 0.0
    one = ClassificationLoss(loss.spec, torch.tensor([[0.9, 0.1]]))(logits[:, 0], labels[:, 0])
    two = ClassificationLoss(loss.spec, torch.tensor([[0.6, 0.4]]))(logits[:2, 1], labels[:2, 1])
    assert value.item() == pytest.approx((one.item() + two.item()) / 2, rel=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "logit_adjusted"])
def test_no_label_at_all_is_a_zero_with_a_gradient(kind: str) -> None:
    logits, _ = sample(4, (5, 2))
    loss = loss_of(kind, prior=torch.full((2, 2), 0.5))(logits, torch.full((5, 2), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0.0


def test_confident_answers_do_not_break_the_focal_loss() -> None:
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    loss = loss_of("focal", gamma=0.5)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_shares_per_issue() -> None:
    prior = class_prior([(0, 1), (0, -100), (1, -100), (0, 1)])
    assert prior[0].tolist() == [0.75, 0.25]
    assert prior[1].tolist() == pytest.approx([0.2, 0.8])  # half an example of the class that has none


def test_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected 0, 1 or -100"):
        label_table([0, 2])
