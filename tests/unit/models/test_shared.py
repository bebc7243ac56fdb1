"""Towers that several models share: each distinct row runs once while a group of videos is scored."""

from __future__ import annotations

import torch
from torch import nn

from coefvq.models.memo import Memo
from coefvq.models.shared import SharedTower


class Counted(nn.Module):
    """Doubles its rows and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows += len(rows)
        return rows * 2.0


def test_each_row_is_computed_once_whatever_batch_it_comes_in() -> None:
    tower, memo = Counted(), Memo()
    shared, x = SharedTower(tower, memo), torch.arange(12.0).view(4, 3)
    with torch.inference_mode(), memo.group():
        assert torch.equal(shared(x), x * 2.0)
        assert torch.equal(shared(x[[3, 1, 1]]), x[[3, 1, 1]] * 2.0)
        assert tower.rows == 4
        assert torch.equal(shared(torch.cat([x[:1], x[:1] + 50.0])), torch.cat([x[:1], x[:1] + 50.0]) * 2.0)
        assert tower.rows == 5


def test_the_same_row_twice_in_a_batch_is_computed_once() -> None:
    tower, memo = Counted(), Memo()
    x = torch.ones(3, 2)
    with torch.inference_mode(), memo.group():
        assert torch.equal(SharedTower(tower, memo)(x), x * 2.0)
    assert tower.rows == 1


def test_nothing_is_kept_after_the_outermost_group() -> None:
    tower, memo = Counted(), Memo()
    shared, x = SharedTower(tower, memo), torch.ones(1, 2)
    with torch.inference_mode():
        with memo.group():
            with memo.group():
                shared(x)
            assert memo.rows
            shared(x)
        assert not memo.rows
        assert tower.rows == 1
        shared(x)
        shared(x)
    assert tower.rows == 3


def test_two_towers_do_not_take_each_other_s_outputs() -> None:
    memo, x = Memo(), torch.ones(1, 2)
    first, second = SharedTower(Counted(), memo), SharedTower(nn.Identity(), memo)
    with torch.inference_mode(), memo.group():
        assert not torch.equal(first(x), second(x))


def test_with_gradients_every_call_computes() -> None:
    tower, memo = Counted(), Memo()
    shared, x = SharedTower(tower, memo), torch.ones(1, 2, requires_grad=True)
    with memo.group():
        shared(x).sum().backward()
        shared(x).sum().backward()
    assert tower.rows == 2
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((1, 2), 4.0))
