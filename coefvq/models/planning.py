"""What a preset needs before anything is downloaded: parameters, memory per rank, tokens, FLOPs.

Parameters and FLOPs are counted on the meta device with the real classes (torch's FlopCounterMode); memory is
arithmetic over them (Rajbhandari et al., ZeRO, section 5: stage 2 divides gradients and optimiser states) and what
autograd saves (``models.activations``). It leaves out what CUDA and NCCL keep for themselves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from coefvq.config import Lora, MediaSpec
from coefvq.models.activations import decoder_activations
from coefvq.models.chat import CHATML
from coefvq.models.counting import Counted, count_base, count_mllm, meta_mllm
from coefvq.models.mllm import Fusion, MultimodalLLM
from coefvq.models.parts import Preset
from coefvq.models.vision import visual_tokens

_GIB = 1024**3
_HALF, _FULL = 2, 4  # bytes of bf16 and fp32
#: architectures of the first stage
BASES = ("frames", "multitower", "siglip", "attention")


@dataclass(frozen=True)
class Memory:
    """GiB per rank; ``fits`` is None where no memory was given."""

    frozen_weights: float
    trained_weights: float
    gradients: float
    optimizer: float
    activations: float
    total: float
    fits: bool | None


@dataclass(frozen=True)
class MemoryPlan:
    """The planner's answer; FLOPs count a multiply-add as two; ``base_parameters`` are of the possible first stages.

    ``template_tokens`` stand around video and text: the end token, or those of the chat template. ``not_pinned`` are
    roles whose weights come from a branch of the model hub, which can move.
    """

    preset: str
    gpus: int
    batch_size: int
    activation_checkpointing: bool
    parameters: dict[str, int]
    trainable: int
    visual_tokens: int
    text_tokens: int
    template_tokens: int
    flops_per_video: dict[str, float]
    memory: Memory
    base_parameters: dict[str, int]
    not_pinned: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form with the derived sums."""
        total = sum(self.flops_per_video.values())
        return {
            **asdict(self),
            "total_parameters": sum(self.parameters.values()),
            "forward_flops_per_video": total,
            "forward_flops_per_million_videos": total * 1e6,
        }


def plan(
    preset: Preset,
    media: MediaSpec,
    lora: Lora,
    fusion: Fusion,
    *,
    gpus: int,
    memory_gib: float | None,
    batch_size: int = 1,
    text_tokens: int = 64,
    activation_checkpointing: bool = True,
) -> MemoryPlan:
    """Count and estimate; ``batch_size`` is per rank. Several GPUs train by ZeRO-2, one without DeepSpeed; in bf16."""
    network = meta_mllm(preset, media, lora, fusion)
    counted = count_mllm(network, preset)
    memory = training_memory(
        preset,
        media,
        lora,
        network,
        gpus=gpus,
        memory_gib=memory_gib,
        batch_size=batch_size,
        text_tokens=text_tokens,
        activation_checkpointing=activation_checkpointing,
    )
    length = _length(preset, media, network, text_tokens)
    return MemoryPlan(
        preset=preset.name,
        gpus=gpus,
        batch_size=batch_size,
        activation_checkpointing=activation_checkpointing,
        parameters=counted.parts,
        trainable=counted.trainable,
        visual_tokens=visual_tokens(network.vision, media.frames),
        text_tokens=text_tokens,
        template_tokens=_template_tokens(preset),
        flops_per_video=forward_flops(network.to(torch.bfloat16).eval(), media, length),
        memory=memory,
        base_parameters={kind: count_base(preset, kind, media).total for kind in BASES},
        not_pinned=tuple(role for role, source in preset.weights.items() if not source.pinned),
    )


def training_memory(
    preset: Preset,
    media: MediaSpec,
    lora: Lora,
    network: MultimodalLLM,
    *,
    gpus: int,
    memory_gib: float | None,
    batch_size: int = 1,
    text_tokens: int = 64,
    activation_checkpointing: bool = True,
) -> Memory:
    """Memory of a rank that trains ``network`` (of ``meta_mllm``), as ``plan`` gives it; nothing else is counted."""
    early = network.fusion == "early"
    activations = batch_size * decoder_activations(
        preset,
        lora,
        _length(preset, media, network, text_tokens),
        checkpointing=activation_checkpointing,
        zero=gpus > 1,
        # else nothing before the decoder trains
        grad_input="onevision" not in preset.weights or early,
    )
    return _memory(count_mllm(network, preset), preset, gpus, memory_gib, activations)


def _length(preset: Preset, media: MediaSpec, network: MultimodalLLM, text_tokens: int) -> int:
    """Tokens of one video that reach the decoder."""
    visual = visual_tokens(network.vision, media.frames)
    return visual + text_tokens + _template_tokens(preset) + (network.fusion == "early")


def _template_tokens(preset: Preset) -> int:
    return CHATML.length if preset.chats else 1


def forward_flops(network: MultimodalLLM, media: MediaSpec, length: int) -> dict[str, float]:
    """FLOPs of one video through each branch; ``network`` is on the meta device, ``length`` tokens reach lm."""
    size, kind = media.frame_size, torch.bfloat16
    pixels = torch.empty(1, media.frames, 3, size, size, dtype=kind, device="meta")
    embedded = torch.empty(1, length, network.language.output_size, dtype=kind, device="meta")
    # a mask that is ready-made: making one asks for values, which the meta device has not
    mask = torch.empty(1, 1, length, length, dtype=kind, device="meta")
    counts = {
        "vision": _count(lambda: network.vision(pixels)),
        "language": _count(
            lambda: network.language.decoder(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
        ),
    }
    if network.audio is not None:
        audio = network.audio
        mel = torch.empty(1, 80, round(media.audio_seconds * 100), dtype=kind, device="meta")
        counts["audio"] = _count(lambda: audio.encoder(mel))
    return counts


def _count(forward: Any) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return float(counter.get_total_flops())


def _memory(counted: Counted, preset: Preset, gpus: int, memory_gib: float | None, activations: int) -> Memory:
    zero, trained = gpus > 1, counted.trainable
    sound = counted.parts["audio encoder"] if "audio" in preset.weights else 0  # a frozen Whisper stays fp32
    half = zero or "onevision" in preset.weights
    parts = {
        "frozen_weights": (counted.total - trained - sound) * (_HALF if half else _FULL) + sound * _FULL,
        "trained_weights": trained * (_HALF if zero else _FULL),
        "gradients": trained * (_HALF / gpus if zero else _FULL),
        # Adam's two moments, and under ZeRO an fp32 copy of the weights
        "optimizer": trained * (3 if zero else 2) * _FULL / gpus,
        "activations": activations,
    }
    gib = {name: value / _GIB for name, value in parts.items()}
    total = sum(gib.values())
    return Memory(**gib, total=total, fits=None if memory_gib is None else total <= 0.9 * memory_gib)
