"""The report in a real browser: no console error, no external request, nothing wider than the window."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.reporting.html import build
from tests.integration.chromium import BINARY, chromium, visit
from tests.unit.report_world import inputs

pytestmark = pytest.mark.skipif(BINARY is None, reason="no chromium binary on the PATH; apt-get install chromium")

MEASURES = {
    "page": "document.documentElement.scrollWidth",
    # what sticks out on the right, whether it scrolls or is cut off
    "outside": """[...document.querySelectorAll('body *')].filter(e => e.getClientRects().length
        && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.tagName)""",
    "smallest": """Math.min(...[...document.querySelectorAll('p,td,th,dd,li')]
        .map(e => parseFloat(getComputedStyle(e).fontSize)))""",
    "charts": "document.querySelectorAll('svg').length",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build(inputs()), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_quiet_and_fits(browser, page, width):
    seen = visit(browser, page, width, MEASURES)
    assert seen.errors == []
    assert seen.external == []
    assert seen.values["page"] <= width
    assert seen.values["outside"] == []
    assert seen.values["smallest"] >= 12
    assert seen.values["charts"] == 5


def test_the_check_sees_what_it_looks_for(browser, tmp_path):
    """A page that errs, asks for another host and is too wide."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><script>console.error('no')</script>"
        "<img src='http://127.0.0.1:9/x.png'><div style='width:600px;height:9px'></div>"
    )
    seen = visit(browser, bad, 390, MEASURES)
    assert any("no" in error for error in seen.errors)
    assert seen.external == ["http://127.0.0.1:9/x.png"]
    assert seen.values["outside"]


def test_the_policy_of_the_page_blocks_what_slips_in(browser, page, tmp_path):
    """Were a script or an outside picture to get into the page, its own policy would stop both."""
    slipped = tmp_path / "slipped.html"
    text = page.read_text(encoding="utf-8")
    slipped.write_text(
        text.replace("</main>", "<img src='http://127.0.0.1:9/x.png'><script>window.ran = 1</script></main>")
    )
    seen = visit(browser, slipped, 1280, {"ran": "window.ran === 1"})
    assert seen.values["ran"] is False
    assert seen.blocked == seen.external == ["http://127.0.0.1:9/x.png"]
    assert len(seen.errors) == 2
