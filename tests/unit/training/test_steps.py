"""What a training step asks of ranks and of the host: no more than the network needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from coefvq.models.classifier import Classifier
from coefvq.models.language import _filled
from coefvq.training.arguments import DdpNeeds
from coefvq.training.losses import ClassificationLoss, LossSpec
from tests.unit.frozen_models import frozen_model, stored_clips

TRAINED = ("frames", "multitower", "siglip", "attention", "mllm", "cnn-mllm")
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::masked_select"}


def batch_of(classifier: Classifier, folder: Any) -> dict[str, torch.Tensor]:
    from coefvq.models.dataset import VideoDataset

    videos, store = stored_clips(folder, 3)
    return classifier.collator([VideoDataset(videos, store)[at] for at in range(3)])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", TRAINED)
def test_ranks_search_and_copy_only_where_the_network_asks_for_it(kind: str, frozen: bool, tmp_path: Any) -> None:
    classifier = frozen_model(kind)
    network = classifier.network
    if not frozen:
        for module in network.modules():
            module.__dict__.pop("train", None)  # what freezing put over it
        network.requires_grad_(True)
    if not frozen and kind in ("mllm", "cnn-mllm"):
        for name, parameter in network.language.named_parameters():
            parameter.requires_grad_("lora_" in name)
    network.train()
    batch = batch_of(classifier, tmp_path)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    nn.functional.cross_entropy(network(**batch), torch.tensor([0, 1, 0])).backward()
    left_out = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    changed = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])]
    needs = DdpNeeds.of(network)
    assert needs.unused_parameters == bool(left_out), left_out
    assert needs.buffers == bool(changed), changed


class _Waits(TorchDispatchMode):
    """Operations whose result the host must know before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() in WAITS:
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_no_slot_and_no_label() -> None:
    embedded, visual = torch.randn(2, 6, 4), torch.randn(2, 3, 4, requires_grad=True)
    slots = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]).bool()
    loss = ClassificationLoss(LossSpec("cross_entropy", 3.0, 2.0), torch.full((1, 2), 0.5))
    logits, labels = torch.randn(4, 2, 2), torch.tensor([[0, 1], [-100, 1], [1, -100], [0, 0]])
    with _Waits() as waits:
        filled = _filled(embedded, slots, visual)
        filled.sum().backward()
        loss(logits, labels)
    assert waits.seen == []
    expected = embedded.clone()
    expected[slots] = visual.detach().reshape(-1, 4)
    assert torch.equal(filled.detach(), expected)
    assert torch.equal(visual.grad, torch.ones_like(visual))
    with _Waits() as waits:
        expected[slots] = 0.0  # how it was: a check that could not fail would find nothing here either
        bool(logits.isfinite().all())
    assert "aten::_local_scalar_dense" in waits.seen
