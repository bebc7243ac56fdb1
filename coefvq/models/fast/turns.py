"""What each switch does to a built network, in place."""

from __future__ import annotations

from typing import Any

import torch

from coefvq.models.classifier import Classifier
from coefvq.models.fast import attention
from coefvq.models.fast.approximate import quantise
from coefvq.models.fast.conditions import sees_siglip
from coefvq.models.fast.layers import ChunkedTower, PatchMatmul, is_patch_embedding
from coefvq.models.fast.linear import pack_linears
from coefvq.models.fast.parts import decoder_of, language_of, onevision_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.precision import fixed_precision

_PATCHES_AT_ONCE = 1536


def merge_lora(classifier: Classifier, dtype: torch.dtype = torch.float32) -> Classifier:
    """Adapters are added in float32, and each sum is rounded once, to ``dtype``; layer by layer, to save memory."""
    from peft.tuners.lora import LoraLayer

    language = language_of(classifier)
    for layer in language.decoder.modules():
        if isinstance(layer, LoraLayer):
            weight: Any = layer.get_base_layer().weight
            weight.data = weight.data.float()
            layer.merge()
            weight.data = weight.data.to(dtype)
    language.decoder = language.decoder.unload()  # the sums stay in its layers
    return classifier


def patch_matmul(classifier: Classifier) -> Classifier:
    embeddings = onevision_of(classifier).vision_tower.embeddings
    if is_patch_embedding(embeddings.patch_embedding):
        embeddings.patch_embedding = PatchMatmul(embeddings.patch_embedding)
    return classifier


def chunk(classifier: Classifier) -> Classifier:
    onevision = onevision_of(classifier)
    patches = onevision.vision_tower.embeddings.num_patches
    onevision.vision_tower = ChunkedTower(onevision.vision_tower, max(_PATCHES_AT_ONCE // patches, 1))
    return classifier


def attend(classifier: Classifier, name: str) -> Classifier:
    attention.register()
    decoder_of(classifier).set_attn_implementation(name)
    if not sees_siglip(classifier):
        tower = onevision_of(classifier).vision_tower
        (tower.tower if isinstance(tower, ChunkedTower) else tower).set_attn_implementation(name)
    return classifier


def blocked(classifier: Classifier) -> Classifier:
    return attend(classifier, attention.BLOCKED)


def padded(classifier: Classifier) -> Classifier:
    return attend(classifier, attention.PADDED)


def flash(classifier: Classifier) -> Classifier:
    return attend(classifier, "flash_attention_2")


def pack(classifier: Classifier) -> Classifier:
    pack_linears(classifier.network)
    return classifier


def int8(classifier: Classifier) -> Classifier:
    network: Any = classifier.network
    if isinstance(network, MultimodalLLM):
        quantise(network.vision)
        quantise(network.language)
    else:
        for name, child in network.named_children():
            if name != "head":
                quantise(child)
    return classifier


def bfloat16(classifier: Classifier) -> Classifier:
    """Towers and language model in bfloat16; sound, final norm and head stay in float32."""
    network: Any = classifier.network
    if not isinstance(network, MultimodalLLM):
        return classifier
    with fixed_precision(network):
        for part in (network.vision, network.language):
            part.to(torch.bfloat16)
    return classifier


def float32(classifier: Classifier) -> Classifier:
    """Everything in float32, also what was trained in bfloat16."""
    classifier.network.float()
    return classifier
