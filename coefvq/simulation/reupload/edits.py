"""What editing does to a picture: kinds of edits, how their parameters are drawn, how they are painted.

An edit is plain data (kind and parameters) that goes into the ``edits`` column as it is. Lengths are
shares of the picture, so that an edit looks alike at any resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Paint = Callable[[Image.Image, float], Image.Image]
Params = Mapping[str, Any]

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
    params: Params

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


def painter(edit: Edit, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint | None:
    """Function (picture, progress in [0, 1)) → picture of ``size`` (width, height); None if nothing is painted.

    ``inset`` gives the second clip's pictures for ``pip``, one per call.
    """
    make = _PAINT.get(edit.kind)
    return None if make is None else make(edit.params, size, inset)


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


def _draw_crop(rng: np.random.Generator) -> Params:
    share = _uniform(rng, 0.7, 0.92)
    left, top = (_uniform(rng, 0.0, 1.0 - share) for _ in range(2))
    return {"left": left, "top": top, "share": share}


def _draw_letterbox(rng: np.random.Generator) -> Params:
    fill = "blur" if rng.random() < 0.5 else _colour(rng)
    return {"bars": _pick(rng, "above", "beside", "around"), "share": _uniform(rng, 0.07, 0.16), "fill": fill}


def _draw_logo(rng: np.random.Generator) -> Params:
    accent = [int(value) for value in rng.integers(80, 256, 3)]
    place = {"corner": int(rng.integers(4)), "jumps": bool(rng.integers(2)), "height": _uniform(rng, 0.07, 0.12)}
    return {"text": handle(rng), "accent": accent, **place}


def _draw_banner(rng: np.random.Generator) -> Params:
    text = _BANNERS[int(rng.integers(len(_BANNERS)))]
    dark = bool(rng.integers(2))
    return {"text": text, "low": bool(rng.integers(2)), "dark": dark, "height": _uniform(rng, 0.09, 0.15)}


def _draw_colour(rng: np.random.Generator) -> Params:
    tint = [_uniform(rng, 0.88, 1.12) for _ in range(3)]
    factors = {name: _uniform(rng, 0.75, 1.25) for name in ("brightness", "contrast", "saturation")}
    return {**factors, "tint": tint}


_DRAW: Mapping[str, Callable[[np.random.Generator], Params]] = {
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


def _crop(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    width, height = size
    left, top, share = params["left"] * width, params["top"] * height, params["share"]
    box = (left, top, left + share * width, top + share * height)
    return lambda image, progress: image.resize(size, Image.Resampling.BICUBIC, box=box)


def _mirror(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    return lambda image, progress: ImageOps.mirror(image)


def _colours(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    curves = [np.clip(np.arange(256) * gain, 0, 255).round().astype(int).tolist() for gain in params["tint"]]
    table = [value for curve in curves for value in curve]

    def paint(image: Image.Image, progress: float) -> Image.Image:
        image = ImageEnhance.Brightness(image).enhance(params["brightness"])
        image = ImageEnhance.Contrast(image).enhance(params["contrast"])
        return ImageEnhance.Color(image).enhance(params["saturation"]).point(table)

    return paint


def _letterbox(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    """Bars above and below, or left and right, over the picture; or the whole picture made smaller."""
    width, height = size
    bar_x = round(params["share"] * width) if params["bars"] != "above" else 0
    bar_y = round(params["share"] * height) if params["bars"] != "beside" else 0
    inner = (width - 2 * bar_x, height - 2 * bar_y)

    def paint(image: Image.Image, progress: float) -> Image.Image:
        canvas = _blurred(image) if params["fill"] == "blur" else Image.new("RGB", size, tuple(params["fill"]))
        if params["bars"] == "around":
            content = image.resize(inner, Image.Resampling.BICUBIC)
        else:
            content = image.crop((bar_x, bar_y, width - bar_x, height - bar_y))
        canvas.paste(content, (bar_x, bar_y))
        return canvas

    return paint


def _blurred(image: Image.Image) -> Image.Image:
    """The picture enlarged and out of focus, as phone editors fill bars."""
    width, height = image.size
    box = (width * 0.15, height * 0.15, width * 0.85, height * 0.85)
    small = image.resize((max(width // 12, 2), max(height // 12, 2)), Image.Resampling.BILINEAR, box=box)
    return small.filter(ImageFilter.BoxBlur(1)).resize(image.size, Image.Resampling.BILINEAR)


def _border(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    width, height = size
    line = max(round(params["share"] * min(size)), 2)

    def paint(image: Image.Image, progress: float) -> Image.Image:
        framed = image.copy()
        ImageDraw.Draw(framed).rectangle((0, 0, width - 1, height - 1), None, tuple(params["fill"]), line)
        return framed

    return paint


def _logo(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    patch = _logo_patch(params["text"], tuple(params["accent"]), max(round(params["height"] * size[1]), 10))

    def paint(image: Image.Image, progress: float) -> Image.Image:
        corner = (params["corner"] + (2 if params["jumps"] and progress >= 0.5 else 0)) % 4
        marked = image.copy()
        marked.paste(patch, _corner(corner, patch.size, size), patch)
        return marked

    return paint


def _logo_patch(text: str, accent: tuple[int, int, int], height: int) -> Image.Image:
    font = ImageFont.load_default(size=0.6 * height)
    patch = Image.new("RGBA", (height + int(font.getlength(text)) + height // 3, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(patch)
    draw.ellipse((1, 1, height - 2, height - 2), fill=(*accent, 255), outline=(255, 255, 255, 255))
    play = [(0.38 * height, 0.28 * height), (0.75 * height, 0.5 * height), (0.38 * height, 0.72 * height)]
    draw.polygon(play, fill=(255, 255, 255, 255))
    draw.text(
        (1.15 * height, 0.12 * height),
        text,
        font=font,
        fill=(255, 255, 255, 220),
        stroke_width=1,
        stroke_fill=(0, 0, 0, 160),
    )
    return patch


def _banner(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    width, height = size
    strip_height = max(round(params["height"] * height), 10)
    back, ink = ((0, 0, 0), (255, 255, 255)) if params["dark"] else ((255, 255, 255), (0, 0, 0))
    font = ImageFont.load_default(size=0.6 * strip_height)
    strip = Image.new("RGB", (width, strip_height), back)
    left = (width - font.getlength(params["text"])) / 2
    ImageDraw.Draw(strip).text((left, 0.12 * strip_height), params["text"], font=font, fill=ink)
    top = round(0.84 * height) - strip_height if params["low"] else round(0.08 * height)

    def paint(image: Image.Image, progress: float) -> Image.Image:
        marked = image.copy()
        marked.paste(strip, (0, top))
        return marked

    return paint


def _pip(params: Params, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    """Another clip, small, in a corner."""
    small = (round(params["share"] * size[0]), round(params["share"] * size[1]))
    place = _corner(params["corner"], small, size)

    def paint(image: Image.Image, progress: float) -> Image.Image:
        marked = image.copy()
        marked.paste(ImageOps.fit(next(inset), small, Image.Resampling.BILINEAR), place)
        return marked

    return paint


def _corner(corner: int, patch: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    margin = max(round(0.03 * min(size)), 2)
    left = margin if corner % 2 == 0 else size[0] - patch[0] - margin
    return left, margin if corner < 2 else size[1] - patch[1] - margin


#: in the order an editor would apply them; sound, speed and quality are not painted
_PAINT: Mapping[str, Callable[[Params, tuple[int, int], Iterator[Image.Image]], Paint]] = {
    "crop": _crop,
    "mirror": _mirror,
    "colour": _colours,
    "letterbox": _letterbox,
    "border": _border,
    "pip": _pip,
    "banner": _banner,
    "logo": _logo,
}
ORDER = (*("speed", "degrade", "music", "other_sound", "pitch"), *_PAINT)
