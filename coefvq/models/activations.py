"""What autograd keeps for the backward pass of an MLLM's decoder, counted on tensors without memory.

The real classes run forward under torch's FakeTensorMode, and hooks add up what is saved. Two and three layers are
enough: all between the first and the last are alike. Frozen towers save nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from coefvq.config import Lora
from coefvq.models.language import LanguageBranch, decoder_config
from coefvq.models.last_position import ASK
from coefvq.models.parts import LanguagePart, Preset
from coefvq.models.precision import fixed_precision

_HALF = 2  # bytes of bf16


def saved_bytes(network: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that ``forward`` leaves saved for its backward pass, parameters and buffers of ``network`` left out."""
    own = {id_of(tensor) for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.Tensor] = {}  # tensors, so that no address is given out twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (address := id_of(tensor)) not in own:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def id_of(tensor: torch.Tensor) -> int:
    """A number for the storage of a tensor, real or not."""
    address: int = tensor.untyped_storage()._cdata
    return address


def decoder_activations(
    preset: Preset, lora: Lora, length: int, *, checkpointing: bool, zero: bool, grad_input: bool
) -> int:
    """Bytes of one video of ``length`` tokens, trained in bf16.

    ``zero``: DeepSpeed's ZeRO, which holds all weights in bf16; without it torch's autocast, with adapters in fp32.
    ``grad_input``: whether embeddings or a projector train. With ``checkpointing``, the input of every layer is kept
    and one layer at a time is computed anew.
    """
    part = preset.language
    layers = part.layers_used or part.num_hidden_layers
    half = zero or "onevision" in preset.weights

    def count(used: int, last_only: bool, grad: bool) -> int:
        branch = _branch(replace(part, num_hidden_layers=used, layers_used=None), lora, half, zero)
        return _count(branch, length, last_only, grad, zero)

    if checkpointing:
        # transformers computes the whole last layer then; its input has a gradient, as of any layer
        return count(1, False, True) + layers * length * part.hidden_size * _HALF
    if layers <= 3:
        return count(layers, True, grad_input)
    two, three = (count(used, True, grad_input) for used in (2, 3))
    return two + (layers - 2) * (three - two)


def _branch(part: LanguagePart, lora: Lora, half: bool, zero: bool) -> LanguageBranch:
    """A decoder with adapters on the meta device, in the precision of a training."""
    from transformers import AutoModel

    with torch.device("meta"):
        decoder = AutoModel.from_config(decoder_config(part))
        if half:
            decoder.to(torch.bfloat16)
        branch = LanguageBranch(decoder, 1, lora)
        if zero:
            with fixed_precision(branch):
                branch.to(torch.bfloat16)
    return branch.train()


def _count(branch: LanguageBranch, length: int, last_only: bool, grad: bool, zero: bool) -> int:
    from torch._subclasses.fake_tensor import FakeTensorMode

    kind = branch.decoder.get_input_embeddings().weight.dtype
    with FakeTensorMode():
        _pretend_on_cpu(branch)  # autocast and the choice of attention's kernel know no meta device
        embedded = torch.empty(1, length, branch.output_size, dtype=kind, requires_grad=grad)
        # rows of a batch differ in length, so attention gets a mask
        given = {
            "inputs_embeds": embedded,
            "attention_mask": torch.empty(1, 1, length, length, dtype=torch.bool),
            "position_ids": torch.empty(1, length, dtype=torch.long),
            "use_cache": False,
            **({ASK: True} if last_only else {}),
        }
        with nullcontext() if zero else torch.autocast("cpu", dtype=torch.bfloat16):
            return saved_bytes(branch, lambda: branch.decoder(**given))


def _pretend_on_cpu(network: nn.Module) -> None:
    """Within a FakeTensorMode: tensors of the meta device become tensors of the CPU that hold nothing."""
    for module in network.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
