"""The language model lm of the MLLM: a transformers decoder without language-model head, with LoRA."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from coefvq.config import Lora
from coefvq.models.presets import LanguagePart

_LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LanguageBranch(nn.Module):
    """H = lm([H_f; X_t]), hidden state of the final token (paper, section 2.1)."""

    def __init__(self, part: LanguagePart, vocab_size: int, video_token: int, pad_token: int, lora: Lora) -> None:
        from transformers import Qwen2Config, Qwen2Model

        super().__init__()
        decoder = Qwen2Model(
            Qwen2Config(
                vocab_size=vocab_size,
                hidden_size=part.hidden_size,
                num_hidden_layers=part.num_hidden_layers,
                num_attention_heads=part.num_attention_heads,
                num_key_value_heads=part.num_key_value_heads,
                intermediate_size=part.intermediate_size,
                max_position_embeddings=4096,
                pad_token_id=pad_token,
                use_cache=False,
            )
        )
        self.decoder: Any = _with_lora(decoder, lora)
        self.video_token = video_token
        self.output_size = part.hidden_size

    def forward(self, visual: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """visual [B,T_v,D], input_ids and attention_mask [B,L] left-padded -> H [B,D]."""
        embedded = self.decoder.get_input_embeddings()(input_ids)
        slots = input_ids == self.video_token
        # index assignment, not masked_scatter: the latter fails under autocast with mixed dtypes
        embedded = embedded.index_put((slots,), visual.reshape(-1, visual.shape[-1]).to(embedded.dtype))
        positions = attention_mask.long().cumsum(dim=1).sub(1).clamp(min=0)
        output = self.decoder(
            inputs_embeds=embedded, attention_mask=attention_mask, position_ids=positions, use_cache=False
        )
        final: torch.Tensor = output.last_hidden_state[:, -1]
        return final


def _with_lora(decoder: nn.Module, lora: Lora) -> nn.Module:
    if lora.rank == 0:
        decoder.requires_grad_(False)
        return decoder
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=_LINEAR_LAYERS)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for an attribute by its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        adapted: nn.Module = get_peft_model(decoder, config)
    return adapted
