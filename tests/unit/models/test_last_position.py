"""The last layer for the last position alone: the same state and gradients, and the whole on request."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from transformers import AutoModel

from coefvq.config import Lora
from coefvq.models.language import LanguageBranch, decoder_config, positions_of
from coefvq.models.parts import LanguagePart

VIDEO = 5


def branch(kind: Literal["qwen2", "llama"]) -> LanguageBranch:
    torch.manual_seed(0)
    decoder = AutoModel.from_config(decoder_config(LanguagePart(kind, 64, 3, 4, 2, 160, vocab_size=100)))
    made = LanguageBranch(decoder, VIDEO, Lora(rank=4, alpha=8, dropout=0.0))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made.double()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("recomputed", [True, False])
def test_state_and_gradients_are_those_of_the_whole_layer(
    kind: Literal["qwen2", "llama"], padded: bool, recomputed: bool
) -> None:
    model = branch(kind)
    if recomputed:
        model.decoder.base_model.model.activation_checkpointing_enable()
        model.train()
    ids, visual = torch.randint(6, 100, (3, 11)), torch.randn(6, 64, dtype=torch.float64)
    ids[:, 4:6] = VIDEO
    mask = torch.ones_like(ids)
    if padded:
        mask[0, :3] = 0
    embedded = model.decoder.get_input_embeddings()(ids).index_put((ids == VIDEO,), visual)
    whole = model.decoder(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions_of(mask), use_cache=False
    ).last_hidden_state
    assert whole.shape == (3, 11, 64)
    expected = gradients(model, whole[:, -1])
    state = model(visual, ids, mask)
    assert (state - whole[:, -1]).abs().max() <= 1e-12
    found = gradients(model, state)
    assert found.keys() == expected.keys()
    assert max(float((found[name] - expected[name]).abs().max()) for name in found) <= 1e-12
    assert max(float(value.abs().max()) for value in found.values()) > 1e-4


def gradients(model: LanguageBranch, state: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    state.square().mul(torch.arange(64.0)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
