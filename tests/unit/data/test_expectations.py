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
from coefvq.data.validation import expectations
from coefvq.data.validation.expectations import validate_manifest, validate_splits
from coefvq.data.validation.manifest_rules import drift_rules, manifest_rules, type_rules
from coefvq.data.validation.presence import files_exist
from coefvq.data.validation.profile import profile
from coefvq.data.validation.report import COMPLAINTS, ValidationResult, first_error
from coefvq.data.validation.split_rules import prevalence_rules, split_rules
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
    assert len(set(asked)) == len(asked) == 12 + 4 + 6 + 7, (
        "structure and media, numbers and posterior, three per issue, facts and types"
    )
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
    ("sha256", "sha256", put("sha256", {3: "", 39: ""}), ("v003",)),
    ("reason", "reason", put("reason", {3: "bored"}), ("v003",)),
    ("sane", "fps", put("fps", {3: 0.0, 4: 1001.0}), ("v003", "v004")),
    ("sane", "width", put("width", {3: 0}), ("v003",)),
    ("sane", "height", put("height", {3: 20_000}), ("v003",)),
    ("sane", "size_bytes", put("size_bytes", {3: 0}), ("v003",)),
    ("published", "published_at", put("published_at", {3: "yesterday", 4: "2026-01-02T00:00:00Z"}), ("v003",)),
    ("split", "split", put("split", {3: "holdout", 4: "test"}), ("v003",)),
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


def test_no_value_is_hashed_and_no_row_gets_into_the_results(
    manifest: pd.DataFrame, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expectations._great_expectations()
    monkeypatch.setattr("great_expectations.execution_engine.pandas_execution_engine.hash_pandas_dataframe", None)
    manifest.loc[7, "duration_s"] = 9000.0
    failed = validate(manifest, media, tmp_path).failures
    assert [(check.name, check.failing_ids) for check in failed] == [("duration", ("v007",))]
    page = next(tmp_path.rglob("validations/**/*.html")).read_text()
    assert "clips/3.mp4" not in page


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
    types = result.failures[-1]
    assert types.name == "types"
    assert types.failing_ids == ("views is str, not whole number", "label_icd is str, not whole number")
    failed = {(check.name, check.column): check for check in result.failures}
    assert set(failed) == {
        ("views", "views"),
        ("types", "fits"),
        *((name, "label_icd") for name in ("label_values", "label_classes", "prevalence")),
    }
    assert failed["views", "views"].observed.startswith("values of an unfit type (")
    assert failed["label_values", "label_icd"].n_failing == 40


def test_urls_count_as_present_and_paths_must_stay_below_the_root(media: Path) -> None:
    uris = ["clips/1.mp4", "s3://bucket/1.mp4", "clips/x.mp4", "../outside.mp4", "clips/../../outside.mp4"]
    assert list(files_exist(uris, media)) == [True, True, False, False, False]
    assert list(files_exist([str(media / "clips/1.mp4"), "", "clips", "\0"], media)) == [False] * 4


def test_every_rule_has_a_remedy_and_every_remedy_a_rule(manifest: pd.DataFrame, media: Path) -> None:
    full = manifest.assign(published_at="2026-01-02", split="test")
    rules = manifest_rules(full, media, PARAMS, ISSUES)
    others = [*type_rules(), *drift_rules(0.2), *split_rules(["source_id"]), *prevalence_rules(PARAMS, ISSUES)]
    assert {rule.name for rule in [*rules, *others]} == set(COMPLAINTS)
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
        "import coefvq.data.validation.expectations, coefvq.data.validation.report\n"
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


def test_symlinks_must_lead_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "clips").mkdir(parents=True)
    (root / "clips/a.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (root / "in.mp4").symlink_to(root / "clips/a.mp4")
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "away").symlink_to(tmp_path)
    uris = ["clips/a.mp4", "in.mp4", "out.mp4", "away/secret.mp4", "gone/a.mp4"]
    assert files_exist(uris, root).tolist() == [True, True, False, False, False]


def test_drift_names_the_columns_and_is_not_asked_without_a_champion(manifest: pd.DataFrame, media: Path) -> None:
    params = PARAMS.model_copy(update={"max_psi": 0.25})
    reference = profile(manifest.assign(duration_s=30.0), ISSUES)
    result = validate_manifest(manifest, media, params, ISSUES, None, reference)
    assert [check.name for check in result.failures] == ["drift"]
    assert result.failures[0].failing_ids[0].startswith("duration_s (")
    assert "raise validate.max_psi" in first_error(result)
    assert result.drift["duration_s"] > 0.25
    for nothing in (None, {}):
        asked = validate_manifest(manifest, media, params, ISSUES, None, nothing)
        assert asked.success
        assert asked.drift == {}


def placed(manifest: pd.DataFrame) -> pd.DataFrame:
    names = ["train"] * 16 + ["val"] * 8 + ["test"] * 8 + ["traffic"] * 8
    return manifest.assign(split=names, source_id=[f"s{row // 2}" for row in range(40)])


def test_good_splits_pass(manifest: pd.DataFrame) -> None:
    assert validate_splits(placed(manifest), PARAMS, ISSUES, ["source_id", "sha256"]).success


def test_a_value_in_two_splits_is_named_with_its_videos(manifest: pd.DataFrame) -> None:
    rows = placed(manifest)
    rows.loc[15, "split"] = "val"
    result = validate_splits(rows, PARAMS, ISSUES, ["source_id", "sha256"])
    assert [(check.name, check.column) for check in result.failures] == [("leak", "splits_of_source_id")]
    assert result.failures[0].failing_ids == ("v014", "v015")
    assert validate_splits(rows, PARAMS, ISSUES, ["source_id"], excused={"v014", "v015"}).success


def test_an_empty_split_and_a_prevalence_outside_its_range_are_named(manifest: pd.DataFrame) -> None:
    rows = placed(manifest)
    rows = rows[rows["split"] != "traffic"]
    rows.loc[rows["split"] == "val", "label_icd"] = 0
    failures = validate_splits(rows, PARAMS, ISSUES, ["source_id"]).failures
    assert [(check.name, check.failing_ids) for check in failures] == [
        ("split_rows", ("traffic",)),
        ("split_prevalence", ("val",)),
    ]


def test_prevalence_is_weighted(manifest: pd.DataFrame) -> None:
    rows = placed(manifest)
    # thinned negatives carry four times the weight: 50 % of the rows, 20 % of the videos they stand for
    rows["label_icd"] = pd.array([1, 0] * 20, dtype="Int8")
    rows["weight"] = [1.0, 4.0] * 20
    narrow = PARAMS.model_copy(update={"prevalence": {"icd": (0.19, 0.21), "ucc": (0.0, 1.0)}})
    assert validate_splits(rows, narrow, ISSUES, ["source_id"]).success
