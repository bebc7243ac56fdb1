"""Things and people of the picture, each drawn by one small function at native size.

Points are in pixels, y downwards. A thing is given around its grip at (0, 0) and turned, scaled and
moved by ``Placement``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL.ImageDraw import ImageDraw

from coefvq.simulation.synthetic.factors import Object

Point = tuple[float, float]
Color = tuple[int, int, int]

_INK: Color = (20, 20, 25)
_TROUSERS: Color = (40, 40, 60)
_GLASS: Sequence[Color] = ((30, 110, 50), (120, 70, 30), (60, 120, 150))


@dataclass(frozen=True)
class Placement:
    """Where a thing is: its grip, its turn in radians, its scale; ``time`` in seconds lets it flicker."""

    x: float
    y: float
    angle: float
    scale: float
    time: float

    def points(self, *points: Point) -> list[Point]:
        """Turn, scale and move points given around the grip."""
        sine, cosine = math.sin(self.angle) * self.scale, math.cos(self.angle) * self.scale
        return [(self.x + px * cosine - py * sine, self.y + px * sine + py * cosine) for px, py in points]

    def circle(self, centre: Point, radius: float) -> tuple[float, float, float, float]:
        """Bounding box of a circle around a point given around the grip."""
        (cx, cy), r = self.points(centre)[0], radius * self.scale
        return (cx - r, cy - r, cx + r, cy + r)


@dataclass(frozen=True)
class Person:
    """How one person looks; ``size`` 1 is about 85 pixels tall."""

    size: float
    skin: Color
    clothes: Color
    hair: Color


def draw_blade(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """A knife, point up."""
    steel = (200 + tint[0] // 8, 210, 220)
    draw.polygon(at.points((-4, 0), (-5, -30), (1, -44), (5, -30), (5, 0)), fill=steel, outline=_INK)
    draw.polygon(at.points((-8, 0), (8, 0), (8, 4), (-8, 4)), fill=_INK)
    draw.polygon(at.points((-4, 4), (4, 4), (4, 18), (-4, 18)), fill=(70 + tint[1] // 5, 40, 25))


def draw_flame(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """A torch whose flame flickers."""
    tall = 1 + 0.2 * math.sin(9 * at.time + tint[0])
    draw.polygon(at.points((-3, 22), (-5, 0), (5, 0), (3, 22)), fill=(95, 60, 30), outline=_INK)
    outer = [(-13, 2), (-15, -12), (-7, -24 * tall), (0, -44 * tall), (7, -22 * tall), (15, -12), (13, 2)]
    draw.polygon(at.points(*outer), fill=(240, 100 + tint[0] // 6, 20))
    draw.polygon(at.points((-6, 2), (-6, -10), (0, -26 * tall), (7, -8), (6, 2)), fill=(255, 230, 90))


def draw_bottle(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """A bottle with a label."""
    body = [(-9, 18), (-9, -12), (-3, -22), (-3, -38), (3, -38), (3, -22), (9, -12), (9, 18)]
    draw.polygon(at.points(*body), fill=_GLASS[tint[0] % len(_GLASS)], outline=_INK)
    draw.polygon(at.points((-8, 8), (-8, -6), (8, -6), (8, 8)), fill=(235, 230, 210))


def draw_ball(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """A ball with two seams."""
    draw.ellipse(at.circle((0, -6), 17), fill=tint, outline=_INK, width=2)
    draw.line(at.points((-17, -6), (17, -6)), fill=_INK, width=2)
    draw.line(at.points((0, -23), (0, 11)), fill=_INK, width=2)


def draw_flower(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """A flower on its stem."""
    draw.line(at.points((0, 12), (0, -20)), fill=(40, 140, 50), width=4)
    petals = (200 + tint[0] // 5, 80 + tint[1] // 2, 150 + tint[2] // 3)
    for petal in range(6):
        turn = petal * math.tau / 6
        draw.ellipse(at.circle((11 * math.cos(turn), 11 * math.sin(turn) - 26), 7), fill=petals, outline=_INK)
    draw.ellipse(at.circle((0, -26), 6), fill=(250, 220, 60))


def draw_phone(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """A phone with its screen on."""
    draw.polygon(at.points((-11, 16), (-11, -24), (11, -24), (11, 16)), fill=(25, 25, 30))
    screen = (110 + tint[0] // 3, 170 + tint[1] // 4, 220)
    draw.polygon(at.points((-9, 11), (-9, -20), (9, -20), (9, 11)), fill=screen)


def draw_mosaic(draw: ImageDraw, at: Placement, tint: Color) -> None:
    """The coarse blocks that hide a thing; their colours come from the tint alone, so nothing shines through."""
    block = 11 * at.scale
    left, top = at.x - 1.5 * block, at.y - 3.5 * block
    for row in range(4):
        for column in range(3):
            shade = (37 * (3 * row + column + 1) + tint[(row + column) % 3]) % 130 + 60
            color = ((shade + tint[0] // 3) // 2 + 20, (shade + tint[1] // 3) // 2 + 20, shade)
            corner = (left + column * block, top + row * block)
            draw.rectangle((*corner, corner[0] + block, corner[1] + block), fill=color)


DRAW_OBJECT: Mapping[Object, Callable[[ImageDraw, Placement, Color], None]] = {
    Object.BLADE: draw_blade,
    Object.FLAME: draw_flame,
    Object.BOTTLE: draw_bottle,
    Object.BALL: draw_ball,
    Object.FLOWER: draw_flower,
    Object.PHONE: draw_phone,
    Object.HIDDEN: draw_mosaic,
}


def draw_person(draw: ImageDraw, person: Person, hip: Point, hand: Point, stride: float) -> None:
    """Head, trunk, legs and the arm that reaches for ``hand``; ``stride`` in pixels spreads the legs."""
    (x, y), s = hip, person.size
    for side in (-1, 1):
        foot = (x + side * (7 * s + stride), y + 32 * s)
        draw.line([(x + side * 4 * s, y), foot], fill=_TROUSERS, width=round(6 * s))
    trunk = [(x - 11 * s, y - 32 * s), (x + 11 * s, y - 32 * s), (x + 9 * s, y + 2), (x - 9 * s, y + 2)]
    draw.polygon(trunk, fill=person.clothes)
    head = (x - 9 * s, y - 51 * s, x + 9 * s, y - 32 * s)
    draw.ellipse(head, fill=person.skin)
    draw.pieslice(head, 180, 360, fill=person.hair)
    draw.line([(x, y - 28 * s), hand], fill=person.skin, width=round(5 * s))


def draw_impact(draw: ImageDraw, at: Point, turn: float) -> None:
    """A star of short rays where two arms meet."""
    for ray in range(7):
        angle = turn + ray * math.tau / 7
        end = (at[0] + 18 * math.cos(angle), at[1] + 18 * math.sin(angle))
        draw.line([at, end], fill=(255, 240, 120), width=3)
