"""What is asked of the manifest, as plain data: read and tested without any engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Validate
from coefvq.records import MANIFEST_COLUMNS, REASONS, SPLITS, label_column, posterior_column

#: shortest and longest clip in seconds; outside of it a probe has most likely misread the container
DURATION_S = (0.05, 3600.0)
#: widest range of sane container facts of a decodable clip
_SANE = {"fps": (0.1, 1000.0), "width": (2, 16_384), "height": (2, 16_384), "size_bytes": (1, 2**40)}

NOT_NULL = "ExpectColumnValuesToNotBeNull"
UNIQUE = "ExpectColumnValuesToBeUnique"
IN_SET = "ExpectColumnValuesToBeInSet"
BETWEEN = "ExpectColumnValuesToBeBetween"
LENGTHS = "ExpectColumnValueLengthsToBeBetween"
MATCHES = "ExpectColumnValuesToMatchRegex"
#: not one of the library's: expectations._existing_files
FILES = "files"

# how a column's type is named to a person, and what pandas may call it
_TYPES = {
    "text": ("str", "string", "object"),
    "whole number": ("int8", "int16", "int32", "int64"),
    "number": ("float64", "float32", "int64"),
    "yes or no": ("bool", "boolean"),
    "list": ("object",),
}
_COLUMN_TYPES = {
    **dict.fromkeys(("video_id", "uri", "sha256", "title", "published_at", "creator_id", "source_id"), "text"),
    **dict.fromkeys(("split", "reason", "phash", "hdr"), "text"),
    **dict.fromkeys(("views", "size_bytes", "width", "height"), "whole number"),
    **dict.fromkeys(("weight", "duration_s", "fps"), "number"),
    **dict.fromkeys(("decode_ok", "has_audio", "audio_ok"), "yes or no"),
    "stickers": "list",
}


@dataclass(frozen=True)
class Rule:
    """One question to the manifest.

    ``expectation`` is the class name in ``great_expectations.expectations`` (or ``files``, our own);
    ``decoded_only`` asks it of rows with ``decode_ok`` alone; ``observed`` is set where counts say more
    than the engine's own answer.
    """

    name: str
    column: str | None
    expected: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    decoded_only: bool = False
    observed: str | None = None

    def needs(self) -> set[str]:
        """Columns without which the question cannot be asked."""
        return ({self.column} if self.column else set()) | ({"decode_ok"} if self.decoded_only else set())


def manifest_rules(manifest: pd.DataFrame, media_root: Path, params: Validate, issues: Sequence[str]) -> list[Rule]:
    """Every rule, structure first: ``first_error`` names the earliest that fails."""
    return [
        *_table_rules(params, issues),
        *_identity_rules(media_root),
        *_media_rules(manifest, params),
        *_fact_rules(manifest),
        *_number_rules(),
        *(rule for issue in issues for rule in _label_rules(manifest, issue, params)),
        *_posterior_rules(manifest, issues),
    ]


def _table_rules(params: Validate, issues: Sequence[str]) -> list[Rule]:
    labels = [label_column(issue) for issue in issues]
    named = f"the manifest's {len(MANIFEST_COLUMNS)} columns and {', '.join(labels)}"
    columns = {"column_set": [*MANIFEST_COLUMNS, *labels], "exact_match": False}
    rows = {"min_value": params.min_rows}
    return [
        Rule("columns", None, named, "ExpectTableColumnsToMatchSet", columns),
        Rule("rows", None, f"at least {params.min_rows} rows", "ExpectTableRowCountToBeBetween", rows),
    ]


def _identity_rules(media_root: Path) -> list[Rule]:
    # rows ingest could not decode, missing files among them, count against the decodable share instead
    files = f"a file below {media_root.as_posix()} for every decodable clip"
    return [
        Rule("video_id_present", "video_id", "a value in every row", NOT_NULL),
        Rule("video_id_unique", "video_id", "no value twice", UNIQUE),
        Rule("uri_present", "uri", "a value in every row", NOT_NULL),
        Rule("uri_unique", "uri", "no value twice", UNIQUE),
        Rule("files", "uri", files, FILES, {"media_root": str(media_root)}, decoded_only=True),
    ]


def _media_rules(manifest: pd.DataFrame, params: Validate) -> list[Rule]:
    low, high = DURATION_S
    share = {"value_set": [True], "mostly": params.min_decodable}
    decodable = f"at least {params.min_decodable:.4g} of all clips decodable"
    duration = f"{low:g} to {high:g} s for every decodable clip"
    seconds = {"min_value": low, "max_value": high}
    title = f"at most {params.max_title_chars} characters"
    length = {"max_value": params.max_title_chars}
    known = "a duration for every decodable clip"
    return [
        Rule("decode_ok_present", "decode_ok", "a value in every row", NOT_NULL),
        Rule("decodable", "decode_ok", decodable, IN_SET, share, observed=_reasons(manifest)),
        Rule("duration_present", "duration_s", known, NOT_NULL, decoded_only=True),
        Rule("duration", "duration_s", duration, BETWEEN, seconds, decoded_only=True),
        Rule("title_length", "title", title, "ExpectColumnValueLengthsToBeBetween", length),
    ]


def _fact_rules(manifest: pd.DataFrame) -> list[Rule]:
    ranges = [
        Rule("sane", name, f"{low:g} to {high:g}", BETWEEN, {"min_value": low, "max_value": high}, decoded_only=True)
        for name, (low, high) in _SANE.items()
    ]
    digest = "64 hexadecimal digits for every decodable clip"
    dated = r"^\d{4}-\d\d-\d\d"
    return [
        Rule("sha256", "sha256", digest, MATCHES, {"regex": "^[0-9a-f]{64}$"}, decoded_only=True),
        Rule("reason", "reason", f"one of {', '.join(REASONS)}", IN_SET, {"value_set": list(REASONS)}),
        *ranges,
        *(
            [Rule("published", "published_at", "a date, or empty", MATCHES, {"regex": dated})]
            * _any(manifest, "published_at")
        ),
        *(
            [Rule("split", "split", f"one of {', '.join(SPLITS)}, or empty", IN_SET, {"value_set": list(SPLITS)})]
            * _any(manifest, "split")
        ),
    ]


def _any(manifest: pd.DataFrame, column: str) -> bool:
    """Whether a column holds anything: of an empty one nothing can be asked."""
    return column in manifest and bool(manifest[column].notna().any())


def _number_rules() -> list[Rule]:
    finite = {"min_value": 0, "strict_min": True, "max_value": sys.float_info.max}
    return [
        Rule("views", "views", "0 or more, or empty", BETWEEN, {"min_value": 0}),
        Rule("weight_present", "weight", "a value in every row", NOT_NULL),
        Rule("weight", "weight", "above 0 and finite", BETWEEN, finite),
    ]


def _label_rules(manifest: pd.DataFrame, issue: str, params: Validate) -> list[Rule]:
    column, classes = label_column(issue), {"value_set": [0, 1]}
    low, high = params.prevalence[issue]
    share = f"{low:g} to {high:g} of the labelled videos positive"
    both, contain = "labelled videos of both classes", "ExpectColumnDistinctValuesToContainSet"
    bounds = {"min_value": low, "max_value": high}
    return [
        Rule("label_values", column, "0, 1 or empty", IN_SET, classes),
        Rule("label_classes", column, both, contain, classes, observed=_label_counts(manifest, column)),
        Rule("prevalence", column, share, "ExpectColumnMeanToBeBetween", bounds),
    ]


def _posterior_rules(manifest: pd.DataFrame, issues: Sequence[str]) -> list[Rule]:
    columns = [posterior_column(issue) for issue in issues if posterior_column(issue) in manifest]
    bounds = {"min_value": 0, "max_value": 1}
    return [Rule("posterior", column, "0 to 1, or empty", BETWEEN, bounds) for column in columns]


def type_table(manifest: pd.DataFrame, issues: Sequence[str]) -> pd.DataFrame:
    """One row per column: its name as ``video_id``, and whether its type fits."""
    wanted = {**_COLUMN_TYPES, **dict.fromkeys(map(label_column, issues), "whole number")}
    present = [name for name in wanted if name in manifest]
    fits = [str(manifest[name].dtype).lower() in _TYPES[wanted[name]] for name in present]
    shown = [f"{name} is {manifest[name].dtype}, not {wanted[name]}" for name in present]
    return pd.DataFrame({"video_id": shown, "fits": fits})


def drift_table(found: Mapping[str, float]) -> pd.DataFrame:
    """One row per column: its name and PSI as ``video_id``, and the PSI."""
    return pd.DataFrame({"video_id": [f"{k} ({v:.2f})" for k, v in found.items()], "psi": list(found.values())})


def type_rules() -> list[Rule]:
    """Asked of ``type_table``."""
    return [Rule("types", "fits", "every column of its type", IN_SET, {"value_set": [True]})]


def drift_rules(max_psi: float) -> list[Rule]:
    """Asked of ``drift_table``."""
    expected = f"a PSI of at most {max_psi:g} against the champion's training data"
    return [Rule("drift", "psi", expected, BETWEEN, {"max_value": max_psi})]


def _label_counts(manifest: pd.DataFrame, column: str) -> str | None:
    if column not in manifest:
        return None
    labels = manifest[column]
    positive, negative, empty = int(labels.eq(1).sum()), int(labels.eq(0).sum()), int(labels.isna().sum())
    return f"{positive} positive, {negative} negative, {empty} unlabelled"


def _reasons(manifest: pd.DataFrame) -> str | None:
    """How many clips were decodable and why the others were not."""
    if not {"decode_ok", "reason"} <= set(manifest.columns):
        return None
    decoded = manifest["decode_ok"].eq(True).fillna(False).astype(bool)
    reasons = manifest.loc[~decoded, "reason"].astype("str").value_counts().sort_index()
    found = "".join(f", {count} {reason}" for reason, count in reasons.items())
    return f"{int(decoded.sum())} of {len(manifest)} decodable{found}"
