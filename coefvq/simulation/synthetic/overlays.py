"""What editing puts on top of a picture: stickers, letterbox bars, reaction inset, logo, border."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from coefvq.errors import DataError
from coefvq.simulation.synthetic.factors import Edit
from coefvq.simulation.synthetic.figures import Color

_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
_BAR = 20  # letterbox, pixels
_BORDER = 9
_INSET = (52, 54)  # width, height
_STICKER_FONT, _HANDLE_FONT = 11, 10
_MARGIN = 10  # keeps stickers off a border
_LINE_HEIGHT = 15
_LETTERS = "abcdefghiklmnoprstuvxyz"


@dataclass(frozen=True)
class EditLook:
    """How the marks of one clip look; every clip has one, whatever marks it shows."""

    face: Color
    accent: Color
    handle: str
    corner: int
    inset_left: bool
    sticker_low: bool


def draw_edit_look(rng: np.random.Generator, face: Color) -> EditLook:
    """Draw the look of the marks."""
    red, green, blue = (int(value) for value in rng.integers(80, 256, 3))
    return EditLook(
        face=face,
        accent=(red, green, blue),
        handle="@" + "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), 5)),
        corner=int(rng.integers(4)),
        inset_left=bool(rng.integers(2)),
        sticker_low=bool(rng.integers(2)),
    )


def plain(image: Image.Image, look: EditLook, progress: float) -> Image.Image:
    """No mark."""
    return image


def letterbox(image: Image.Image, look: EditLook, progress: float) -> Image.Image:
    """Black bars above and below."""
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, image.width, _BAR - 1), fill=_BLACK)
    draw.rectangle((0, image.height - _BAR, image.width, image.height), fill=_BLACK)
    return image


def reaction_inset(image: Image.Image, look: EditLook, progress: float) -> Image.Image:
    """A talking face in a lower corner."""
    width, height = _INSET
    left = 4 if look.inset_left else image.width - width - 5
    top = image.height - height - 5
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, left + width, top + height), fill=(235, 235, 240), outline=_BLACK, width=2)
    draw.ellipse((left + 10, top + 6, left + 42, top + 48), fill=look.face)
    draw.pieslice((left + 10, top + 4, left + 42, top + 36), 180, 360, fill=look.accent, outline=_BLACK)
    for eye in (19, 29):
        draw.ellipse((left + eye, top + 22, left + eye + 4, top + 26), fill=_BLACK)
    mouth = 2 + 4 * abs(np.sin(21 * progress))
    draw.ellipse((left + 20, top + 36 - mouth, left + 32, top + 36 + mouth), fill=(120, 20, 30))
    return image


def logo(image: Image.Image, look: EditLook, progress: float) -> Image.Image:
    """A platform's play button with an account name; it jumps to another corner half-way."""
    corner = (look.corner + (2 if progress >= 0.5 else 0)) % 4
    patch = _logo_patch(look.accent, look.handle)
    left = 5 if corner % 2 == 0 else image.width - patch.width - 5
    top = 4 if corner < 2 else image.height - patch.height - 4
    image.paste(patch, (left, top))
    return image


def mirrored_border(image: Image.Image, look: EditLook, progress: float) -> Image.Image:
    """The picture mirrored inside a coloured frame, as re-uploads do to escape matching."""
    framed = ImageOps.mirror(image)
    ImageDraw.Draw(framed).rectangle((0, 0, image.width - 1, image.height - 1), None, look.accent, _BORDER)
    return framed


#: editing marks as functions (picture, look, progress in [0, 1)) → picture
APPLY_EDIT: Mapping[Edit, Callable[[Image.Image, EditLook, float], Image.Image]] = {
    Edit.PLAIN: plain,
    Edit.LETTERBOX: letterbox,
    Edit.PIP: reaction_inset,
    Edit.LOGO: logo,
    Edit.BORDER: mirrored_border,
}


def sticker_patch(text: str, room: int) -> Image.Image:
    """White text on black, in as many lines as fit ``room`` pixels of width less the margins."""
    font = _font(_STICKER_FONT)
    lines = wrap(text, lambda line: font.getlength(line) <= room - 2 * _MARGIN)
    width = max(int(font.getlength(line)) for line in lines) + 8
    patch = Image.new("RGB", (width, _LINE_HEIGHT * len(lines) + 2), _BLACK)
    draw = ImageDraw.Draw(patch)
    for row, line in enumerate(lines):
        left = (width - font.getlength(line)) / 2
        draw.text((left, _LINE_HEIGHT * row + 1), line, font=font, fill=_WHITE)
    return patch


def sticker_position(patch: Image.Image, size: int, edit: Edit, look: EditLook) -> tuple[int, int]:
    """Upper left corner of a sticker: centred, near the top or the bottom, clear of the edit's marks."""
    low = look.sticker_low and edit is not Edit.PIP
    return (size - patch.width) // 2, size - 24 - patch.height if low else 24


def wrap(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Break ``text`` at spaces into lines that fit; a single word that does not fit stays whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and not fits(longer):
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@lru_cache(maxsize=8)
def _logo_patch(accent: Color, handle: str) -> Image.Image:
    font = _font(_HANDLE_FONT)
    patch = Image.new("RGB", (24 + int(font.getlength(handle)), 20), _BLACK)
    draw = ImageDraw.Draw(patch)
    draw.ellipse((1, 1, 18, 18), fill=accent, outline=_WHITE)
    draw.polygon([(7, 5), (15, 10), (7, 15)], fill=_WHITE, outline=_BLACK)
    draw.text((21, 3), handle, font=font, fill=_WHITE)
    return patch


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font has no accents; matplotlib carries one that has. It is found without being imported
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise DataError("stickers need the fonts of matplotlib; install coefvq with its dependencies")
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)
