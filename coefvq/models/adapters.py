"""LoRA (Hu et al. 2021) through peft: on the MLLM's decoder, and on a base model's text tower."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from torch import nn

from coefvq.config import Lora
from coefvq.errors import ModelError


def with_lora(network: nn.Module, lora: Lora, setting: str) -> nn.Module:
    """LoRA on every linear layer or those named, all else frozen; rank 0 freezes the network (paper, Table 4).

    peft's ``modules_to_save`` is not needed: heads and projectors lie outside the network that is wrapped here, and
    ``Classifier.save`` writes every tensor that trains.

    Raises:
        ModelError: ``setting``.target_modules names a layer that is not there.
    """
    if lora.rank == 0:
        network.requires_grad_(False)
        return network
    from peft import LoraConfig, get_peft_model

    linear = {name.rpartition(".")[2] for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    targets = sorted(linear) if lora.target_modules is None else _checked(lora.target_modules, linear, setting)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for an attribute by its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        adapted: nn.Module = get_peft_model(network, config)
    return adapted


def _checked(names: Iterable[str], linear: Iterable[str], setting: str) -> list[str]:
    for name in names:
        if name not in linear:
            layers = ", ".join(sorted(linear))
            raise ModelError(f"{setting}.target_modules: {name!r} is no linear layer of that network; it has {layers}")
    return list(names)
