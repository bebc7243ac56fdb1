"""The chat template of a published language model: the text around a video and its title.

An instruction-tuned decoder was trained on turns that special tokens begin and end. A checkpoint's own template is
rendered once, with transformers' sandboxed renderer, and split at the video and the title; the three pieces are kept
as ``chat.json`` beside a trained model's tokenizer, so that scoring needs the checkpoint's template no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.errors import ModelError
from coefvq.files import read_json, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: files that may hold a template, in the order in which transformers looks for them
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json")
_FILE = "chat.json"
_TITLE = "the title stands here"
_SPECIAL = re.compile(r"<\|[^<|>]*\|>")
_OFF = "or set language.chat: false in the preset"


@dataclass(frozen=True)
class ChatTemplate:
    """A row is ``before``, the visual tokens, ``between``, the text, ``after``; H is the state of the last token."""

    before: str
    between: str
    after: str

    @property
    def special_tokens(self) -> list[str]:
        """Names of the special tokens in it, such as ``<|im_start|>``."""
        return _SPECIAL.findall(self.before + self.between + self.after)

    @property
    def length(self) -> int:
        """Tokens, where the vocabulary holds each word and each line break, as that of Qwen2 does."""
        pieces = (self.before, self.between, self.after)
        return sum(len(_SPECIAL.findall(text)) + len(re.findall(r"\w+|\W", _SPECIAL.sub("", text))) for text in pieces)


#: ChatML, which Qwen2 and LLaVA-OneVision speak: for checkpoints without a template, and for plans without a download
CHATML = ChatTemplate("<|im_start|>user\n", "\n", "<|im_end|>\n<|im_start|>assistant\n")


def published_template(folder: Path, tokenizer: Tokenizer, video: str) -> ChatTemplate:
    """The checkpoint's template for one user turn with a video and a text, up to where the answer begins.

    ``video`` is the name of the token that holds the place of visual embeddings. A checkpoint without a template
    gets ``CHATML``.

    Raises:
        ModelError: the template is not readable, or does not show a video and a text once each.
    """
    for name in TEMPLATE_FILES:
        if (template := _read(folder / name)) is not None:
            return _split(folder / name, _rendered(template, tokenizer, video), video)
    return CHATML


def save_template(template: ChatTemplate, folder: Path) -> None:
    """Write chat.json."""
    write_json(folder / _FILE, asdict(template))


def load_template(folder: Path) -> ChatTemplate:
    """Read chat.json of a trained model.

    Raises:
        ModelError: it is missing or not readable.
    """
    remedy = "the model folder is damaged, train or download it again"
    raw = read_json(folder / _FILE, missing=remedy, remedy=remedy, error=ModelError)
    names = list(asdict(CHATML))
    if not isinstance(raw, dict) or raw.keys() != set(names) or not all(isinstance(raw[name], str) for name in names):
        raise ModelError(f"{folder / _FILE}: expected the texts {', '.join(names)}; {remedy}")
    return ChatTemplate(**raw)


def _read(path: Path) -> str | None:
    """The template of a file; None where there is no file, or no template in it."""
    if not path.is_file():
        return None
    if path.suffix == ".jinja":
        return path.read_text(encoding="utf-8")
    raw: Any = read_json(path, remedy="fetch the weights again", error=ModelError)
    template = raw.get("chat_template") if isinstance(raw, dict) else None
    return template if isinstance(template, str) else None


def _rendered(template: str, tokenizer: Tokenizer, video: str) -> Iterator[str]:
    """The turn with its content as a list of parts, as processors take it, then as one text, as tokenizers do."""
    from jinja2 import TemplateError
    from transformers import PreTrainedTokenizerFast

    renderer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)
    for content in ([{"type": "video"}, {"type": "text", "text": _TITLE}], f"{video}\n{_TITLE}"):
        try:
            turn = [{"role": "user", "content": content}]
            yield str(renderer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            continue  # the template takes the other form, or none, which the caller tells


def _split(path: Path, rendered: Iterator[str], video: str) -> ChatTemplate:
    for text in rendered:
        if text.count(video) == text.count(_TITLE) == 1:
            before, rest = text.split(video)
            between, _, after = rest.partition(_TITLE)
            if after:
                return ChatTemplate(before, between, after)
    raise ModelError(f"{path}: the chat template shows no turn of one video and one text; correct it, {_OFF}")
