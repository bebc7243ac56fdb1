"""Packed frozen layers: the same product and gradient, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coefvq.models import packed
from coefvq.models.packed import FrozenLinear, packed_frozen

WIDTH = 160  # 160 x 160 weights are above the smallest size that is packed


def stack(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias), nn.GELU(), nn.Linear(WIDTH, WIDTH, bias))
    return layers.requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, WIDTH), (2, 5, WIDTH)])
def test_product_and_gradient_are_those_of_the_plain_layers(bias: bool, shape: tuple[int, ...]) -> None:
    layers = stack(bias)
    plain, fast = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    expected = layers(plain)
    expected.square().sum().backward()
    with packed_frozen([layers]) as count:
        found = layers(fast)
        found.square().sum().backward()
    assert count == 2
    assert plain.grad is not None
    assert fast.grad is not None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast.grad, plain.grad, atol=1e-5, rtol=1e-5)
    assert fast.grad.abs().max() > 0.1


def test_names_stay_within_the_block_and_the_layers_come_back_after_it() -> None:
    layers = stack()
    before, names = list(layers), [name for name, _ in layers.named_parameters()]
    with packed_frozen([layers]):
        assert [name for name, _ in layers.named_parameters()] == names
        assert isinstance(layers[0], FrozenLinear)
    assert [a is b for a, b in zip(layers, before, strict=True)] == [True, True, True]
    with pytest.raises(RuntimeError, match="inner product"), packed_frozen([layers]):
        layers(torch.zeros(3, WIDTH + 1))
    assert [a is b for a, b in zip(layers, before, strict=True)] == [True, True, True]


def test_trainable_small_and_half_precision_layers_stay_as_they_are() -> None:
    trains, bias_trains = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    bias_trains.weight.requires_grad_(False)
    small = nn.Linear(8, 8).requires_grad_(False)
    half = nn.Linear(WIDTH, WIDTH).bfloat16().requires_grad_(False)
    with packed_frozen([nn.Sequential(trains, bias_trains, small, half)]) as count:
        assert count == 0


def test_without_the_private_operation_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "private_op", lambda _: None)
    layers = stack()
    with packed_frozen([layers]) as count:
        assert count == 0
        assert type(layers[0]) is nn.Linear
