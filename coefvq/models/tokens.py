"""Special tokens of a text encoder, as data (no torch here, so that presets stay light)."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, with_config


@with_config(ConfigDict(strict=True, extra="forbid"))
@dataclass(frozen=True)
class SpecialTokens:
    """Names in a tokenizer's vocabulary. ``video`` only holds the place of visual embeddings.

    ``start`` goes before a text where the encoder was trained with one; ``prompt`` is a text that goes before.
    """

    pad: str = "<pad>"
    video: str = "<video>"
    end: str = "<end>"
    start: str | None = None
    prompt: str = ""
