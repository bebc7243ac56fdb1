"""What editing does to a clip: kinds of edits, and how their parameters are drawn.

An edit is plain data (kind and parameters) that goes into the ``edits`` column as it is. Lengths are
shares of the picture, so that an edit looks alike at any resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EditParams = Mapping[str, Any]

#: what creators do to videos of their own as well as copyists to other people's
PRESENTATION = ("letterbox", "border", "logo", "banner", "colour", "music")
#: what makes a copy harder to match; creators hardly do it
EVASION = ("crop", "mirror", "pip", "speed", "other_sound", "pitch", "degrade")
#: at most one of each group: the later would undo the earlier
EXCLUSIVE = (frozenset({"music", "other_sound", "pitch"}), frozenset({"letterbox", "border"}))

_BANNERS = (
    *("WAIT FOR IT", "watch till the end", "you won't believe this", "sound on!", "part 2 on my page"),
    *("follow for more", "best of the day", "real or fake?", "OMG", "this is wild", "no way", "daily clips"),
)
_LETTERS = "abcdefghiklmnoprstuvxyz"


@dataclass(frozen=True)
class Edit:
    """One edit; ``params`` are JSON values."""

    kind: str
    params: EditParams

    def to_json(self) -> dict[str, Any]:
        """Flat, as the ``edits`` column holds it."""
        return {"kind": self.kind, **self.params}

    @property
    def text(self) -> str | None:
        """Text the edit puts on the picture."""
        value = self.params.get("text")
        return value if isinstance(value, str) else None


def draw_edit(rng: np.random.Generator, kind: str) -> Edit:
    """Draw the parameters of an edit."""
    return Edit(kind, _DRAW[kind](rng))


def handle(rng: np.random.Generator) -> str:
    """An account name."""
    return "@" + "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), int(rng.integers(4, 10))))


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 4)


def _away_from_one(rng: np.random.Generator, low: float, high: float, gap: float) -> float:
    """A factor in [low, high] that differs from 1 by at least ``gap``."""
    below = rng.random() < 0.5
    return _uniform(rng, low, 1.0 - gap) if below else _uniform(rng, 1.0 + gap, high)


def _colour(rng: np.random.Generator) -> list[int]:
    shade = int(rng.integers(3))
    if shade < 2:
        return [[0, 0, 0], [255, 255, 255]][shade]
    return [int(value) for value in rng.integers(0, 256, 3)]


def _pick(rng: np.random.Generator, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _draw_crop(rng: np.random.Generator) -> EditParams:
    share = _uniform(rng, 0.7, 0.92)
    left, top = (_uniform(rng, 0.0, 1.0 - share) for _ in range(2))
    return {"left": left, "top": top, "share": share}


def _draw_letterbox(rng: np.random.Generator) -> EditParams:
    fill = "blur" if rng.random() < 0.5 else _colour(rng)
    return {"bars": _pick(rng, "above", "beside", "around"), "share": _uniform(rng, 0.07, 0.16), "fill": fill}


def _draw_logo(rng: np.random.Generator) -> EditParams:
    accent = [int(value) for value in rng.integers(80, 256, 3)]
    place = {"corner": int(rng.integers(4)), "jumps": bool(rng.integers(2)), "height": _uniform(rng, 0.07, 0.12)}
    return {"text": handle(rng), "accent": accent, **place}


def _draw_banner(rng: np.random.Generator) -> EditParams:
    text = _BANNERS[int(rng.integers(len(_BANNERS)))]
    dark = bool(rng.integers(2))
    return {"text": text, "low": bool(rng.integers(2)), "dark": dark, "height": _uniform(rng, 0.09, 0.15)}


def _draw_colour(rng: np.random.Generator) -> EditParams:
    tint = [_uniform(rng, 0.88, 1.12) for _ in range(3)]
    factors = {name: _uniform(rng, 0.75, 1.25) for name in ("brightness", "contrast", "saturation")}
    return {**factors, "tint": tint}


_DRAW: Mapping[str, Callable[[np.random.Generator], EditParams]] = {
    "letterbox": _draw_letterbox,
    "border": lambda rng: {"share": _uniform(rng, 0.025, 0.07), "fill": _colour(rng)},
    "logo": _draw_logo,
    "banner": _draw_banner,
    "colour": _draw_colour,
    "music": lambda rng: {"under": bool(rng.integers(2)), "gain": _uniform(rng, 0.4, 0.9), "seed": _seed(rng)},
    "crop": _draw_crop,
    "mirror": lambda rng: {},
    "pip": lambda rng: {"corner": int(rng.integers(4)), "share": _uniform(rng, 0.25, 0.38), "seed": _seed(rng)},
    "speed": lambda rng: {"factor": _away_from_one(rng, 0.8, 1.25, 0.06)},
    "other_sound": lambda rng: {"seed": _seed(rng)},
    "pitch": lambda rng: {"factor": _away_from_one(rng, 0.8, 1.25, 0.06)},
    "degrade": lambda rng: {"crf": int(rng.integers(34, 43))},
}
