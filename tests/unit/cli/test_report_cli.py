"""``coefvq report`` on the files of a pipeline, and the pictures of clips."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from coefvq.__main__ import app
from coefvq.data.manifest import write_table
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.media.thumbnails import MAX_BYTES, thumbnails
from coefvq.files import write_json
from tests.unit.report_world import inputs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    given = inputs()
    root = tmp_path_factory.mktemp("workspace")
    for name in ("params.yaml", "recipe.yaml"):
        shutil.copy(repository / name, root)
    reports = root / "reports" / "icd"
    write_table(given.scores, reports / "scores.parquet")
    write_table(given.manifest, root / "data" / "manifest.parquet")
    write_json(reports / "evaluation.json", given.evaluation)
    write_json(reports / "thresholds.json", given.thresholds)
    write_json(reports / "stability.json", {"n": 100, "flip_rate": 0.05, "on_threshold": 0, "variants": [{}] * 6})
    return root


@pytest.fixture
def command(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    return lambda *argv: CliRunner().invoke(app, list(argv))


def test_report_without_a_registry(command, workspace: Path, tmp_path: Path) -> None:
    done = command("report", "--issue", "icd", "--no-registry", "--no-thumbnails", "--pictures", str(tmp_path))
    assert done.exit_code == 0, done.output
    text = (workspace / "reports" / "icd" / "report.html").read_text(encoding="utf-8")
    assert "not held against a gate yet" in text
    assert "Decisions are not stable: 5.00 %" in text
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png"}


def test_one_file_for_two_issues_is_refused(command, tmp_path: Path) -> None:
    done = command("report", "--no-registry", "--out", str(tmp_path / "x.html"))
    assert "--out" in str(done.exception)
    assert "add --issue NAME" in str(done.exception)


def test_audit_reads_the_workspace(command, workspace: Path) -> None:
    done = command("cascade", "audit", "--issue", "icd", "--json")
    assert done.exit_code == 0, done.output
    assert {finding["verdict"] for finding in json.loads(done.stdout)} == {"holds", "not asked"}
    path = workspace / "reports" / "icd" / "thresholds.json"
    kept = path.read_text()
    changed = json.loads(kept)
    changed["policies"][0]["test"]["r_at_p60"] = 1.0
    write_json(path, changed)
    try:
        done = command("cascade", "audit", "--issue", "icd")
        assert "first: ceiling, icd P_base 30 test" in str(done.exception)
    finally:
        path.write_text(kept)


def test_thumbnails_are_small_jpegs(clips: Path, tmp_path: Path) -> None:
    good = next((clips / "videos").glob("*.mp4"))
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    found = thumbnails({"good": good, "bad": bad, "gone": tmp_path / "gone.mp4"}, DEFAULT_LIMITS)
    assert list(found) == ["good"]
    assert len(found["good"]) <= MAX_BYTES
    image = Image.open(io.BytesIO(found["good"]))
    assert image.format == "JPEG"
    assert max(image.size) == 224
