"""The pages of README.md, CONTRIBUTING.md and docs: how long they are, and where their links lead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from coefvq.experiments.pages import BEGIN, END

#: written by a program, so nobody has to read it from end to end
GENERATED = "settings.md"


def words(page: Path) -> int:
    """Words as ``wc -w`` counts them: runs without a space, cells of tables and code included.

    What `coefvq tables --write` put between its two marks is generated.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2] if begin else ""
    return len(before.split()) + len(after.split())


def test_pages_are_short(repository: Path) -> None:
    pages = [repository / "README.md", *(page for page in (repository / "docs").glob("*.md") if page.name != GENERATED)]
    counts = {page.name: words(page) for page in pages}
    assert {name: count for name, count in counts.items() if count > 2500} == {}
    assert sum(counts.values()) <= 22_000, counts


def headings(text: str) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page: Path) -> Iterator[str]:
    """Links of a page to a file or heading that does not exist."""
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in headings(path.read_text(encoding="utf-8"))):
            yield target


@pytest.mark.parametrize("pattern", ["*.md", "docs/*.md", "docs/adr/*.md", "examples/**/*.md"])
def test_links_lead_somewhere(pattern: str, repository: Path) -> None:
    pages = list(repository.glob(pattern))
    assert pages
    assert {str(page.relative_to(repository)): found for page in pages if (found := list(broken(page)))} == {}
