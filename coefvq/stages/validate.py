"""manifest.parquet -> validation.json/.md/.html; fails when an expectation does."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from coefvq.data.locations import media_root
from coefvq.data.manifest import empty_columns, read_table
from coefvq.data.validation.expectations import validate_manifest
from coefvq.data.validation.profile import check_profile
from coefvq.data.validation.report import first_error
from coefvq.errors import ValidationFailedError
from coefvq.files import read_json
from coefvq.stages.common import write_validation
from coefvq.stages.inputs import ValidateInputs
from coefvq.terminal import say

# only their types are asked for, and they are a third of a kilobyte per video
_TYPE_ALONE = ("phash", "creator_id", "source_id")


def run(inputs: ValidateInputs) -> None:
    """Run the suite and write its reports, then fail if it failed: the reports say why."""
    reports = Path(inputs.paths.reports)
    manifest = _manifest(Path(inputs.paths.manifest))
    reference = check_profile(read_json(Path(inputs.paths.reference)), inputs.paths.reference)
    result = validate_manifest(
        manifest, media_root(inputs.paths), inputs.expected, inputs.issues, reports / "data_docs", reference
    )
    write_validation(result, reports, "validation", "Manifest validation")
    if not result.success:
        raise ValidationFailedError(f"{first_error(result)} (all findings: {reports / 'validation.html'})")
    drift = f"drift at most {max(result.drift.values()):.2f}" if result.drift else "no champion to compare with yet"
    say(f"validation passed: {len(result.checks)} expectations on {len(manifest)} videos; {drift}")


def _manifest(path: Path) -> pd.DataFrame:
    """The manifest; columns that only their type is asked of are empty."""
    rows = read_table(path, skip=_TYPE_ALONE)
    return rows.assign(**empty_columns(path, _TYPE_ALONE, len(rows)))
