"""The language model lm of the MLLM: a transformers decoder without language-model head, with LoRA."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from coefvq.config import Lora
from coefvq.models.adapters import with_lora
from coefvq.models.last_position import ASK, teach_last_layer
from coefvq.models.parts import LanguagePart

Pooling = Literal["last", "mean"]


class LanguageBranch(nn.Module):
    """H = lm([H_f; X_t]), hidden state of the final token (paper, section 2.1). No lm_head is computed.

    With ``pooling`` mean, which is not the paper's, H is the mean over the states of all tokens: a shallow decoder has
    too few layers to bring what a title says to one position (docs/adr/0008-mean-pooling-and-words.md).
    """

    def __init__(self, decoder: nn.Module, video_token: int, lora: Lora, pooling: Pooling = "last") -> None:
        super().__init__()
        self.output_size = int(decoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        teach_last_layer(decoder)
        self.decoder: Any = with_lora(decoder, lora, "mllm.lora")
        self.video_token = video_token
        self.pooling = pooling

    def forward(
        self,
        visual: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """visual [B,T_v,D], input_ids and attention_mask [B,L] left-padded, last [B,1,D] or None -> H [B,D].

        ``last`` is appended as the final input token (early fusion, paper Table 3).
        """
        embedded = self.decoder.get_input_embeddings()(input_ids)
        embedded = _filled(embedded, input_ids == self.video_token, visual)
        if last is not None:
            embedded = torch.cat([embedded, last.to(embedded.dtype)], dim=1)
            attention_mask = nn.functional.pad(attention_mask, (0, 1), value=1)
        output = self.decoder(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=positions_of(attention_mask),
            use_cache=False,
            **({ASK: True} if self.pooling == "last" else {}),
        )
        states: torch.Tensor = output.last_hidden_state
        if self.pooling == "last":
            return states[:, -1]
        there = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * there).sum(dim=1) / there.sum(dim=1)


def _filled(embedded: torch.Tensor, slots: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """embedded [B,L,D] with the rows of visual [B,T,D] where slots [B,L] says; each row has T slots.

    A write through a mask would make the host wait for the GPU at each batch, to learn how many there are.
    """
    number = slots.flatten().cumsum(0).sub(1).clamp(min=0).view(slots.shape)
    rows = visual.reshape(-1, visual.shape[-1]).to(embedded.dtype)[number]
    return torch.where(slots.unsqueeze(-1), rows, embedded)


def positions_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions [B,L] that count real tokens only, so that left padding changes nothing."""
    return attention_mask.long().cumsum(dim=1).sub(1).clamp(min=0)


def decoder_config(part: LanguagePart) -> Any:
    """transformers configuration of the decoder, with as many layers as are used."""
    from transformers import LlamaConfig, Qwen2Config

    kind = {"qwen2": Qwen2Config, "llama": LlamaConfig}[part.model_type]
    return kind(
        vocab_size=part.vocab_size,
        hidden_size=part.hidden_size,
        num_hidden_layers=part.layers_used or part.num_hidden_layers,
        num_attention_heads=part.num_attention_heads,
        num_key_value_heads=part.num_key_value_heads,
        intermediate_size=part.intermediate_size,
        max_position_embeddings=32_768,
        rms_norm_eps=part.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": part.rope_theta},
        use_cache=False,
        # the defaults point outside a small vocabulary
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
