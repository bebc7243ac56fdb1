"""MLLMs of several issues that differ only behind H: what lies before it, their trunk, is held once.

Where adapters and projector stay as they start (a learning rate of 0), every issue's MLLM has the same trunk, and H of
a video serves all of them.
"""

from __future__ import annotations

import hashlib
from copy import copy
from pathlib import Path

import torch
from torch import nn

from coefvq.config import Scoring
from coefvq.files import sha256_json
from coefvq.models.classifier import Classifier, misfit, read_weights
from coefvq.models.fast.linear import PackedLinear
from coefvq.models.memo import Memo
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig
from coefvq.models.shared import row_digest
from coefvq.models.text import TextEncoder

_BEHIND = ("norm.", "head.")
_OF_ISSUE = {"issues", "id2label", "limits"}


class SharedLanguage(nn.Module):
    """The language model of several MLLMs: H of each distinct row is computed once while a group is scored."""

    def __init__(self, language: nn.Module, memo: Memo) -> None:
        super().__init__()
        self.language, self._memo = language, memo

    def forward(
        self, visual: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, last: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As ``LanguageBranch``, to rounding: a row that was computed in another batch is taken from there."""
        if not self._memo.open or torch.is_grad_enabled() or visual.device.type != "cpu":
            return self._computed(visual, ids, mask, last)
        # without padding, which differs from batch to batch
        read = [row[there.bool()] for row, there in zip(ids, mask, strict=True)]
        parts = [visual, read] if last is None else [visual, read, last]
        keys = [(id(self), b"".join(map(row_digest, row))) for row in zip(*parts, strict=True)]
        kept = self._memo.rows
        if missing := sorted({key: index for index, key in enumerate(keys) if key not in kept}.values()):
            chosen = self._computed(
                visual[missing], ids[missing], mask[missing], None if last is None else last[missing]
            )
            kept.update(zip((keys[index] for index in missing), chosen, strict=True))
        return torch.stack([kept[key] for key in keys])

    def _computed(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        hidden: torch.Tensor = self.language(*inputs)
        return hidden


def trunk_key(folder: Path, config: ModelConfig, how: Scoring) -> str | None:
    """What decides H of the MLLM in ``folder``; None where its trunk cannot be another model's.

    Raises:
        ModelError: its weights are missing or unreadable.
    """
    if config.architecture != "mllm" or len(config.issues) > 1 or config.merged or config.parts.local:
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(read_weights(folder).items()):
        if not name.startswith(_BEHIND):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(row_digest(tensor))
    return sha256_json(
        [config.model_dump(mode="json", exclude=_OF_ISSUE), how.model_dump(mode="json"), digest.hexdigest()]
    )


def on_trunk_of(
    first: Classifier, folder: Path, config: ModelConfig, text: TextEncoder | None, memo: Memo
) -> Classifier:
    """The MLLM in ``folder``, whose trunk is that of ``first``: only what stands behind H is read.

    From now on ``memo`` keeps the H of both.

    Raises:
        ModelError: its weights are missing or do not fit.
    """
    held: MultimodalLLM = first.network  # type: ignore[assignment]
    if not isinstance(held.language, SharedLanguage):
        held.language = SharedLanguage(held.language, memo)  # type: ignore[assignment]
    network = copy(held)
    network._modules = dict(held._modules)
    norm, head = (
        nn.LayerNorm(network.norm.normalized_shape),
        nn.Linear(network.head.in_features, network.head.out_features),
    )
    behind = nn.ModuleDict({"norm": norm, "head": head})
    weights = {name: tensor for name, tensor in read_weights(folder).items() if name.startswith(_BEHIND)}
    try:
        behind.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(folder, error) from error
    behind.to(network.norm.weight.device, network.norm.weight.dtype).eval()
    network.norm = norm
    network.head = PackedLinear(head) if isinstance(held.head, PackedLinear) else head  # type: ignore[assignment]
    return Classifier(config, network, text)
