"""Text to token ids: a byte-level BPE trained on the training split, saved with the model as JSON.

Presets with pretrained language models bring their own tokenizer; both end up in ``TextEncoder``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coefvq.data.tokens import SpecialTokens
from coefvq.errors import ModelError
from coefvq.files import atomic_path

UNKNOWN = "<unk>"
_TRAINED = SpecialTokens()
_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TextEncoder:
    """Wraps a ``tokenizers.Tokenizer``; ``max_tokens`` bounds the text, not the visual tokens."""

    tokenizer: Any
    max_tokens: int
    tokens: SpecialTokens = _TRAINED

    @property
    def vocab_size(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def id_of(self, token: str) -> int:
        """Id of a special token.

        Raises:
            ModelError: the vocabulary lacks it.
        """
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise ModelError(f"{_FILE}: token {token} is missing; train the model again")
        return int(number)

    @property
    def pad_id(self) -> int:
        """Id that fills a row on its left."""
        return self.id_of(self.tokens.pad)

    @property
    def video_id(self) -> int:
        """Id whose embedding is replaced by a visual token."""
        return self.id_of(self.tokens.video)

    @property
    def end_id(self) -> int:
        """Id of the last token of every row."""
        return self.id_of(self.tokens.end)

    def batch(self, texts: list[str], visual_tokens: int) -> dict[str, torch.Tensor]:
        """Left-padded ``input_ids`` and ``attention_mask`` [B, L].

        A row is [pad … | visual_tokens x <video> | start | text | <end>], so that the final position is
        always a real token, also for an empty text.
        """
        prefix = [self.video_id] * visual_tokens
        if self.tokens.start is not None:
            prefix = [*prefix, self.id_of(self.tokens.start)]
        encoded = self.tokenizer.encode_batch([self.tokens.prompt + text for text in texts], add_special_tokens=False)
        rows = [[*prefix, *self._text_ids(item.ids), self.end_id] for item in encoded]
        length = max(map(len, rows))
        pad = self.pad_id
        ids = [[pad] * (length - len(row)) + row for row in rows]
        mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def _text_ids(self, ids: list[int]) -> list[int]:
        # a title that spells the placeholder's name must not become a slot for a visual token
        video = self.video_id
        return [number for number in ids[: self.max_tokens] if number != video]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        with atomic_path(folder / _FILE) as temporary:
            self.tokenizer.save(str(temporary))


def train_text_encoder(texts: Iterable[str], vocab_size: int, max_tokens: int) -> TextEncoder:
    """Byte-level BPE over ``texts``; every later text can be encoded, whatever its language."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_TRAINED.pad, _TRAINED.video, _TRAINED.end, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextEncoder(tokenizer, max_tokens)


def load_text_encoder(folder: Path, max_tokens: int, tokens: SpecialTokens = _TRAINED) -> TextEncoder:
    """Read tokenizer.json.

    Raises:
        ModelError: it is missing or unreadable.
    """
    from tokenizers import Tokenizer

    path = folder / _FILE
    if not path.is_file():
        raise ModelError(f"{path}: missing; the model folder is incomplete, train or download it again")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextEncoder(tokenizer, max_tokens, tokens)
