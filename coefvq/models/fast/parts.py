"""Where in a built network the parts are that switches change."""

from __future__ import annotations

from typing import Any

import torch

from coefvq.models.classifier import Classifier
from coefvq.models.fast.approximate import PooledTokens


def language_of(classifier: Classifier) -> Any:
    return classifier.network.language


def branch_of(classifier: Classifier) -> Any:
    """The vision branch itself, whether its tokens are pooled or not; None where there is none."""
    vision = getattr(classifier.network, "vision", None)
    return vision.branch if isinstance(vision, PooledTokens) else vision


def onevision_of(classifier: Classifier) -> Any:
    return branch_of(classifier).onevision


def decoder_of(classifier: Classifier) -> Any:
    """The transformers decoder, below the adapters where there are some."""
    decoder = language_of(classifier).decoder
    return decoder.get_base_model() if hasattr(decoder, "get_base_model") else decoder


def has_half_precision(classifier: Classifier) -> bool:
    return any(p.dtype == torch.bfloat16 for p in classifier.network.parameters())
