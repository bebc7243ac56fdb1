"""Titles and stickers of one clip, in one language, made of phrases that say what is to be shown.

Which names, numbers, days, separators, emoji and hashtags appear says nothing about any factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coefvq.simulation.synthetic.factors import Factors
from coefvq.simulation.synthetic.phrases import LANGUAGES, PHRASES, Phrases

_NAMES = ("Alex", "Noor", "Kim", "Rosa", "Bruno", "Mika", "Dana", "Leo", "Ines", "Sam")
_SEPARATORS = (". ", " | ", " - ", ", ", " ... ")
_EMOJI = ("", "", "", "", "😂", "🔥", "👀", "🙌", "😅", "✨", "💯", "🎬")
_HASHTAGS = ("#fyp", "#video", "#trending", "#clip", "#daily", "#foryou", "#viral", "#reels")


@dataclass(frozen=True)
class Writing:
    """Texts of one clip; ``phrases`` numbers the phrase used for each factor that was put in words."""

    language: str
    title: str
    stickers: tuple[str, ...]
    phrases: Mapping[str, int]


def write(rng: np.random.Generator, shown: Factors) -> Writing:
    """A title that says ``shown.topic`` and ``shown.claim`` in either order, and the sticker's text if there is one."""
    language = str(rng.choice(list(LANGUAGES), p=list(LANGUAGES.values())))
    book, used, said = PHRASES[language], dict[str, int](), dict[str, str]()
    wanted = {
        "topic": book.topic[shown.topic],
        "claim": book.claim.get(shown.claim, ()),
        "sticker": book.sticker.get(shown.sticker, ()),
    }
    for name, phrases in wanted.items():
        if phrases:
            used[name] = int(rng.integers(len(phrases)))
            said[name] = fill(rng, book, phrases[used[name]])
    title = _title(rng, language, [said[name] for name in ("topic", "claim") if name in said])
    return Writing(language, title, tuple(said[name] for name in ("sticker",) if name in said), used)


def fill(rng: np.random.Generator, book: Phrases, phrase: str) -> str:
    """The phrase with a name, a number, a day and a mood in its gaps."""
    return phrase.format(
        name=_pick(rng, _NAMES),
        n=int(rng.integers(2, 30)),
        day=_pick(rng, book.days),
        mood=_pick(rng, book.moods or ("",)),
    )


def capitalised(text: str, language: str) -> str:
    """With a capital first letter; in Turkish that of i is İ."""
    return ("İ" if language == "tr" and text[0] == "i" else text[0].upper()) + text[1:]


def joined(parts: Sequence[str], separator: str) -> str:
    """The parts with the separator between them, or a space where a part ends a sentence by itself."""
    text = ""
    for part in parts:
        text += (" " if text[-1] in "?!." else separator) + part if text else part
    return text


def _title(rng: np.random.Generator, language: str, parts: list[str]) -> str:
    if rng.random() < 0.5:
        parts.reverse()
    text = joined(parts, _pick(rng, _SEPARATORS))
    if rng.random() < 0.5:
        text = capitalised(text, language)
    tags = rng.permutation(_HASHTAGS)[: int(rng.integers(3))].tolist()
    return " ".join(word for word in (text, _pick(rng, _EMOJI), *tags) if word)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
