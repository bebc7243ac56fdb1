"""What `coefvq score` takes: files a person names, wherever they lie, and folders and tables with their rows."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from coefvq.cli.score import by_video, collect, csv_lines, results_table
from coefvq.errors import DataError
from coefvq.records import ScoredVideo


@pytest.mark.parametrize("name", ["12:30 fight.mp4", "http:x.mp4", "a%20b.MPG", ".hidden.mp4", "c.mts", "0a1b2c"])
def test_a_named_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x20ftypisom")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / name).symlink_to(f"../{name}")
    [video] = collect([Path(name)], "title", ("SALE",))
    # absolute, so that FFmpeg reads no protocol into the name
    assert (video.path, video.video_id, video.refusal) == (tmp_path / name, Path(name).stem, None)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.mp4", "none.mp4: no such file; check the path"),
        ("n" * 300 + ".mp4", "no such file"),
        ("n" * 300 + ".csv", "no such file"),
        ("pipe.mp4", "a folder, pipe, socket or device"),
        ("pipe.csv", "no such file"),
        ("e.wmv", "e.wmv: not an accepted container"),
        ("notes", "not an accepted container"),
        ("http://127.0.0.1:9/a.mp4", "to score what lies at an address, list it in a table"),
        ("S3://bucket/a.mp4", "list it in a table"),
    ],
)
def test_what_cannot_be_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    for pipe in ("pipe.mp4", "pipe.csv"):
        os.mkfifo(pipe)
    for text in ("e.wmv", "notes"):
        Path(text).write_text("nothing to see")
    with pytest.raises(DataError, match=words):
        collect([Path(name)], "", ())


def test_a_table_may_use_what_the_workspace_allows(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("file_name\nhttps://h/a.mp4\ns3://bucket/b.mp4\nc.mp4\n")
    (tmp_path / "c.mp4").touch()
    web, store, local = collect([table], "", (), ("https",))
    assert (web.url, web.refusal) == ("https://h/a.mp4", None)
    assert store.url is None
    assert store.refusal is not None
    assert "s3://bucket/b.mp4: ingest.protocols allows https" in store.refusal
    assert (local.path, local.refusal) == (tmp_path / "c.mp4", None)


def test_what_a_folder_holds_besides_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mp4", "e.wmv"):
        (tmp_path / name).touch()
    assert [video.video_id for video in collect([tmp_path], "", ())] == ["a"]
    assert capsys.readouterr().err == "1 file not taken: e.wmv (not an accepted container)\n"


def scored(video_id: str, issue: str, **fields: object) -> ScoredVideo:
    given = {"base_score": 0.5, "mllm_score": None, "positive": True, "decided_by": "base", "bundle_version": "1-ab"}
    return ScoredVideo(video_id=video_id, issue=issue, **{**given, **fields})


def test_rows_come_video_by_video_as_a_table_too() -> None:
    failed = {"base_score": None, "positive": None, "decided_by": "none", "error": 'b,"c": no such file'}
    by_issue = [scored("a", "icd"), scored("b", "icd", **failed), scored("a", "ucc"), scored("b", "ucc")]
    rows = by_video(by_issue, 2)
    assert [(row.video_id, row.issue) for row in rows] == [("a", "icd"), ("a", "ucc"), ("b", "icd"), ("b", "ucc")]
    header, first, _, third, _ = csv.reader(csv_lines(rows))
    assert dict(zip(header, first, strict=True))["mllm_score"] == ""
    assert dict(zip(header, third, strict=True))["error"] == 'b,"c": no such file'
    assert by_video([], 0) == []


def test_the_title_names_the_bundle_of_each_issue() -> None:
    table = results_table([scored("a", "icd"), scored("a", "ucc", bundle_version="2-cd")])
    assert str(table.title) == "icd: bundle 1-ab, ucc: bundle 2-cd"
