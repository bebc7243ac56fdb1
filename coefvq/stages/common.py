"""What several stages share: rows of a split, the validation files, the data a model was made from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from coefvq.config import Params
from coefvq.data.locations import media_root
from coefvq.data.manifest import read_table, to_inputs
from coefvq.data.validation.report import ValidationResult, to_html, to_json, to_markdown
from coefvq.errors import DataError
from coefvq.evaluation.detail import DetailSettings
from coefvq.files import sha256_file, write_json, write_text
from coefvq.records import MANIFEST_COLUMNS, VideoInput, label_column
from coefvq.redaction import redact_value
from coefvq.registry.bundle import DataRef


def data_ref(params: Params) -> DataRef:
    """Hashes of the manifest and the splits that a model was made from."""
    return DataRef(
        manifest_sha256=sha256_file(Path(params.paths.manifest)),
        splits_sha256=sha256_file(Path(params.paths.splits)),
        version=None,
    )


def write_validation(result: ValidationResult, folder: Path, name: str, title: str) -> None:
    """``<name>.json``, ``.md`` and ``.html`` of a validation."""
    write_text(folder / f"{name}.md", to_markdown(result, title))
    write_text(folder / f"{name}.html", to_html(result, title))
    write_json(folder / f"{name}.json", redact_value(to_json(result)))


def split_manifest(params: Params, thinned: bool = True) -> pd.DataFrame:
    """Manifest joined with each video's split and sampling weight; rows without a split are left out.

    So are those that enrichment drops, unless ``thinned`` is false: then all rows come with their own weight.
    """
    columns = ["video_id", "split", "weight"]
    manifest = read_table(Path(params.paths.manifest), MANIFEST_COLUMNS)
    splits = read_table(Path(params.paths.splits), columns)[columns]
    if not pd.api.types.is_numeric_dtype(splits["weight"]):
        raise DataError(f"{params.paths.splits}: column weight holds no numbers; run the stage split again")
    # the manifest's own column "split" is what the user asked for; the one that counts is in splits.parquet
    rows = manifest.drop(columns="split", errors="ignore").merge(
        splits.rename(columns={"weight": "_factor"}), on="video_id", how="inner", validate="one_to_one"
    )
    factor = rows.pop("_factor")
    if not thinned:
        return rows
    return rows.assign(weight=rows["weight"] * factor)[factor > 0].reset_index(drop=True)


def detail_settings(params: Params) -> DetailSettings:
    """Slices, bootstrap and targets of the evaluation."""
    return DetailSettings(
        precision_targets=params.evaluate.precision_targets,
        slices=params.evaluate.slices,
        bootstrap=params.evaluate.bootstrap,
        group_by=params.evaluate.group_by,
        seed=params.seed,
    )


def labelled(rows: pd.DataFrame, issue: str, split: str) -> pd.DataFrame:
    """Rows of one split that carry a label of ``issue``.

    Raises:
        DataError: there is none.
    """
    chosen = rows[(rows["split"] == split) & rows[label_column(issue)].notna()]
    if chosen.empty:
        raise DataError(f"split '{split}' has no row labelled for {issue}; label some or change split.fractions")
    return chosen.reset_index(drop=True)


def inputs_and_labels(rows: pd.DataFrame, params: Params, issue: str) -> tuple[list[VideoInput], list[int]]:
    """Model inputs and 0/1 labels of labelled rows, in order."""
    return to_inputs(rows, media_root(params.paths), params.ingest.protocols), [
        int(v) for v in rows[label_column(issue)]
    ]
