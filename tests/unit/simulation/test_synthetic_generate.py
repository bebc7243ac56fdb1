"""A data set on disk: contract of its tables, same bytes every time, resume, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from coefvq.cli import data
from coefvq.errors import DataError
from coefvq.files import sha256_file, sha256_tree
from coefvq.simulation.synthetic import GenerateSummary, generate
from coefvq.simulation.synthetic.clips import describe
from coefvq.simulation.synthetic.factors import FACTOR_TYPES, Factors
from coefvq.simulation.synthetic.generate import MARKER, write_clip

PREVALENCE = {"icd": 0.3, "ucc": 0.4}
VIDEOS, SEED = 12, 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GenerateSummary]:
    out = tmp_path_factory.mktemp("synthetic") / "raw"
    return out, generate(out, VIDEOS, SEED, PREVALENCE, workers=1)


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _hashes(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in (out / "videos").iterdir()}


def test_metadata_has_the_promised_columns_and_types(made: tuple[Path, GenerateSummary]) -> None:
    out, summary = made
    rows = _rows(out)
    assert list(rows[0]) == [
        *("file_name", "video_id", "title", "stickers", "published_at", "creator_id", "source_id", "views"),
        *("label_icd", "label_ucc", "posterior_icd", "posterior_ucc"),
        *("posterior_icd_vision_text", "posterior_ucc_vision_text", "posterior_icd_vision", "posterior_ucc_vision"),
    ]
    assert len(rows) == len({row["video_id"] for row in rows}) == VIDEOS
    for row in rows:
        assert (out / row["file_name"]).is_file()
        assert row["title"]
        assert all(isinstance(text, str) for text in json.loads(row["stickers"]))
        assert datetime.fromisoformat(row["published_at"]).tzname() == "UTC"
        assert int(row["views"]) >= 0
        for issue in PREVALENCE:
            assert row[f"label_{issue}"] in {"0", "1"}
            for view in ("", "_vision", "_vision_text"):
                value = float(row[f"posterior_{issue}{view}"])
                assert 0 < value < 1
                assert repr(value) == row[f"posterior_{issue}{view}"]
    positives = {issue: sum(int(row[f"label_{issue}"]) for row in rows) for issue in PREVALENCE}
    assert summary == GenerateSummary(VIDEOS, VIDEOS * 3.0, positives)


def test_descriptions_say_each_shown_level_from_any_start(made: tuple[Path, GenerateSummary]) -> None:
    out, _ = made
    lines = [json.loads(line) for line in (out / "descriptions.jsonl").read_text().splitlines()]
    assert [line["video_id"] for line in lines] == [row["video_id"] for row in _rows(out)]
    for line in lines:
        words = line["descriptions"][0].split()
        assert len(words) == len(line["descriptions"]) == 7
        starts = {" ".join([*words[i:], *words[:i]]) for i in range(7)}
        assert {text.strip() for text in line["descriptions"]} == starts


def test_factors_stand_beside_the_videos(made: tuple[Path, GenerateSummary]) -> None:
    out, _ = made
    lines = [json.loads(line) for line in (out / "factors.jsonl").read_text().splitlines()]
    assert [line["video_id"] for line in lines] == [row["video_id"] for row in _rows(out)]
    for line in lines:
        assert set(line) == {"video_id", "shown", "true", "language", "phrases", "description"}
        for levels in (line["shown"], line["true"]):
            assert all(FACTOR_TYPES[name](level) for name, level in levels.items())
            assert set(levels) == set(FACTOR_TYPES)


def test_a_clip_is_made_from_what_it_shows_alone(tmp_path: Path) -> None:
    clip = describe(SEED, 1, PREVALENCE)
    other = {
        name: next(level for level in kind if level is not getattr(clip.shown, name))
        for name, kind in FACTOR_TYPES.items()
    }
    for folder, truth in (("as_is", clip.truth), ("otherwise", Factors(**other))):
        write_clip(tmp_path / folder, SEED, replace(clip, truth=truth))
    assert _hashes(tmp_path / "as_is") == _hashes(tmp_path / "otherwise")


def test_the_command_twice_with_one_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder, workers in (("one", "1"), ("other", "2")):
        arguments = ["synth", "--out", str(tmp_path / folder), "--videos", "6", "--seed", "3", "--workers", workers]
        result = CliRunner().invoke(data.app, arguments)
        assert result.exit_code == 0
        assert "6 clips, 18 s of footage" in result.stdout
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "other")


def test_every_clip_decodes_with_picture_and_sound(made: tuple[Path, GenerateSummary]) -> None:
    out, _ = made
    lines = [json.loads(line) for line in (out / "factors.jsonl").read_text().splitlines()]
    for path, line in zip(sorted((out / "videos").iterdir()), lines, strict=True):
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.width, video.height) == ("h264", 160, 160)
            assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", 16_000, "mono")
            assert float(video.average_rate or 0) == 8.0
            assert sum(1 for _ in container.decode(video)) == 24
        with av.open(str(path)) as container:
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert 3.0 <= len(samples) / 16_000 < 3.1
        low, high = (0.001, 0.03) if line["shown"]["sound"] == "muted" else (0.2, 1.0)
        assert low < np.abs(samples).max() < high


def test_bytes_do_not_depend_on_workers(made: tuple[Path, GenerateSummary], tmp_path: Path) -> None:
    out, summary = made
    told: list[int] = []
    assert generate(tmp_path / "raw", VIDEOS, SEED, PREVALENCE, workers=2, progress=told.append) == summary
    assert sha256_tree(tmp_path / "raw") == sha256_tree(out)
    assert sum(told) == VIDEOS


def test_a_video_does_not_depend_on_how_many_are_made(made: tuple[Path, GenerateSummary], tmp_path: Path) -> None:
    out, _ = made
    generate(tmp_path / "few", 3, SEED, PREVALENCE, workers=1)
    generate(tmp_path / "late", 3, SEED, PREVALENCE, workers=1, first_index=7)
    whole = _hashes(out)
    assert len(set(whole.values())) == VIDEOS
    for name, rows in (("few", _rows(out)[:3]), ("late", _rows(out)[7:10])):
        assert _rows(tmp_path / name) == rows
        assert _hashes(tmp_path / name).items() <= whole.items()


def test_growing_and_shrinking_keep_what_is_there(made: tuple[Path, GenerateSummary], tmp_path: Path) -> None:
    out, raw = made[0], tmp_path / "raw"
    generate(raw, 5, SEED, PREVALENCE, workers=1)
    before = {path.name: path.stat().st_ino for path in (raw / "videos").iterdir()}
    told: list[int] = []
    generate(raw, VIDEOS, SEED, PREVALENCE, workers=1, progress=told.append)
    after = {path.name: path.stat().st_ino for path in (raw / "videos").iterdir()}
    assert before.items() <= after.items()
    assert told == [5] + [1] * (VIDEOS - 5)
    assert sha256_tree(raw) == sha256_tree(out)
    generate(raw, 2, SEED, PREVALENCE, workers=1)
    assert sorted(_hashes(raw)) == [f"s{SEED}-{index:06d}.mp4" for index in range(2)]


class _StopError(Exception):
    pass


def test_an_interrupted_run_leaves_no_table_and_is_finished_by_the_next(
    made: tuple[Path, GenerateSummary], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"

    def stop(done: int) -> None:
        if len(list((raw / "videos").iterdir())) >= 4:
            raise _StopError

    with pytest.raises(_StopError):
        generate(raw, VIDEOS, SEED, PREVALENCE, workers=1, progress=stop)
    assert not (raw / "metadata.csv").exists()
    (raw / "videos" / f"s{SEED}-000001.mp4").write_bytes(b"")  # what a crash of the machine may leave
    (raw / "videos" / ".s5-000009.mp4.x.tmp").write_bytes(b"half")
    generate(raw, VIDEOS, SEED, PREVALENCE, workers=1)
    assert sha256_tree(raw) == sha256_tree(made[0])


def test_another_prevalence_starts_afresh(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    generate(raw, 3, SEED, PREVALENCE, workers=1)
    kept = {path.name: path.stat().st_mtime_ns for path in (raw / "videos").iterdir()}

    def no_table_while_clips_are_replaced(done: int) -> None:
        assert not (raw / "metadata.csv").exists()

    other = {"icd": 0.9, "ucc": 0.9}
    generate(raw, 3, SEED, other, workers=1, progress=no_table_while_clips_are_replaced)
    assert all((raw / "videos" / name).stat().st_mtime_ns > time for name, time in kept.items())
    assert json.loads((raw / MARKER).read_text())["prevalence"] == other


_SCRIPT = """
import sys
from pathlib import Path
from coefvq.simulation.synthetic import generate
generate(Path(sys.argv[1]), 200, 5, {"icd": 0.3, "ucc": 0.4}, workers=2, progress=lambda n: print(n, flush=True))
"""


def test_workers_do_not_outlive_a_killed_parent(made: tuple[Path, GenerateSummary], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    command = [sys.executable, "-c", _SCRIPT, str(raw)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "1\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        os.kill(parent.pid, signal.SIGKILL)
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=30)
    for process in alive:
        process.kill()
    assert not alive
    assert not (raw / "metadata.csv").exists()
    generate(raw, VIDEOS, SEED, PREVALENCE, workers=1)
    assert sha256_tree(raw) == sha256_tree(made[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"videos": 0}, "videos = 0: expected a whole number of at least 1"),
        ({"seed": -1}, "seed = -1: expected"),
        ({"workers": 0}, "workers = 0: expected"),
        ({"first_index": -3}, "first_index = -3: expected"),
        ({"prevalence": {"icd": 0.1, "ucc": 1.5}}, "prevalence.ucc = 1.5: expected a fraction"),
        ({"prevalence": {"icd": 0.1, "ucc": 0.1, "nsfw": 0.1}}, "prevalence.nsfw: the synthetic world has no"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    arguments = {"videos": 2, "seed": 1, "prevalence": PREVALENCE, "workers": 1, **change}
    with pytest.raises(DataError, match=words):
        generate(tmp_path / "raw", **arguments)
    assert not (tmp_path / "raw").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(DataError, match="not empty and not made by this generator; give a new or empty folder"):
        generate(tmp_path, 2, SEED, PREVALENCE, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]
    with pytest.raises(DataError, match="is a file; give a folder"):
        generate(tmp_path / "holiday.mp4", 2, SEED, PREVALENCE, workers=1)
