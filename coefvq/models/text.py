"""Text to token ids: a byte-level BPE trained on the training split, saved with the model as JSON.

Presets with pretrained language models bring their own tokenizer; both end up in ``TextEncoder``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from coefvq.errors import ModelError
from coefvq.files import atomic_path, check_regular, sha256_file
from coefvq.models.chat import ChatTemplate, save_template
from coefvq.models.tokens import SpecialTokens

UNKNOWN = "<unk>"
_TRAINED = SpecialTokens()
_FILE = "tokenizer.json"
_CHUNK = 8192  # texts that are encoded at once
#: what stands before each piece of on-screen text in ``data.dataset.text_of``
STICKER = "\n["
_log = logging.getLogger(__name__)
#: tokenizers that models of this process use, by the SHA-256 of their file
_tokenizers: WeakValueDictionary[str, Any] = WeakValueDictionary()


@dataclass(frozen=True)
class TextEncoder:
    """Wraps a ``tokenizers.Tokenizer``; ``max_tokens`` bounds the text, not the visual tokens.

    ``chat`` is the template that texts stand in, where the language model was trained on one.
    """

    tokenizer: Any
    max_tokens: int
    tokens: SpecialTokens = _TRAINED
    chat: ChatTemplate | None = None

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
            raise ModelError(
                f"{_FILE}: token {token} is missing, so it is not this model's; train the model again or give its own"
            )
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
        """Id of the token that ends a text, and a row without a chat template."""
        return self.id_of(self.tokens.end)

    def batch(self, texts: list[str], visual_tokens: int) -> dict[str, torch.Tensor]:
        """Left-padded ``input_ids`` and ``attention_mask`` [B, L].

        A row is [pad … | visual_tokens x <video> | start | text | <end>], or with a chat template
        [pad … | before | visual_tokens x <video> | between, text | after], so that the final position is
        always a real token, also for an empty text. Of a text above ``max_tokens`` the on-screen text loses its
        middle first (``shortened``); how many were cut is logged at INFO, and said by the stages once per run.
        """
        rows, cuts = map(list, zip(*self._rows(texts, visual_tokens), strict=True))
        if cut := sum(cuts):
            _log.info("%d of %d texts are longer than %d tokens and were cut", cut, len(texts), self.max_tokens)
        length = max(map(len, rows))
        pad = self.pad_id
        ids = [[pad] * (length - len(row)) + row for row in rows]
        mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def lengths(self, texts: list[str], visual_tokens: int) -> list[int]:
        """Tokens of each row before padding."""
        around = len(self._prefix(visual_tokens)) + len(self._around[2])
        return [around + min(count, self.max_tokens) for count in self.counts(texts)]

    def counts(self, texts: list[str]) -> Iterator[int]:
        """Tokens of each text with its prompt; those of a text above ``max_tokens`` are cut."""
        return (len(self._ids(item)) for item, _ in self._encoded(texts))

    def _rows(self, texts: list[str], visual_tokens: int) -> Iterator[tuple[list[int], bool]]:
        """Ids of each row before padding, and whether its text was cut; one chunk of texts at a time is held."""
        _, prompt, after = self._around
        prefix = self._prefix(visual_tokens)
        for item, text in self._encoded(texts):
            long = self._is_long(item)
            yield [*prefix, *(self._shortened(item, text, len(prompt)) if long else self._ids(item)), *after], long

    def _encoded(self, texts: list[str]) -> Iterator[tuple[Any, str]]:
        """Each text with its prompt, as the tokenizer read it and as it was written."""
        prompt = self._around[1]
        for start in range(0, len(texts), _CHUNK):
            # half of a surrogate pair, as JSON and the command line can hold one, is no text to the tokenizer
            chunk = [(prompt + text).encode("utf-8", "replace").decode() for text in texts[start : start + _CHUNK]]
            yield from zip(self.tokenizer.encode_batch(chunk, add_special_tokens=False), chunk, strict=True)

    def _prefix(self, visual_tokens: int) -> list[int]:
        """Ids that stand before each text."""
        start = [] if self.tokens.start is None else [self.id_of(self.tokens.start)]
        return [*self._around[0], *[self.video_id] * visual_tokens, *start]

    @cached_property
    def _around(self) -> tuple[list[int], str, list[int]]:
        """Ids before the visual tokens, the prompt that is encoded with each text, and the ids after it."""
        if self.chat is None:
            return [], self.tokens.prompt, [self.end_id]
        before, after = self.tokenizer.encode_batch([self.chat.before, self.chat.after], add_special_tokens=False)
        return before.ids, self.chat.between, after.ids

    @cached_property
    def _reserved(self) -> frozenset[int]:
        """Ids that no text may hold.

        A title that spells the placeholder's name must not become a slot for a visual token; in a chat template, one
        that spells the end of a turn must not end its own.
        """
        if self.chat is None:
            return frozenset([self.video_id])
        special = {number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        between = self.tokenizer.encode(self.chat.between, add_special_tokens=False).ids
        return frozenset({self.video_id, *special} - set(between))

    def _ids(self, encoded: Any) -> list[int]:
        reserved = self._reserved
        return [number for number in encoded.ids if number not in reserved]

    def _is_long(self, encoded: Any) -> bool:
        return len(encoded.ids) > self.max_tokens and len(self._ids(encoded)) > self.max_tokens

    def _shortened(self, encoded: Any, text: str, prompt: int) -> list[int]:
        """Ids of a text that is too long; the first ``prompt`` characters are the prompt."""
        ids, begin, reserved = self._ids(encoded), text.find(STICKER, prompt), self._reserved
        starts = (at for number, (at, _) in zip(encoded.ids, encoded.offsets, strict=True) if number not in reserved)
        title = len(ids) if begin < 0 else sum(at < begin for at in starts)
        return shortened(ids, title, self.max_tokens)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, and chat.json where there is a template."""
        with atomic_path(folder / _FILE) as temporary:
            self.tokenizer.save(str(temporary))
        if self.chat is not None:
            save_template(self.chat, folder)


def shortened(ids: list[int], title: int, limit: int) -> list[int]:
    """At most ``limit`` ids of a text whose first ``title`` ids are prompt and title, the rest on-screen text.

    What is on screen loses its middle, so that its first and last words stay. Only a title that is too long by
    itself is cut, in its middle too, and then nothing of the screen is left.
    """
    if len(ids) <= limit:
        return ids
    if title > limit:
        ids, title = ids[:title], 0
    tail = (limit - title) // 2
    return [*ids[: limit - tail], *ids[len(ids) - tail :]]


def check_fits(encoder: TextEncoder, embeddings: int, model: str, key: str) -> None:
    """Refuse a tokenizer that is not the model's own; ``embeddings`` is how many rows the model has by ``key``.

    Raises:
        ModelError: its ids reach beyond the embeddings, or a special token is missing.
    """
    if encoder.vocab_size > embeddings:
        raise ModelError(
            f"tokenizer of {encoder.vocab_size} tokens: {model} has embeddings for {embeddings} ({key}); "
            f"give the {_FILE} that was made for this model"
        )
    names = [encoder.tokens.pad, encoder.tokens.video, encoder.tokens.end]
    names += encoder.chat.special_tokens if encoder.chat is not None else []
    for name in [*names, *([encoder.tokens.start] if encoder.tokens.start is not None else [])]:
        encoder.id_of(name)


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
    remedy = "the model folder is damaged, train or download it again"
    check_regular(path, missing=remedy, remedy=remedy, error=ModelError)
    # XLM-R's vocabulary takes 280 MB and half a second: models of several issues have one in common
    key = sha256_file(path)
    tokenizer = _tokenizers.get(key)
    if tokenizer is None:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise ModelError(f"{path}: no tokenizer ({error}); {remedy}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        _tokenizers[key] = tokenizer
    return TextEncoder(tokenizer, max_tokens, tokens)
