"""Placing the content: Jinja2 with autoescape on, a style sheet, and nothing from outside."""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from coefvq.reporting.html.charts import Picture
from coefvq.reporting.html.content import content, example_ids
from coefvq.reporting.html.inputs import ReportInputs
from coefvq.reporting.html.svg import HEIGHT, WIDTH
from coefvq.reporting.html.verdict import signed

if TYPE_CHECKING:
    from jinja2 import Template

wanted_thumbnails = example_ids
_LEGEND = 26.0  # height of the legend of a chart in a file of its own


def build(given: ReportInputs) -> str:
    """The page as HTML.

    Raises:
        DataError: the scores table is unusable.
    """
    from markupsafe import Markup

    # our own style sheet and charts are markup; every other text is escaped by the template engine
    return _template().render(page=content(given), css=Markup(_style()), markup=Markup, signed=signed)  # noqa: S704


def pictures(given: ReportInputs) -> dict[str, str]:
    """The charts as SVG files of their own, by name, in the light palette."""
    page = content(given)
    found = {"precision_recall": page.precision_recall, "frontier": page.frontier, "reliability": page.reliability}
    palette = dict(re.findall(r"--([a-z]+):\s*(#[0-9a-f]{3,6})", _style().split("@media")[0]))
    return {name: _standalone(picture, palette) for name, picture in found.items()}


def _standalone(picture: Picture, palette: dict[str, str]) -> str:
    """The chart with its legend below, every colour and style in the file itself."""
    svg = picture.svg.replace(f"0 0 {WIDTH:g} {HEIGHT:g}", f"0 0 {WIDTH:g} {HEIGHT + _LEGEND:g}", 1)
    svg = svg.replace("</svg>", f"{_legend(picture)}</svg>")
    for name, colour in palette.items():
        svg = svg.replace(f"var(--{name})", colour)
    style = (
        f"text{{font:12px sans-serif;fill:{palette['text']}}}.small,.axis{{fill:{palette['dim']}}}"
        ".small{font-size:10px}.halo{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
        f".strong{{font-weight:600}}.grid{{stroke:{palette['line']};fill:none}}.rule{{fill:none;stroke-dasharray:2 3}}"
        f".ring{{fill:{palette['page']};stroke:{palette['text']}}}"
    )
    return svg.replace("</title>", f"</title><style>{style}</style><rect width='100%' height='100%' fill='#fff'/>", 1)


def _legend(picture: Picture) -> str:
    parts, x = [], 14.0
    for key in picture.keys:
        y, colour = HEIGHT + _LEGEND / 2, f"var(--{key.colour})"
        if key.shape in ("dot", "ring"):
            parts.append(f'<circle cx="{x + 9:g}" cy="{y:g}" r="4.5" style="fill:{colour}"/>')
        else:
            dash = ' stroke-dasharray="6 4"' if key.shape == "dash" else ""
            parts.append(f'<path d="M{x:g} {y:g}h18" style="stroke:{colour};stroke-width:2.4"{dash}/>')
        parts.append(f'<text class="small" x="{x + 23:g}" y="{y + 3.5:g}">{html.escape(key.text)}</text>')
        x += 38 + 5.2 * len(key.text)
    return "".join(parts)


@cache
def _style() -> str:
    return (files(__package__) / "report.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment: Any = Environment(
        loader=PackageLoader("coefvq.reporting.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")  # type: ignore[no-any-return]
