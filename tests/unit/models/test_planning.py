"""The planner's activations against what autograd saves of real tensors."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from coefvq.config import Lora, MediaSpec
from coefvq.models.activations import decoder_activations, saved_bytes
from coefvq.models.counting import meta_mllm
from coefvq.models.language import LanguageBranch, decoder_config
from coefvq.models.parts import LanguagePart, Preset
from coefvq.models.planning import training_memory
from coefvq.models.precision import fixed_precision
from coefvq.models.presets import get_preset

LORA = Lora(rank=8, alpha=16, dropout=0.0)
ROWS, VISUAL, TEXT = 2, 180, 20


def preset(layers: int) -> Preset:
    part = LanguagePart("qwen2", 128, layers, 4, 2, 352, vocab_size=64)
    return replace(get_preset("paper"), language=part)


def trained_branch(part: LanguagePart, zero: bool) -> LanguageBranch:
    """As a training holds it: the frozen decoder in bf16, adapters in fp32, or all in bf16 under ZeRO."""
    from transformers import AutoModel

    decoder = AutoModel.from_config(decoder_config(part)).to(torch.bfloat16)
    branch = LanguageBranch(decoder, 1, LORA)
    if zero:
        with fixed_precision(branch):
            branch.to(torch.bfloat16)
    return branch.train()


def real_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[1] * VISUAL + [2] * TEXT] * ROWS)
    mask = torch.ones_like(ids)
    mask[1, 0], ids[1, 0] = 0, 2  # a shorter row
    visual = torch.randn(ROWS * VISUAL - 1, 1, 128, dtype=torch.bfloat16)
    return visual, ids, mask


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("layers", [2, 5])
def test_what_autograd_saves_is_planned_within_a_tenth(layers: int, zero: bool) -> None:
    made = preset(layers)
    branch = trained_branch(made.language, zero)
    with nullcontext() if zero else torch.autocast("cpu", dtype=torch.bfloat16):
        real = saved_bytes(branch, lambda: branch(*real_inputs()))
    planned = decoder_activations(made, LORA, VISUAL + TEXT, checkpointing=False, zero=zero, grad_input=False)
    assert planned * ROWS == pytest.approx(real, rel=0.1)


def test_what_checkpointing_saves_is_planned_within_a_tenth() -> None:
    made = preset(2)
    branch = trained_branch(made.language, zero=True)
    decoder: Any = branch.decoder.get_base_model()
    whole_layer = [0]

    def measure(layer: nn.Module, given: Any, kwargs: Any) -> None:
        if not whole_layer[0]:  # once, on the layer's own input
            whole_layer[0] = 1
            hidden = given[0].detach().requires_grad_()
            whole_layer[0] = saved_bytes(layer, lambda: type(layer).forward(layer, hidden, **kwargs))

    inputs: list[int] = []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0].nbytes))
    decoder.layers[0].register_forward_pre_hook(measure, with_kwargs=True)
    branch(*real_inputs())  # without checkpointing, for one layer's share
    inputs.clear()
    decoder.activation_checkpointing_enable({"use_reentrant": False})
    outside = saved_bytes(branch, lambda: branch(*real_inputs()))
    real = outside + sum(inputs) + whole_layer[0]
    planned = decoder_activations(made, LORA, VISUAL + TEXT, checkpointing=True, zero=True, grad_input=False)
    assert planned * ROWS == pytest.approx(real, rel=0.1)


def test_a_batch_of_32_videos_of_the_paper_does_not_fit_without_checkpointing() -> None:
    paper, media = get_preset("paper"), MediaSpec(frames=8, frame_size=384, audio_seconds=30.0)
    lora = Lora(rank=32, alpha=64, dropout=0.0)
    network = meta_mllm(paper, media, lora, "late")
    made = {
        kept: training_memory(
            paper, media, lora, network, gpus=8, memory_gib=80.0, batch_size=32, activation_checkpointing=kept
        )
        for kept in (True, False)
    }
    assert made[False].activations > 250 > 40 > made[True].activations
    assert (made[False].fits, made[True].fits) == (False, True)
