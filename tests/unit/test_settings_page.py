"""docs/settings.md says what coefvq/config checks."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_page_of_settings_is_up_to_date(repository: Path) -> None:
    module = runpy.run_path(str(repository / "docs" / "settings.py"))
    text = (repository / "docs" / "settings.md").read_text(encoding="utf-8")
    assert text == module["page"](), "docs/settings.md is out of date; run: make docs"


def test_a_comment_belongs_to_its_key(repository: Path) -> None:
    module = runpy.run_path(str(repository / "docs" / "settings.py"))
    texts = module["comments"]("params.yaml")
    assert texts["ingest.limits.megapixels"] == "of one frame; 8K is 33"
    assert texts["validate.max_psi"].startswith("drift of a column")
    assert "paths" not in texts
