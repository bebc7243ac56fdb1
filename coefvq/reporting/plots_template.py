"""What ``dvc plots`` needs to draw our curves offline: a page with Vega inside, and a chart template.

DVC fills ``{plot_divs}``, ``{scripts}`` and ``{refresh_tag}`` of an HTML template by plain text
replacement, so braces of the JavaScript are safe as long as it holds none of these words. The template
leaves ``{scripts}`` out: that is where DVC would put the links to the CDN.

Into a workspace (``plots.html_template`` is relative to ``.dvc``)::

    .dvc/plots/offline.html   offline_template()      dvc config plots.html_template plots/offline.html
    .dvc/plots/series.json    series_template()       template: series   (in dvc.yaml)
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

# order matters: each one builds on those before it
LIBRARIES = ("vega", "vega-lite", "vega-embed")
LICENCES = ("LICENSE-vega", "LICENSE-vega-lite", "LICENSE-vega-embed", "LICENSE-bundled")
# Okabe and Ito's palette without yellow, which is too faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>coefvq plots</title>
<style>
body {{ font-family: sans-serif; margin: 24px; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 12px; }}
.plots img {{ max-width: 900px; }}
</style>
{inline}
</head>
<body>
<div class="plots">
{plot_divs}
</div>
</body>
</html>
"""


def offline_template() -> str:
    """HTML template for ``plots.html_template``; it requests nothing from anywhere."""
    scripts = [_script(_vendored(f"{name}.min.js"), f'data-library="{name}"') for name in LIBRARIES]
    texts = "\n\n".join(_vendored(f"{name}.txt") for name in LICENCES)
    notices = _script(texts, 'type="text/plain" data-library="licences"')
    return PAGE.format(refresh_tag="{refresh_tag}", plot_divs="{plot_divs}", inline="\n".join([notices, *scripts]))


def series_template() -> dict[str, Any]:
    """Vega-Lite template for rows with ``series`` and ``mark``: one colour per series, dashes per revision.

    Rows whose ``mark`` is "point" become large symbols (policies) instead of joining a line.
    """
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": "<DVC_METRIC_DATA>"},
        "title": "<DVC_METRIC_TITLE>",
        "width": 420,
        "height": 320,
        "encoding": {
            "x": {"field": "<DVC_METRIC_X>", "type": "quantitative", "title": "<DVC_METRIC_X_LABEL>"},
            "y": {"field": "<DVC_METRIC_Y>", "type": "quantitative", "title": "<DVC_METRIC_Y_LABEL>"},
            "color": {
                "field": "series",
                "type": "nominal",
                "sort": None,
                "scale": {"range": list(COLOURS)},
            },
        },
        "layer": [
            {
                "transform": [{"filter": "datum.mark === 'line'"}],
                "mark": {"type": "line", "strokeWidth": 2, "tooltip": {"content": "data"}},
                # rows are joined as they stand: sorting by x would scramble the steps of a PR curve
                "encoding": {"order": {"value": None}, "strokeDash": {"field": "rev", "type": "nominal"}},
            },
            {
                "transform": [{"filter": "datum.mark === 'point'"}],
                "mark": {"type": "point", "filled": True, "size": 120, "tooltip": {"content": "data"}},
            },
        ],
    }


def _script(text: str, attributes: str) -> str:
    return f"<script {attributes}>\n{text}\n</script>"


def _vendored(name: str) -> str:
    text = (files("coefvq") / "vendor" / "vega" / name).read_text(encoding="utf-8")
    # a debugger would go and look for the source map
    return "\n".join(line for line in text.splitlines() if not line.startswith("//# sourceMappingURL="))
