"""The vocabulary that a model's config asks for: its tokenizer, special tokens, and the longest text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from coefvq.models.chat import published_template
from coefvq.models.model_config import ModelConfig
from coefvq.models.parts import OwnTextPart
from coefvq.models.pretrained import weights_of
from coefvq.models.text import TextEncoder, load_text_encoder, train_text_encoder
from coefvq.models.tokens import SpecialTokens

_TEXT_TOWERS = ("multitower", "attention")  # architectures that read by the part tower_text


def text_encoder(config: ModelConfig, titles: Iterable[str]) -> TextEncoder | None:
    """The published tokenizer of the model's text part; a random preset trains one on ``titles``."""
    if not config.reads_text:
        return None
    role = _tokenizer_role(config)
    folder = None if role is None else weights_of(config.parts, role)
    if folder is None:
        return train_text_encoder(titles, vocabulary_size(config), text_limit(config))
    encoder = load_text_encoder(folder, text_limit(config), special_tokens(config))
    if not chats(config):
        return encoder
    return replace(encoder, chat=published_template(folder, encoder.tokenizer, encoder.tokens.video))


def chats(config: ModelConfig) -> bool:
    """Whether the model reads its texts in a chat template."""
    return config.kind == "mllm" and config.parts.chats


def _tokenizer_role(config: ModelConfig) -> str | None:
    """Role of the published part whose tokenizer the model reads with; None: one is trained on the titles."""
    if config.architecture == "mllm":
        return config.parts.tokenizer_role
    role = "tower_text" if config.architecture in _TEXT_TOWERS else "siglip"
    return role if role in config.parts.weights else None


def text_limit(config: ModelConfig) -> int:
    """Most tokens of a text: the preset's, or fewer where the text tower has no positions for so many.

    Start and end token need a position each, and RoBERTa's count begins at 2.
    """
    preset = config.parts
    if config.architecture == "siglip":
        return min(preset.max_text_tokens, preset.siglip.text_positions - 2)
    if config.architecture in _TEXT_TOWERS:
        part = preset.tower_text
        if isinstance(part, OwnTextPart):
            return preset.max_text_tokens if part.positions is None else min(preset.max_text_tokens, part.positions - 2)
        reserved = 4 if part.model_type == "xlm-roberta" else 2
        return min(preset.max_text_tokens, part.max_position_embeddings - reserved)
    return preset.max_text_tokens


def vocabulary_size(config: ModelConfig) -> int:
    """Rows of the embedding table that the token ids index."""
    preset = config.parts
    if config.architecture == "mllm":
        return preset.language.vocab_size
    return preset.tower_text.vocab_size if config.architecture in _TEXT_TOWERS else preset.siglip.vocab_size


def vocabulary_key(config: ModelConfig) -> str:
    """Key of the preset that says how large the vocabulary is, for messages."""
    if config.architecture in _TEXT_TOWERS:
        return "tower_text.vocab_size"
    return {"mllm": "language.vocab_size", "siglip": "siglip.vocab_size"}[config.architecture]


def special_tokens(config: ModelConfig) -> SpecialTokens:
    """Names of the special tokens in the model's vocabulary."""
    preset = config.parts
    if _tokenizer_role(config) is None:
        return SpecialTokens()
    if config.architecture == "mllm":
        return preset.language.tokens
    return preset.tower_text.tokens if config.architecture in _TEXT_TOWERS else preset.siglip.tokens
