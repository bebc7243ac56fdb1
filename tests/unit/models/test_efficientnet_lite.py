"""The CNN tower's layout and pieces: the same numbers as plainly, and files anyone can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from coefvq.models import efficientnet_lite
from coefvq.models.efficientnet_lite import ConvNorm, EfficientNetLite, EfficientNetLiteSizes

IMAGES, SIDE = 7, 32


@pytest.fixture
def tower() -> EfficientNetLite:
    torch.manual_seed(0)
    network = EfficientNetLite(EfficientNetLiteSizes(0.25, 0.25))
    network.train()
    for _ in range(3):  # statistics of its own, so that evaluation differs from an untouched network's
        network(torch.randn(8, 3, SIDE, SIDE))
    return network.eval()


def test_pieces_give_what_the_whole_gives(tower: EfficientNetLite, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(IMAGES, 3, SIDE, SIDE)
    whole = tower(images)  # with a gradient nothing is cut
    monkeypatch.setattr(efficientnet_lite, "_CHUNK_PIXELS", 3 * SIDE * SIDE)
    with torch.no_grad():
        pieces = tower(images)
    assert whole.requires_grad
    assert pieces.shape == (IMAGES, 1280, 1, 1)
    torch.testing.assert_close(pieces, whole.detach(), atol=1e-5, rtol=1e-5)


def test_batch_statistics_are_those_of_the_whole_batch(
    tower: EfficientNetLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(IMAGES, 3, SIDE, SIDE)
    tower.train()
    with torch.no_grad():
        whole = tower(images)
        monkeypatch.setattr(efficientnet_lite, "_CHUNK_PIXELS", SIDE * SIDE)
        again = tower(images)
    torch.testing.assert_close(again, whole)


def test_the_layout_is_the_tower_s_own_and_changes_no_number(tower: EfficientNetLite) -> None:
    images = torch.randn(IMAGES, 3, SIDE, SIDE)
    layer = tower.stem[1]  # of 1 x 1 and depthwise weights both layouts are the same
    assert not layer.weight.is_contiguous()
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    plain = EfficientNetLite(EfficientNetLiteSizes(0.25, 0.25)).eval()
    plain.load_state_dict(tower.state_dict())
    with torch.no_grad():
        found = tower(images)
        plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        expected = plain.head(plain.blocks(plain.stem(images)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_weights_go_through_a_file(tower: EfficientNetLite, tmp_path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tower.state_dict().items()}, tmp_path / "w.safetensors")
    other = EfficientNetLite(EfficientNetLiteSizes(0.25, 0.25)).eval()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    images = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(other(images), tower(images))
    assert other.stem[1].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "stride", "grouped"), [(1, 1, False), (3, 1, True), (5, 1, True), (3, 2, False)])
@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("side", [31, 32])
def test_a_folded_layer_gives_what_its_parts_give(
    kernel: int, stride: int, grouped: bool, act: bool, side: int
) -> None:
    torch.manual_seed(1)
    layer = ConvNorm(16, 16, kernel, stride, groups=16 if grouped else 1, act=act)
    for _ in range(3):
        layer(4.0 * torch.randn(8, 16, side, side) + 1.0)
    layer.eval()
    images = (4.0 * torch.randn(2, 16, side, side)).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        folded, apart = layer(images), nn.Sequential(*layer)(images)
    torch.testing.assert_close(folded, apart, atol=1e-5, rtol=1e-5)
    assert folded.is_contiguous(memory_format=torch.channels_last)


def test_weights_that_changed_since_the_last_call_are_the_ones_used(tower: EfficientNetLite) -> None:
    images = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        before = tower(images)
        tower.head[2].bias += 1.0
        assert not torch.equal(tower(images), before)
