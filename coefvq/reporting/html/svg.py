"""Small line charts as inline SVG: colours are CSS variables of the page, so that they follow light and dark.

Coordinates are in a box of 440 × 300 that scales with the page; text stays readable down to 350 px width.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coefvq.cascade.curves import FloatArray

WIDTH, HEIGHT = 440.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 12.0, 44.0


@dataclass(frozen=True)
class Axis:
    """Range, ticks and title of one axis; ``log`` for a logarithmic one."""

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, values: FloatArray | float, start: float, end: float) -> FloatArray:
        """Coordinates of values; what lies outside the range is put on its border."""
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        low, high = self.low, self.high
        if self.log:
            inside, low, high = np.log(inside), math.log(low), math.log(high)
        return np.asarray(start + (inside - low) / (high - low) * (end - start))


@dataclass(frozen=True)
class Line:
    """A line of the colour ``var(--<colour>)``; ``steps`` draws it as stairs, ``filled`` down to the axis."""

    colour: str
    x: FloatArray
    y: FloatArray
    dashed: bool = False
    width: float = 2.0
    steps: bool = False
    filled: bool = False


@dataclass(frozen=True)
class Mark:
    """A point with its text; ``strong`` for the one that was chosen."""

    colour: str
    x: float
    y: float
    text: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Rule:
    """A thin line across: horizontal at ``y`` or vertical at ``x``, with its text."""

    text: str
    x: float | None = None
    y: float | None = None
    colour: str = "dim"


@dataclass(frozen=True)
class Band:
    """A vertical whisker from ``low`` to ``high`` at ``x``."""

    colour: str
    x: float
    low: float
    high: float


def chart(
    x: Axis,
    y: Axis,
    description: str,
    lines: Sequence[Line] = (),
    marks: Sequence[Mark] = (),
    rules: Sequence[Rule] = (),
    bands: Sequence[Band] = (),
) -> str:
    """One chart; ``description`` is what a screen reader says."""
    box = _Box(x, y)
    parts = [
        *(box.grid_x(tick) for tick in x.ticks),
        *(box.grid_y(tick) for tick in y.ticks),
        *map(box.rule, rules),
        *map(box.line, lines),
        *map(box.band, bands),
        *map(box.mark, marks),
        box.titles(),
    ]
    label = html.escape(description)
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class _Box:
    x: Axis
    y: Axis

    def at(self, x: FloatArray | float, y: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        return self.x.place(x, _LEFT, WIDTH - _RIGHT), self.y.place(y, HEIGHT - _BOTTOM, _TOP)

    def grid_x(self, tick: float) -> str:
        (x, _), low = self.at(tick, self.y.low), HEIGHT - _BOTTOM
        return (
            f'<path class="grid" d="M{x:.1f} {_TOP}V{low}"/>'
            f'<text x="{x:.1f}" y="{low + 17:.0f}" text-anchor="middle">{tick:g}</text>'
        )

    def grid_y(self, tick: float) -> str:
        _, y = self.at(self.x.low, tick)
        return (
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )

    def rule(self, rule: Rule) -> str:
        style = f'class="rule" style="stroke:var(--{rule.colour})"'
        text = html.escape(rule.text)
        if rule.y is not None:
            _, y = self.at(self.x.low, rule.y)
            end = WIDTH - _RIGHT
            label = f'<text class="halo small" x="{end - 3}" y="{y - 4:.1f}" text-anchor="end">{text}</text>'
            return f'<path {style} d="M{_LEFT} {y:.1f}H{end}"/>{label}'
        x, _ = self.at(self.x.low if rule.x is None else rule.x, self.y.low)
        near_end = float(x) > WIDTH - _RIGHT - 90
        anchor, shift = ("end", -5) if near_end else ("start", 5)
        label = (
            f'<text class="halo small" x="{float(x) + shift:.1f}" y="{_TOP + 11}" text-anchor="{anchor}">{text}</text>'
        )
        return f'<path {style} d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>{label}'

    def line(self, line: Line) -> str:
        if not len(line.x):
            return ""
        x, y = self.at(line.x, line.y)
        path = _stairs(x, y) if line.steps else "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        colour = f"var(--{line.colour})"
        area = ""
        if line.filled:
            low = HEIGHT - _BOTTOM
            closed = f"{path}L{x[-1]:.1f} {low}L{x[0]:.1f} {low}Z"
            area = f'<path d="{closed}" style="fill:{colour};stroke:none;opacity:.14"/>'
        return (
            f'{area}<path d="{path}" style="fill:none;stroke:{colour};stroke-width:{line.width:g}" '
            f'stroke-linejoin="round"{dash}/>'
        )

    def band(self, band: Band) -> str:
        (x, low), (_, high) = self.at(band.x, band.low), self.at(band.x, band.high)
        return f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" style="stroke:var(--{band.colour});stroke-width:1.5"/>'

    def mark(self, mark: Mark) -> str:
        x, y = (float(value) for value in self.at(mark.x, mark.y))
        size = 7.0 if mark.strong else 4.0
        ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size + 4}" class="ring"/>' if mark.strong else ""
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" style="fill:var(--{mark.colour})"/>'
        left = x > WIDTH * 0.6
        anchor, shift = ("end", -size - 6) if left else ("start", size + 6)
        weight = ' class="halo strong"' if mark.strong else ' class="halo"'
        # below the point: lines usually run above it
        text = (
            f'<text{weight} x="{x + shift:.1f}" y="{y + 15:.1f}" text-anchor="{anchor}">{html.escape(mark.text)}</text>'
        )
        return ring + circle + (text if mark.text else "")

    def titles(self) -> str:
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        return (
            f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2:g}" y="{HEIGHT - 7:g}" text-anchor="middle">'
            f"{html.escape(self.x.title)}</text>"
            f'<text class="axis" transform="translate(12 {middle:g}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(self.y.title)}</text>"
        )


def _stairs(x: FloatArray, y: FloatArray) -> str:
    """Each y holds from its x to the next."""
    return f"M{x[0]:.1f} {y[0]:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:], y[1:], strict=True))
