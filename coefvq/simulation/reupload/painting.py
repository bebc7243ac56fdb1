"""How an edit is painted on a clip's pictures, and in which order edits are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from coefvq.simulation.reupload.edits import Edit, EditParams

Paint = Callable[[Image.Image, float], Image.Image]


def painter(edit: Edit, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint | None:
    """Function (picture, progress in [0, 1)) → picture of ``size`` (width, height); None if nothing is painted.

    ``inset`` gives the second clip's pictures for ``pip``, one per call.
    """
    make = _PAINT.get(edit.kind)
    return None if make is None else make(edit.params, size, inset)


def _crop(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    width, height = size
    left, top, share = params["left"] * width, params["top"] * height, params["share"]
    box = (left, top, left + share * width, top + share * height)
    return lambda image, progress: image.resize(size, Image.Resampling.BICUBIC, box=box)


def _mirror(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    return lambda image, progress: ImageOps.mirror(image)


def _colours(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    curves = [np.clip(np.arange(256) * gain, 0, 255).round().astype(int).tolist() for gain in params["tint"]]
    table = [value for curve in curves for value in curve]

    def paint(image: Image.Image, progress: float) -> Image.Image:
        image = ImageEnhance.Brightness(image).enhance(params["brightness"])
        image = ImageEnhance.Contrast(image).enhance(params["contrast"])
        return ImageEnhance.Color(image).enhance(params["saturation"]).point(table)

    return paint


def _letterbox(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
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


def _border(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
    width, height = size
    line = max(round(params["share"] * min(size)), 2)

    def paint(image: Image.Image, progress: float) -> Image.Image:
        framed = image.copy()
        ImageDraw.Draw(framed).rectangle((0, 0, width - 1, height - 1), None, tuple(params["fill"]), line)
        return framed

    return paint


def _logo(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
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


def _banner(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
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


def _pip(params: EditParams, size: tuple[int, int], inset: Iterator[Image.Image]) -> Paint:
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
_PAINT: Mapping[str, Callable[[EditParams, tuple[int, int], Iterator[Image.Image]], Paint]] = {
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
