"""manifest.parquet -> validation.json/.md/.html; fails when an expectation does."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from coefvq.data.locations import media_root
from coefvq.data.manifest import column_names, read_table
from coefvq.data.validation.expectations import validate_manifest
from coefvq.data.validation.profile import check_profile
from coefvq.data.validation.report import first_error
from coefvq.errors import ValidationFailedError
from coefvq.files import read_json
from coefvq.stages.common import write_validation
from coefvq.stages.inputs import ValidateInputs
from coefvq.terminal import say

# a quarter of a kilobyte per video
_HASHES = "phash"


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
    """The manifest with an empty column of the hashes' type: nothing is asked of a hash but that."""
    rows = read_table(path, skip={_HASHES})
    typed = read_table(path, skip=column_names(path) - {"video_id", _HASHES}, video_ids=())
    return rows.assign(**{name: typed[name].reindex(rows.index) for name in {_HASHES} & {*typed}})
