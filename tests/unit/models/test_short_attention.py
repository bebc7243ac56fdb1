"""Attention by whole products while a model trains in bfloat16 on a CPU: SDPA's answer and gradient, to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel

from coefvq.models import short_attention as module
from coefvq.models.dataset import VideoDataset
from coefvq.models.fast.attention import through_sdpa
from coefvq.models.short_attention import LONGEST, SHORT, short_attention
from coefvq.training.loop import FitData, FitPlan, fit
from tests.settings import training_settings
from tests.unit.frozen_models import frozen_model, stored_clips


def llama() -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, hidden_size=48, num_hidden_layers=2, num_attention_heads=6,
                         num_key_value_heads=2, intermediate_size=64, use_cache=False)  # fmt: skip
    return LlamaModel(config)


def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip
    return BertModel(config)


def siglip() -> SiglipVisionModel:
    torch.manual_seed(0)
    config = SiglipVisionConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                                image_size=32, patch_size=8)  # fmt: skip
    return SiglipVisionModel(config)


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the queries that went to SDPA after all."""
    seen: list[tuple[int, ...]] = []
    real = through_sdpa

    def noted(layer: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(query.shape))
        return real(layer, query, *args, **kwargs)

    monkeypatch.setattr(module, "through_sdpa", noted)
    return seen


def state_and_gradients(network: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        state = network(**inputs).last_hidden_state
    there = inputs.get("attention_mask", torch.ones(state.shape[:2], dtype=torch.long)).unsqueeze(-1)
    (state.float() * there).square().sum().backward()
    found = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
    return (state * there).detach().float(), torch.cat(found)


def tokens(length: int = 12, padding: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    return {"input_ids": ids, "attention_mask": mask}


PIXELS = {"pixel_values": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))}


@pytest.mark.parametrize(
    ("network", "inputs"),
    [(llama, tokens()), (llama, tokens(padding=5)), (bert, tokens(padding=5)), (siglip, PIXELS)],
    ids=["causal", "causal, padded", "both ways, padded", "images"],
)
def test_states_and_gradients_are_those_of_sdpa(
    network: Any, inputs: dict[str, torch.Tensor], shapes: list[tuple[int, ...]]
) -> None:
    built = network().train()
    state, gradients = state_and_gradients(built, inputs)
    with short_attention(built):
        found, others = state_and_gradients(built, inputs)
    assert shapes == []  # nothing was left to SDPA
    assert built.config._attn_implementation == "sdpa"
    torch.testing.assert_close(found, state, atol=0.05, rtol=0.05)
    assert torch.nn.functional.cosine_similarity(others, gradients, dim=0) > 0.999
    assert (others - gradients).norm() < 0.03 * gradients.norm()


def test_a_mask_that_is_not_heeded_would_be_noticed() -> None:
    built = llama().train()
    state, _ = state_and_gradients(built, tokens())
    other, _ = state_and_gradients(built, tokens(padding=5))
    assert (other - state)[0, 5:].abs().max() > 0.2


def test_what_it_cannot_do_goes_to_sdpa_unchanged(shapes: list[tuple[int, ...]]) -> None:
    built = llama().train()
    with short_attention(built):
        assert built.config._attn_implementation == SHORT
        built(**tokens())  # no autocast
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            built(**tokens())
        with torch.autocast("cpu", torch.bfloat16):
            built(**tokens(LONGEST + 1))
    assert shapes == [(3, 6, 12, 8)] * 4 + [(3, 6, LONGEST + 1, 8)] * 2


def test_the_old_attention_comes_back_after_an_error() -> None:
    built = llama()
    with pytest.raises(RuntimeError, match="stop"), short_attention(built):
        raise RuntimeError("stop")
    assert built.config._attn_implementation == "sdpa"


def test_a_network_with_another_attention_keeps_it() -> None:
    built = llama()
    built.set_attn_implementation("eager")
    with short_attention(built):
        assert built.config._attn_implementation == "eager"


@pytest.mark.parametrize("bf16", [True, False])
def test_a_training_on_a_cpu_in_bfloat16_uses_it(bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    real = module.short_forward

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "short_forward", noted)
    model, (videos, clips) = frozen_model("cnn-mllm"), stored_clips(tmp_path, 6)
    train, val = (VideoDataset(videos[part], clips, [0, 1, 0]) for part in (slice(3), slice(3, 6)))
    fit(model, FitData(train, val), FitPlan(training_settings(num_train_epochs=1.0, bf16=bf16), 1))
    assert (True in calls) == bf16
    language: Any = model.network.language
    assert language.decoder.base_model.model.config._attn_implementation == "sdpa"
