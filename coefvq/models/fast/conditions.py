"""When a switch can work and when it gains time: a reason against, or an empty string."""

from __future__ import annotations

import torch

from coefvq.models.classifier import Classifier
from coefvq.models.fast.approximate import int8_possible
from coefvq.models.fast.linear import has_onednn, packs, private_op
from coefvq.models.fast.parts import branch_of, has_half_precision, language_of, onevision_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.vision import SiglipBranch


def has_bfloat16() -> bool:
    """Whether this machine computes bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    fast = private_op("_is_mkldnn_bf16_supported")
    return bool(fast is not None and fast()) and _cpu_flag("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def _cpu_flag(*names: str) -> bool:
    return any(bool(probe()) for name in names if (probe := getattr(torch.cpu, name, None)) is not None)


def is_half(classifier: Classifier) -> str:
    return "" if has_half_precision(classifier) else "float32 already"


def is_mllm(classifier: Classifier) -> str:
    return "" if isinstance(classifier.network, MultimodalLLM) else "not an MLLM"


def on_cpu(classifier: Classifier) -> str:
    return "" if next(classifier.network.parameters()).device.type == "cpu" else "not on a CPU"


def has_lora(classifier: Classifier) -> str:
    if is_mllm(classifier):
        return is_mllm(classifier)
    return "" if hasattr(language_of(classifier).decoder, "merge_and_unload") else "no adapters"


def sees_siglip(classifier: Classifier) -> str:
    return "" if isinstance(branch_of(classifier), SiglipBranch) else "no SigLIP vision tower"


def sees_siglip_on_cpu(classifier: Classifier) -> str:
    return sees_siglip(classifier) or on_cpu(classifier)


def can_chunk(classifier: Classifier) -> str:
    if reason := sees_siglip_on_cpu(classifier):
        return reason
    config = onevision_of(classifier).config
    if config.vision_feature_layer != -1 or config.vision_config.vision_use_head:
        return "the vision tower's last layer is not the one that is read"
    return ""


def attends_on_cpu(classifier: Classifier) -> str:
    return is_mllm(classifier) or on_cpu(classifier)


def blocked_pays(classifier: Classifier) -> str:
    if not has_half_precision(classifier):
        return "gains in bfloat16 only"
    return "torch's own kernel is faster with AMX" if _cpu_flag("_is_amx_tile_supported") else ""


def padded_pays(classifier: Classifier) -> str:
    if not has_half_precision(classifier):
        return "gains in bfloat16 only"
    return "" if _cpu_flag("_is_amx_tile_supported") else "gains with AMX only"


def has_flash(classifier: Classifier) -> str:
    from transformers.utils import is_flash_attn_2_available

    if reason := is_mllm(classifier):
        return reason
    if next(classifier.network.parameters()).device.type != "cuda":
        return "not on a GPU"
    if not is_flash_attn_2_available():
        return "flash-attn is not installed"
    return "" if has_half_precision(classifier) else "needs bfloat16"


def can_pack(classifier: Classifier) -> str:
    if reason := on_cpu(classifier):
        return reason
    if not has_onednn():
        return "this torch has no oneDNN"
    types = {parameter.dtype for parameter in classifier.network.parameters()}
    return "" if any(packs(dtype) for dtype in types) else "oneDNN packs no weights of this type on this processor"


def can_quantise(classifier: Classifier) -> str:
    if reason := on_cpu(classifier):
        return reason
    return "" if int8_possible() else "this torch has no quantised products"


def has_grid(classifier: Classifier) -> str:
    if reason := is_mllm(classifier):
        return reason
    per_frame = classifier.network.vision.tokens_per_frame  # type: ignore[union-attr]
    return "" if per_frame > 1 else "this preset has one visual token a frame"  # type: ignore[operator]


def fewer_frames(classifier: Classifier, frames: int) -> str:
    have = classifier.config.media.frames
    return "" if frames < have else f"predict.approximate.frames is {frames}, the model sees {have} already"


def shorter_sound(classifier: Classifier, seconds: float) -> str:
    have = classifier.config.media.audio_seconds
    if not classifier.config.hears:
        return "this model hears nothing"
    if not hasattr(classifier.network.audio.encoder, "positional_embedding"):  # type: ignore[union-attr]
        return "the sound tower is another package's, whose positions are not known"
    return "" if seconds < have else f"predict.approximate.audio_seconds is {seconds:g}, the model hears {have:g}"
