"""The manifest's rules, run through the real engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coefvq.config import Validate
from coefvq.data import expectations
from coefvq.data.expectations import files_exist, manifest_rules, validate_manifest
from coefvq.data.validation_report import COMPLAINTS, ValidationResult, first_error
from coefvq.records import MANIFEST_COLUMNS

PARAMS = Validate(
    min_rows=20, min_decodable=0.9, max_title_chars=30, prevalence={"icd": (0.2, 0.6), "ucc": (0.0, 1.0)}, max_psi=None
)
ISSUES = ("icd", "ucc")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    (root / "clips").mkdir()
    for number in range(40):
        (root / f"clips/{number}.mp4").write_bytes(b"x")
    (root.parent / "outside.mp4").write_bytes(b"x")
    return root


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Forty good rows; two cannot be decoded, two are unlabelled for icd, views are partly unknown."""
    rows = pd.Series(range(40))
    frame = pd.DataFrame(
        {
            "video_id": rows.map("v{:03d}".format),
            "uri": rows.map("clips/{}.mp4".format),
            "sha256": rows.map("{:064x}".format),
            "title": "a title",
            "stickers": [["sale"]] * 40,
            "published_at": pd.array([None] * 40, dtype="str"),
            "creator_id": pd.array([None] * 40, dtype="str"),
            "source_id": "s",
            "views": pd.array([None, 5] * 20, dtype="Int64"),
            "weight": 1.0,
            "split": None,
            "size_bytes": 1000,
            "phash": "",
            "decode_ok": rows < 38,
            "reason": ["ok"] * 38 + ["undecodable", "missing"],
            "duration_s": [2.0] * 38 + [np.nan] * 2,
            "fps": 25.0,
            "width": pd.array([64] * 40, dtype="Int64"),
            "height": pd.array([64] * 40, dtype="Int64"),
            "has_audio": True,
            "label_icd": pd.array([1, 0, 0, 0] * 9 + [1, 0, None, None], dtype="Int8"),
            "label_ucc": pd.array([0, 1] * 20, dtype="Int8"),
            "posterior_icd": 0.5,
        }
    )
    frame.loc[39, "uri"] = "clips/gone.mp4"
    return frame


def validate(manifest: pd.DataFrame, media: Path, docs: Path | None = None) -> ValidationResult:
    return validate_manifest(manifest, media, PARAMS, ISSUES, docs)


def put(column: str, values: dict[int, Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        for row, value in values.items():
            frame.loc[row, column] = value
        return frame

    return change


def test_a_good_manifest_passes_every_rule(manifest: pd.DataFrame, media: Path, capfd: Any) -> None:
    before = manifest.copy()
    result = validate(manifest.set_index(manifest.index + 100), media)
    assert result.success
    assert result.failures == ()
    asked = [(check.name, check.column) for check in result.checks]
    assert len(set(asked)) == len(asked) == 12 + 4 + 6, "structure and media, numbers and posterior, three per issue"
    pd.testing.assert_frame_equal(manifest, before)
    assert capfd.readouterr() == ("", "")
    assert all(type(value) in (str, bool, int, tuple, type(None)) for c in result.checks for value in astuple(c))
    decodable = next(check for check in result.checks if check.name == "decodable")
    assert decodable.failing_ids == ("v038", "v039"), "tolerated, and still named"
    assert decodable.observed == "38 of 40 decodable, 1 missing, 1 undecodable"


BROKEN: list[tuple[str, str | None, Callable[[pd.DataFrame], pd.DataFrame], tuple[str, ...]]] = [
    ("rows", None, lambda frame: frame.iloc[:19], ()),
    ("video_id_present", "video_id", put("video_id", {3: None}), ("row 3",)),
    ("video_id_unique", "video_id", put("video_id", {3: "v004"}), ("v004",)),
    ("uri_present", "uri", put("uri", {3: None}), ("v003",)),
    ("uri_unique", "uri", put("uri", {3: "clips/4.mp4"}), ("v003", "v004")),
    ("files", "uri", put("uri", {3: "clips/none.mp4", 5: "../outside.mp4", 6: "clips"}), ("v003", "v005", "v006")),
    (
        "decode_ok_present",
        "decode_ok",
        lambda f: put("decode_ok", {3: None})(f.astype({"decode_ok": "boolean"})),
        ("v003",),
    ),
    (
        "decodable",
        "decode_ok",
        put("decode_ok", {0: False, 1: False, 2: False}),
        ("v000", "v001", "v002", "v038", "v039"),
    ),
    ("duration_present", "duration_s", put("duration_s", {3: np.nan}), ("v003",)),
    ("duration", "duration_s", put("duration_s", {3: 0.04, 4: 3601.0, 5: 0.05, 6: 3600.0}), ("v003", "v004")),
    ("title_length", "title", put("title", {3: "x" * 31, 4: "x" * 30}), ("v003",)),
    ("views", "views", put("views", {3: -1, 4: 0}), ("v003",)),
    ("weight_present", "weight", put("weight", {3: np.nan}), ("v003",)),
    ("weight", "weight", put("weight", {3: 0.0, 4: -1.0, 5: np.inf, 6: 0.1}), ("v003", "v004", "v005")),
    ("label_values", "label_icd", put("label_icd", {3: 2, 5: -1}), ("v003", "v005")),
    ("label_values", "label_ucc", put("label_ucc", {7: 3}), ("v007",)),
    ("label_classes", "label_ucc", lambda frame: frame.assign(label_ucc=pd.array([0] * 40, dtype="Int8")), ()),
    ("prevalence", "label_icd", put("label_icd", dict.fromkeys(range(30), 1)), ()),
    ("prevalence", "label_icd", put("label_icd", dict.fromkeys(range(30), 0)), ()),
    ("posterior", "posterior_icd", put("posterior_icd", {3: 1.01, 4: -0.01, 5: 1.0, 6: np.nan}), ("v003", "v004")),
]


@pytest.mark.parametrize(("name", "column", "damage", "ids"), BROKEN, ids=[f"{row[0]}-{row[1]}" for row in BROKEN])
def test_each_rule_catches_what_it_is_for_and_nothing_else_fails(
    manifest: pd.DataFrame, media: Path, name: str, column: str | None, damage: Any, ids: tuple[str, ...]
) -> None:
    result = validate(damage(manifest), media)
    assert not result.success
    assert [(check.name, check.column) for check in result.failures] == [(name, column)]
    check = result.failures[0]
    assert check.failing_ids == ids
    assert check.n_failing == (2 if name == "video_id_unique" else len(ids))
    assert first_error(result)


def test_only_the_first_twenty_failing_videos_are_named(manifest: pd.DataFrame, media: Path) -> None:
    result = validate(manifest.assign(weight=0.0), media)
    check = result.failures[0]
    assert check.n_failing == 40
    assert check.failing_ids == tuple(f"v{row:03d}" for row in range(20))
    assert check.observed == "fails in 40 of 40 rows, e.g. '0.0'"


@pytest.mark.parametrize("column", ["video_id", "decode_ok", "label_icd", "stickers"])
def test_a_missing_column_fails_alone(manifest: pd.DataFrame, media: Path, column: str) -> None:
    result = validate(manifest.drop(columns=[column]), media)
    assert [(check.name, check.observed) for check in result.failures] == [("columns", f"{column} missing")]
    assert all(check.column != column for check in result.checks)


def test_an_issue_without_any_label(manifest: pd.DataFrame, media: Path) -> None:
    result = validate(manifest.assign(label_icd=pd.array([None] * 40, dtype="Int8")), media)
    assert [check.name for check in result.failures] == ["label_classes", "prevalence"]
    assert result.failures[0].observed == "0 positive, 0 negative, 40 unlabelled"


def test_an_empty_manifest_fails_without_an_exception(manifest: pd.DataFrame, media: Path) -> None:
    names = [check.name for check in validate(manifest.iloc[:0], media).failures]
    assert names[0] == "rows"
    assert set(names) == {"rows", "label_classes", "prevalence"}


def test_values_of_an_unfit_type_are_a_failed_check_not_a_crash(manifest: pd.DataFrame, media: Path) -> None:
    result = validate(manifest.assign(views="many", label_icd="yes"), media)
    failed = {(check.name, check.column): check for check in result.failures}
    assert set(failed) == {
        ("views", "views"),
        *((name, "label_icd") for name in ("label_values", "label_classes", "prevalence")),
    }
    assert failed["views", "views"].observed.startswith("values of an unfit type (")
    assert failed["label_values", "label_icd"].n_failing == 40


def test_urls_count_as_present_and_paths_must_stay_below_the_root(media: Path) -> None:
    uris = ["clips/1.mp4", "s3://bucket/1.mp4", "clips/x.mp4", "../outside.mp4", "clips/../../outside.mp4"]
    assert list(files_exist(uris, media)) == [True, True, False, False, False]
    assert list(files_exist([str(media / "clips/1.mp4"), "", "clips", "\0"], media)) == [False] * 4


def test_every_rule_has_a_remedy_and_every_remedy_a_rule(manifest: pd.DataFrame, media: Path) -> None:
    rules = manifest_rules(manifest, media, PARAMS, ISSUES)
    assert {rule.name for rule in rules} == set(COMPLAINTS)
    assert {rule.column for rule in rules} - {None} <= {*MANIFEST_COLUMNS, "label_icd", "label_ucc", "posterior_icd"}


def test_data_docs_are_written_escaped_and_only_where_asked(
    manifest: pd.DataFrame, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack = "<script>alert('title')</script> and more"
    validate(put("title", {3: attack})(manifest), media, Path("docs"))
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert (tmp_path / "docs/index.html").is_file()
    assert any("&lt;script&gt;alert" in page for page in pages)
    assert not any("<script>alert" in page for page in pages)
    validate(manifest, media)
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


def test_nothing_is_sent_anywhere(manifest: pd.DataFrame, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("validation tried to open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert validate(manifest, media).success


def test_the_engine_is_imported_on_use_only_and_its_telemetry_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, sys\n"
        "import coefvq.data.expectations, coefvq.data.validation_report\n"
        "print('great_expectations' in sys.modules, 'GX_ANALYTICS_ENABLED' in os.environ)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != "GX_ANALYTICS_ENABLED"}
    done = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=False)
    assert done.stdout == "False False\n", done.stderr
    monkeypatch.delenv("GX_ANALYTICS_ENABLED", raising=False)
    expectations._great_expectations()
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "true")
    expectations._great_expectations()
    assert os.environ["GX_ANALYTICS_ENABLED"] == "true", "whoever wants to send may"
