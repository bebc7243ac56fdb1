"""Towers, a loss, a metric and a rule field for coefvq, each by what it takes and returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

    from coefvq.vmp.records import Event

Column = NDArray[np.float64]


def small_vit(frame_size: int, width: int, layers: int) -> nn.Module:
    """A frame tower: images [N,3,S,S] in [-1,1] -> [N,width]."""
    from torch import nn
    from transformers import ViTConfig, ViTModel

    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = ViTModel(
                ViTConfig(
                    image_size=frame_size,
                    hidden_size=width,
                    intermediate_size=2 * width,
                    num_hidden_layers=layers,
                    num_attention_heads=2,
                )
            )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.vit(images).last_hidden_state
            return states[:, 0]

    return Tower()


def small_bert(vocab_size: int, pad_token: int, **sizes: Any) -> nn.Module:
    """A text tower: input_ids and attention_mask [B,L], padded on the left -> [B,D].

    A class of transformers, so that ``weights`` may name a repository of the Hugging Face hub.
    """
    from transformers import BertConfig, BertModel

    class Tower(BertModel):
        def __init__(self, config: BertConfig) -> None:  # as transformers makes it again to load weights
            super().__init__(config, add_pooling_layer=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            # positions count from the first real token: the answer must not depend on the padding
            positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
            output = super().forward(input_ids, attention_mask, position_ids=positions)
            mask = attention_mask.unsqueeze(-1)
            mean: torch.Tensor = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
            return mean

    smallest = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return Tower(BertConfig(vocab_size=vocab_size, pad_token_id=pad_token, **(smallest | sizes)))


def small_cnn(audio_seconds: float, width: int) -> nn.Module:
    """A sound tower: log_mel [B,80,T], 100 columns a second -> [B,width]."""
    from torch import nn

    steps = [nn.Conv1d(80, width, 5, stride=4), nn.GELU(), nn.Conv1d(width, width, 5, stride=4)]
    return nn.Sequential(*steps, nn.AdaptiveAvgPool1d(1), nn.Flatten())


def smoothed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss per example: logits [n,2], labels [n] without missing ones -> [n]."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")


def balanced_accuracy(label: Column, score: Column, weight: Column) -> float | None:
    """A metric: float64 [n] each -> a number, or None where undefined. A withheld row has the score -inf."""
    flagged, positive, negative = score >= 0.5, weight * label, weight * (1.0 - label)
    if not positive.sum() or not negative.sum():
        return None
    recall = np.sum(positive * flagged) / positive.sum()
    rejected = np.sum(negative * ~flagged) / negative.sum()
    return float((recall + rejected) / 2.0)


def shouting(event: Event) -> float | None:
    """A rule field: share of capitals in the title, None without a letter."""
    letters = [letter for letter in event.title if letter.isalpha()]
    return sum(map(str.isupper, letters)) / len(letters) if letters else None


# what a rules file may compare it with: float, bool or str
shouting.kind = float  # type: ignore[attr-defined]
