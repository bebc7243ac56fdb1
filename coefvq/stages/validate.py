"""manifest.parquet -> validation.json/.md/.html; fails when an expectation does."""

from __future__ import annotations

from pathlib import Path

from coefvq.config import Params
from coefvq.data.expectations import validate_manifest
from coefvq.data.manifest import read_table
from coefvq.data.validation_report import first_error, to_html, to_json, to_markdown
from coefvq.errors import ValidationFailedError
from coefvq.files import write_json, write_text
from coefvq.stages.common import media_root, say


def run(params: Params) -> None:
    """Run the suite and write its reports, then fail if it failed: the reports say why."""
    reports = Path(params.paths.reports)
    manifest = read_table(Path(params.paths.manifest))
    result = validate_manifest(
        manifest, media_root(params), params.validate_, params.issues, docs_dir=reports / "data_docs"
    )
    write_text(reports / "validation.md", to_markdown(result))
    write_text(reports / "validation.html", to_html(result))
    write_json(reports / "validation.json", to_json(result))
    if not result.success:
        raise ValidationFailedError(f"{first_error(result)} (all findings: {reports / 'validation.html'})")
    say(f"validation passed: {len(result.checks)} expectations on {len(manifest)} videos")
