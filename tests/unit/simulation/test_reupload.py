"""Simulated re-uploads: nothing outside the content tells copy from original; tables, resume, refusals."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from coefvq.cli.reupload import reupload as command
from coefvq.data.importers import import_table
from coefvq.data.media.decode import DEFAULT_LIMITS, stream_info
from coefvq.errors import DataError
from coefvq.evaluation.metrics import roc_auc
from coefvq.evaluation.shortcut import CONTAINER_COLUMNS, container_facts, shortcut_scores
from coefvq.files import sha256_file, sha256_tree
from coefvq.simulation.reupload.edits import EVASION, PRESENTATION
from coefvq.simulation.reupload.encode import SAMPLE_RATE, write_clip
from coefvq.simulation.reupload.folder import COLUMNS, MARKER
from coefvq.simulation.reupload.generate import Settings, Summary, count_videos
from coefvq.simulation.reupload.generate import reupload as make_reuploads

FPS = 10
reupload = partial(make_reuploads, limits=DEFAULT_LIMITS)
SMALL = Settings(seed=3, copies=1.2, own_edits=0.3, size=96, fps=FPS)


def draw(path: Path, index: int, seconds: float = 2.0) -> None:
    """A clip of 160 px: a texture of its own coarseness drifts behind a disc; a third have no sound."""
    rng = np.random.default_rng(index)
    shape = [(120, 160, 3), (160, 120, 3), (120, 120, 3)][index % 3]
    cells = int(rng.integers(3, 30))
    texture = np.kron(rng.integers(0, 256, (cells, cells, 3)), np.ones((200 // cells + 1,) * 2 + (1,))).astype(np.uint8)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    colour = rng.integers(0, 256, 3)

    def frames() -> Iterator[np.ndarray]:
        for number in range(round(seconds * 12)):
            picture = np.roll(texture, number * (index % 4), axis=1)[: shape[0], : shape[1]].copy()
            disc = (rows - 60) ** 2 + (columns - 30 - 3 * number) ** 2 < 400
            picture[disc] = colour
            yield picture

    tone = 0.4 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * rng.uniform(0.05, 0.4))
    write_clip(path, frames(), 12, (tone * (index % 3 > 0)).astype(np.float32), 20.0)


def folder_of(path: Path, clips: int) -> Path:
    path.mkdir(parents=True)
    for index in range(clips):
        draw(path / f"clip{index:03d}.mp4", index)
    return path


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("originals") / "clips", 6)


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("made") / "raw"
    return out, reupload(clips, out, SMALL, workers=1)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 originals and their copies."""
    return copied(tmp_path_factory.mktemp("many"), 100)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 originals and their copies, in half of the time."""
    return copied(tmp_path_factory.mktemp("some"), 50)


def copied(root: Path, originals: int) -> Path:
    reupload(folder_of(root / "clips", originals), root / "raw", SMALL, workers=2)
    return root / "raw"


def facts_of(out: Path, rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    infos = [stream_info(out / row["file_name"]) for row in rows]
    columns = {name: [getattr(info, name) for info in infos] for name in CONTAINER_COLUMNS if name != "size_bytes"}
    columns["size_bytes"] = [(out / row["file_name"]).stat().st_size for row in rows]
    return {name: np.array(values, float) for name, values in columns.items()}


def cross_validated(facts: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    """AUC of the metadata shortcut, five folds by source."""
    fold = group % 5
    scores = np.zeros(len(label))
    for held in range(5):
        train, test = fold != held, fold == held
        with threadpool_limits(1):  # 200 rows: threads would only wait for each other
            fitted = shortcut_scores(facts[train], label[train], np.ones(train.sum()), facts[test])
        assert fitted is not None
        scores[test] = fitted
    return roc_auc(label, scores)


@pytest.mark.long  # 100 originals
def test_container_metadata_tells_nothing(many: Path) -> None:
    rows = rows_of(many)
    label = np.array([int(row["label_ucc"]) for row in rows])
    _, group = np.unique([row["source_id"] for row in rows], return_inverse=True)
    assert len(rows) >= 200
    columns = facts_of(many, rows)
    # standard error of an AUC under no difference (Mann-Whitney); three of them on either side
    positives, negatives = label.sum(), (1 - label).sum()
    bound = 3 * np.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    assert abs(cross_validated(container_facts(columns), label, group) - 0.5) < bound
    # the very same test sees files a third larger
    larger = columns | {"size_bytes": columns["size_bytes"] * (1 + label / 3)}
    assert cross_validated(container_facts(larger), label, group) > 0.5 + bound


def test_copy_and_original_of_one_source_differ_in_nothing_but_chance(some: Path) -> None:
    rows = rows_of(some)
    columns = facts_of(some, rows)
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row["source_id"]].append(index)
    pairs = [(own, copy) for own, *copies in groups.values() for copy in copies]
    own, copies = np.array(pairs).T
    for name in ("fps", "width", "height", "has_audio"):
        np.testing.assert_array_equal(columns[name][own], columns[name][copies])
    rate = columns["size_bytes"] / columns["duration_s"]
    for values in (rate, columns["duration_s"], columns["size_bytes"]):
        gap = np.log(values[copies] / values[own])
        assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(len(gap))
        assert gap.std() > 0.05  # and it is not constant either: chance is there to hide in


def test_table_holds_the_ground_truth(some: Path) -> None:
    rows = rows_of(some)
    assert tuple(rows[0]) == COLUMNS
    by_id = {row["video_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    originals = [row for row in rows if row["label_ucc"] == "0"]
    copies = [row for row in rows if row["label_ucc"] == "1"]
    assert all(row["source_id"] == row["video_id"] for row in originals)
    for row in copies:
        source = by_id[row["source_id"]]
        assert source["label_ucc"] == "0"
        assert row["creator_id"] != source["creator_id"]
        assert datetime.fromisoformat(row["published_at"]) > datetime.fromisoformat(source["published_at"])
        assert {edit["kind"] for edit in json.loads(row["edits"])} <= {*PRESENTATION, *EVASION}
        assert json.loads(row["edits"])
    edited = [row for row in originals if json.loads(row["edits"])]
    assert abs(len(edited) - 0.3 * len(originals)) < 3 * np.sqrt(0.3 * 0.7 * len(originals))
    assert {edit["kind"] for row in edited for edit in json.loads(row["edits"])} <= set(PRESENTATION)
    kinds = {edit["kind"] for row in copies for edit in json.loads(row["edits"])}
    assert kinds == {*PRESENTATION, *EVASION}
    per_source = [sum(row["source_id"] == own["video_id"] for row in copies) for own in originals]
    assert {0, 1, 2, 3} <= set(per_source)
    assert len({row["creator_id"] for row in copies}) == len(copies)
    assert all(0 <= float(row["start_s"]) < float(row["end_s"]) <= 2.0 for row in rows)


def test_the_importer_reads_it(made: tuple[Path, Summary]) -> None:
    out, summary = made
    table = import_table(out).frame
    labels = [row["label_ucc"] for row in rows_of(out)]
    assert (labels.count("0"), labels.count("1")) == (summary.originals, summary.copies) == (6, len(table) - 6)
    assert table["title"].str.len().min() > 0
    assert all((out / uri).is_file() for uri in table["uri"])
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "metadata.csv", "originals.json", "videos"]


def test_bytes_depend_on_neither_workers_nor_progress(clips: Path, made: tuple[Path, Summary], tmp_path: Path) -> None:
    told: list[int] = []
    assert reupload(clips, tmp_path / "raw", SMALL, workers=2, progress=told.append) == made[1]
    assert sha256_tree(tmp_path / "raw") == sha256_tree(made[0])
    assert sum(told) == count_videos(clips, SMALL) == made[1].originals + made[1].copies


class _StopError(Exception):
    pass


def test_an_interrupted_run_is_finished_by_the_next(clips: Path, made: tuple[Path, Summary], tmp_path: Path) -> None:
    raw = tmp_path / "raw"

    def stop(done: int) -> None:
        if len(list((raw / "videos").glob("*.mp4"))) >= 4:
            raise _StopError

    with pytest.raises(_StopError):
        reupload(clips, raw, SMALL, workers=1, progress=stop)
    assert not (raw / "metadata.csv").exists()
    kept = {path.name: path.stat().st_ino for path in (raw / "videos").glob("*.mp4")}
    victim = sorted(kept)[0]
    (raw / "videos" / victim).write_bytes(b"")  # what a crash of the machine may leave
    (raw / "videos" / ".x.mp4.y.tmp").write_bytes(b"half")
    told: list[int] = []
    assert reupload(clips, raw, SMALL, workers=1, progress=told.append) == made[1]
    assert sum(told) == count_videos(clips, SMALL)
    assert sha256_tree(raw) == sha256_tree(made[0])
    after = {path.name: path.stat().st_ino for path in (raw / "videos").iterdir()}
    assert {name: node for name, node in kept.items() if name != victim}.items() <= after.items()
    # a run with nothing to do neither decodes nor renders: what it would write stays as it is
    times = {path: path.stat().st_mtime_ns for path in raw.rglob("*.*") if path.name != "metadata.csv"}
    assert reupload(clips, raw, SMALL, workers=1) == made[1]
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_another_seed_or_input_starts_afresh(tmp_path: Path) -> None:
    source, raw = folder_of(tmp_path / "clips", 2), tmp_path / "raw"
    settings = Settings(seed=1, copies=0.5, size=64, fps=8)
    reupload(source, raw, settings, workers=1)
    first = sha256_tree(raw)
    draw(source / "clip000.mp4", 9)
    reupload(source, raw, settings, workers=1)
    second = sha256_tree(raw)
    other = Settings(seed=2, copies=0.5, size=64, fps=8)
    reupload(source, raw, other, workers=1)
    assert len({first, second, sha256_tree(raw)}) == 3
    reupload(source, tmp_path / "fresh", other, workers=1)
    assert sha256_tree(raw) == sha256_tree(tmp_path / "fresh")


def test_bad_originals_are_left_out_and_named(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "clips", 2)
    whole = (source / "clip000.mp4").read_bytes()
    (source / "empty.mp4").write_bytes(b"")
    (source / "text.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n", encoding="utf-8")
    (source / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    draw(source / "short.mp4", 1, seconds=0.2)
    (tmp_path / "secret.mp4").write_bytes(whole)
    names = ["clip000", "empty", "text", "cut", "short", "gone", "../secret", "clip001"]
    table = "".join(f"{name}.mp4\n" for name in names)
    (source / "metadata.csv").write_text(f"file_name\n{table}", encoding="utf-8")
    summary = reupload(source, tmp_path / "raw", Settings(copies=1.0, size=64, fps=8), workers=1)
    assert {footage.uri: footage.reason for footage in summary.skipped} == {
        "empty.mp4": "empty",
        "text.mp4": "undecodable",
        "cut.mp4": "undecodable",
        "short.mp4": "unsupported",
        "gone.mp4": "missing",
        "../secret.mp4": "outside_root",
    }
    assert all(footage.message for footage in summary.skipped)
    assert summary.originals == 2
    assert {row["source_id"] for row in rows_of(tmp_path / "raw")} == {"clip000", "clip001"}
    assert len(json.loads((tmp_path / "raw" / "originals.json").read_text())) == len(names)
    (source / "metadata.csv").write_text("file_name\nempty.mp4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no usable clip, e\.g\. .*empty file"):
        reupload(source, tmp_path / "none", Settings(), workers=1)


def test_a_foreign_folder_is_left_alone(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(DataError, match="not empty and not made by this command"):
        reupload(clips, tmp_path / "raw", SMALL)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["mine.mp4"]
    for out in (clips / "raw", clips, clips.parent):
        before = sha256_tree(clips)
        with pytest.raises(DataError, match="overlaps the input"):
            reupload(clips, out, SMALL)
        assert sha256_tree(clips) == before
    with pytest.raises(DataError, match="is a file"):
        reupload(clips, tmp_path / "raw" / "mine.mp4", SMALL)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(copies=-0.1), "copies = -0.1: expected 0 to 8"),
        (Settings(own_edits=1.1), "own_edits = 1.1: expected 0 to 1"),
        (Settings(size=8), "size = 8: expected"),
        (Settings(fps=1), "fps = 1: expected"),
        (Settings(seconds=float("nan")), "seconds = nan: expected"),
        (Settings(seed=-1), "seed = -1: expected"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    clips: Path, tmp_path: Path, settings: Settings, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        reupload(clips, tmp_path / "raw", settings)
    with pytest.raises(DataError, match="workers = 0"):
        reupload(clips, tmp_path / "raw", SMALL, workers=0)
    assert not (tmp_path / "raw").exists()


def test_the_command_says_what_it_made_and_what_it_left_out(clips: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    source = tmp_path / "clips"
    source.mkdir()
    (source / "a.mp4").write_bytes((clips / "clip001.mp4").read_bytes())
    (source / "b.mp4").write_bytes(b"")
    arguments = [
        "--from",
        str(source),
        "--out",
        str(tmp_path / "raw"),
        "--copies",
        "2",
        "--size",
        "64",
        "--workers",
        "1",
    ]
    plain = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "1 originals" in plain.stdout
    assert "skipped: 1 of 2 input clips" in plain.stdout
    assert "skipped b.mp4: empty" in plain.stderr
    shown = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert (shown["originals"], [row["uri"] for row in shown["skipped"]]) == (1, ["b.mp4"])
    assert sha256_file(tmp_path / "raw" / rows_of(tmp_path / "raw")[0]["file_name"])
