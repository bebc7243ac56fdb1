"""Batches and the raw table: what a row means survives, nothing is overwritten, nothing is added twice."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import math
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.config import Ingest, LabelSource, load_params
from coefvq.data.batches import Batch, Survey, batch_name, stage_batch, survey
from coefvq.data.importers import open_table
from coefvq.data.importers.ids import id_from_path
from coefvq.data.raw_table import Layout, canonical_rows, read_chunks, to_chunks, write_table
from coefvq.errors import ConfigError, DataError, MediaError

WORDS = {"icd": LabelSource(column="label", positive=("fight", "brawl"))}


def folder(path: Path, table: str = "", **clips: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in clips.items():
        clip = path / name.replace("__", "/").replace("_mp4", ".mp4")
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.write_text(content)
    if table:
        (path / "metadata.csv").write_text(table)
    return path


@pytest.fixture(scope="module")
def ingest(repository: Path) -> Ingest:
    return load_params(repository / "params.yaml").ingest


class Stager:
    """Stages folders one after the other, each in a store of its own."""

    def __init__(self, top: Path, ingest: Ingest) -> None:
        self.top, self.ingest = top, ingest

    def __call__(
        self, source: Path, layout: Layout = "files", media: str | None = None, name: str | None = None
    ) -> Batch:
        table = open_table(source)
        store = self.top / f"{len(list(self.top.glob('*.sqlite')))}.sqlite"
        batch = Batch(batch_name(source, name), layout, table.source.origin, store, table.count)
        stage_batch(table, batch, media, WORDS, self.ingest, workers=2)
        return batch

    def look(self, raw: Path, batch: Batch) -> Survey:
        return survey(read_chunks(raw, WORDS), batch, WORDS, "data/raw")

    def merged(self, raw: Path, batch: Batch) -> Survey:
        """Put the batch's rows into the raw folder's table."""
        seen = self.look(raw, batch)
        rows = [row | {"uri": f"{batch.name}/{row['uri']}"} for row, _ in batch.new_rows()]
        raw.mkdir(parents=True, exist_ok=True)
        write_table(raw, batch.layout, [*read_chunks(raw, WORDS), *to_chunks(rows)], seen.columns)
        return seen


@pytest.fixture
def stage(tmp_path: Path, ingest: Ingest) -> Stager:
    return Stager(tmp_path, ingest)


def by_id(raw: Path) -> dict[str, dict[str, Any]]:
    return {row["video_id"]: row for chunk in read_chunks(raw, WORDS) for row in chunk.to_pylist()}


def test_a_batch_that_an_older_version_took_is_not_added_again(tmp_path: Path, stage: Stager) -> None:
    """Its clips were named by another rule; under two ids they could come into two splits."""
    raw = folder(tmp_path / "raw", "path,label,note\na.mp4,fight,mine\n", a_mp4="a")
    labelled = folder(tmp_path / "labelled", fight__x_mp4="x")
    stage.merged(raw, stage(labelled))
    new = f"labelled-{id_from_path('fight/x.mp4')}"
    table = raw / "metadata.csv"
    table.write_text(table.read_text().replace(new, "labelled-x"))
    with pytest.raises(DataError, match=f"clip fight/x.mp4 of '{new}' is already there as 'labelled-x'; delete it"):
        stage.look(raw, stage(labelled))
    (labelled / "fight" / "x.mp4").write_text("another clip of that name")
    assert stage.look(raw, stage(labelled)).known == 0


def test_batches_in_three_formats_become_one_table(tmp_path: Path, stage: Stager) -> None:
    raw = folder(tmp_path / "raw", "path,label,note\na.mp4,fight,mine\nb.mp4,calm,\n", a_mp4="a", b_mp4="b")
    labelled = folder(tmp_path / "labelled", fight__x_mp4="x", calm__y_mp4="y")
    lines = [
        {"file_name": "u.mp4", "video_id": "u7", "title": "käse", "stickers": ["SALE", "a,b"], "views": 1},
        {"file_name": "v.mp4", "video_id": "v7", "label": "brawl", "weight": 2.5, "posterior_icd": 0.25},
    ]
    table = folder(tmp_path / "table", u_mp4="u", v_mp4="v") / "new.jsonl"
    table.write_text("\n".join(json.dumps(line) for line in lines))

    first = stage.merged(raw, stage(labelled))
    assert (first.clips, first.known, first.counts) == (2, 0, {"icd": {"labelled": 2, "positive": 1}})
    second = stage.merged(raw, stage(table))
    assert second.counts == {"icd": {"labelled": 4, "positive": 2}}

    rows = by_id(raw)
    # ids of clips without a table carry the batch's name; ids that others had do not change
    x, y = (f"labelled-{id_from_path(uri)}" for uri in ("fight/x.mp4", "calm/y.mp4"))
    assert set(rows) == {"a", "b", x, y, "u7", "v7"}
    assert rows[x]["uri"] == "labelled/fight/x.mp4"
    assert rows[x]["sha256"] == hashlib.sha256(b"x").hexdigest()
    assert rows["a"]["note"] == "mine"
    assert rows["a"].get("sha256") is None
    assert (rows["u7"]["stickers"], rows["u7"]["views"], rows["u7"]["title"]) == (["SALE", "a,b"], 1, "käse")
    assert rows["v7"]["weight"] == 2.5
    imported = {row["video_id"]: row for row in open_table(raw, labels=WORDS).rows()}
    assert {i: row["label_icd"] for i, row in imported.items()} == {
        "a": 1, "b": 0, x: 1, y: 0, "u7": None, "v7": 1
    }  # fmt: skip
    assert imported["v7"]["posterior_icd"] == 0.25
    assert math.isnan(imported["a"]["posterior_icd"])


def test_the_same_batch_again_is_known(tmp_path: Path, stage: Stager) -> None:
    raw = tmp_path / "raw"
    source = folder(tmp_path / "b", "file_name,label,views\na.mp4,fight,3\nb.mp4,,\n", a_mp4="a", b_mp4="b")
    stage.merged(raw, stage(source))
    again = stage(source, name="other-name")
    assert stage.look(raw, again).known == 2
    assert list(again.new_rows()) == []
    # one clip more: only that one is new
    folder(source, "file_name,label,views\na.mp4,fight,3\nb.mp4,,\nc.mp4,calm,\n", c_mp4="c")
    more = stage(source)
    assert stage.look(raw, more).known == 2
    assert [row["video_id"] for row, _ in more.new_rows()] == ["c"]


@pytest.mark.parametrize(
    ("table", "clip", "words"),
    [
        ("file_name,label\na.mp4,fight\n", "other", ("'a' (b/a.mp4)", "another clip")),
        ("file_name,label\na.mp4,calm\n", "a", ("'a' (b/a.mp4)", "differs in label", "dvc add")),
        ("file_name,label,views\na.mp4,fight,1\n", "a", ("differs in views",)),
    ],
)
def test_an_id_that_is_taken_is_an_error(
    tmp_path: Path, stage: Stager, table: str, clip: str, words: tuple[str, ...]
) -> None:
    raw = tmp_path / "raw"
    stage.merged(raw, stage(folder(tmp_path / "b", "file_name,label\na.mp4,fight\n", a_mp4="a")))
    with pytest.raises(DataError) as caught:
        stage.look(raw, stage(folder(tmp_path / "c", table, a_mp4=clip)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("layout", ["files", "reference"])
def test_chunks_with_different_columns(
    tmp_path: Path, stage: Stager, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coefvq.data.raw_table._CHUNK", 2)
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [{"uri": f"{n}.mp4", "video_id": str(n), "sha256": "0" * 64} for n in range(5)]
    rows[4] |= {"title": "last", "label": "fight"}
    write_table(raw, layout, to_chunks(rows), ["uri", "video_id", "sha256", "title", "label"])
    batch = stage(folder(tmp_path / "b", "file_name,label,views\na.mp4,brawl,5\n", a_mp4="a"))
    seen = stage.look(raw, batch)
    assert (seen.clips, seen.counts) == (5, {"icd": {"labelled": 1, "positive": 1}})
    assert set(seen.columns) == {"uri", "video_id", "sha256", "title", "label", "views"}
    found = [chunk.num_rows for chunk in read_chunks(raw, WORDS)]
    assert found == [2, 2, 1]


def test_an_old_row_without_a_hash_cannot_be_compared(tmp_path: Path, stage: Stager) -> None:
    raw = folder(tmp_path / "raw", "file_name,label\na.mp4,fight\n", a_mp4="a")
    with pytest.raises(DataError, match="without a sha256"):
        stage.look(raw, stage(folder(tmp_path / "b", "file_name,label\na.mp4,fight\n", a_mp4="a")))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file_name\na.mp4\n../x.mp4\n", "outside the data root"),
        ("file_name\na.mp4\nb.mp4\n", "b.mp4: No such file"),
        ("video_id,file_name\n1,a.mp4\n2,a.mp4\n", "a.mp4 is listed twice"),
        ("file_name\ns3://bucket/a.mp4\n", "is a URL; version such rows with --layout reference"),
        (f"file_name,sha256\na.mp4,{'0' * 64}\n", "correct the row"),
    ],
)
def test_refused_batches(tmp_path: Path, stage: Stager, table: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        stage(folder(tmp_path / "b", table, a_mp4="a"))


def test_an_unusable_label_names_its_row(tmp_path: Path, ingest: Ingest) -> None:
    source = folder(tmp_path / "b", "file_name,y\na.mp4,1\nb.mp4,maybe\n", a_mp4="a", b_mp4="b")
    with pytest.raises(DataError, match="row 3: y = 'maybe'"):
        list(canonical_rows(open_table(source), {"icd": LabelSource(column="y", positive=None)}))


def test_reference_rows_point_into_the_store(tmp_path: Path, stage: Stager) -> None:
    store = folder(tmp_path / "store", day1__a_mp4="a", b_mp4="b")
    inside = folder(store / "day1", "file_name,label\na.mp4,fight\n")
    outside = tmp_path / "rows.csv"
    outside.write_text("uri,label\nb.mp4,calm\n")
    rows = {row["uri"]: place for row, place in stage(inside, "reference", str(store)).new_rows()}
    rows |= {row["uri"]: place for row, place in stage(outside, "reference", str(store)).new_rows()}
    assert rows == {"day1/a.mp4": str(store / "day1/a.mp4"), "b.mp4": str(store / "b.mp4")}
    with pytest.raises(ConfigError, match=r"paths\.media is not set"):
        stage(inside, "reference")
    with pytest.raises(ConfigError, match="use --layout reference"):
        stage(inside, "files", str(store))


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_clips_behind_urls_are_hashed_and_not_kept(tmp_path: Path, stage: Stager) -> None:
    store = folder(tmp_path / "store", a_mp4="a", b_mp4="b")
    table = tmp_path / "rows.csv"
    with served(store) as url:
        table.write_text(f"uri\na.mp4\n{url}/b.mp4\n")
        with pytest.raises(ConfigError, match=r"ingest\.protocols allows local files only"):
            stage(table, "reference", url)
        stage.ingest = stage.ingest.model_copy(update={"protocols": ("http",)})
        batch = stage(table, "reference", url)
        rows = [(row["uri"], row["sha256"]) for row, _ in batch.new_rows()]
        assert rows == [("a.mp4", hashlib.sha256(b"a").hexdigest()), (f"{url}/b.mp4", hashlib.sha256(b"b").hexdigest())]
        assert not [path for path in (tmp_path / "fetched").rglob("*") if path.is_file()]
        table.write_text("uri\nnone.mp4\n")
        with pytest.raises(MediaError) as caught:
            stage(table, "reference", url)
    assert caught.value.reason == "unreachable"


def test_a_clip_of_the_store_twice_under_two_ids(tmp_path: Path, stage: Stager) -> None:
    store = folder(tmp_path / "store", a_mp4="a")
    (tmp_path / "one.csv").write_text("uri\na.mp4\n")
    (tmp_path / "two.csv").write_text("video_id,uri\nother,a.mp4\n")
    raw = tmp_path / "raw"
    raw.mkdir()
    one = stage(tmp_path / "one.csv", "reference", str(store))
    seen = stage.look(raw, one)
    write_table(raw, "reference", to_chunks(row for row, _ in one.new_rows()), seen.columns)
    with pytest.raises(DataError, match=r"clip a\.mp4 of 'other' is already there as 'a'"):
        stage.look(raw, stage(tmp_path / "two.csv", "reference", str(store)))


@pytest.mark.parametrize("name", ["-x", "a b", "", "ä", "x" * 65, "a/b", ".."])
def test_batch_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--name"):
        batch_name(tmp_path / (name or "_"), name or "/")
    assert batch_name(tmp_path / "day1" / "metadata.csv", None) == "day1"


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(str.strip)
ROW = st.fixed_dictionaries(
    {"uri": st.uuids().map(lambda u: f"{u}.mp4"), "video_id": st.uuids().map(str)},
    optional={
        "title": TEXT.filter(bool),
        "stickers": st.lists(TEXT.filter(bool), min_size=1, max_size=3),
        "views": st.integers(0, 2**62),
        "weight": st.floats(0.01, 100).filter(lambda w: w != 1.0),
        "posterior_icd": st.floats(0, 1),
        "label": st.sampled_from(["fight", "brawl", "calm"]),
        "note": TEXT.filter(bool),
    },
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=6, unique_by=lambda row: row["video_id"]))
@pytest.mark.parametrize("layout", ["files", "reference"])
def test_rows_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, layout: Layout, rows: list[dict[str, Any]]
) -> None:
    """A canonical table means the same to the importer, whichever the format, and is its own canonical form."""
    raw = tmp_path_factory.mktemp("raw")
    columns = list(dict.fromkeys(["uri", "video_id", "label", *(name for row in rows for name in row)]))
    write_table(raw, layout, to_chunks(rows), columns)
    back = [{k: v for k, v in row.items() if v is not None} for row in pa.concat_tables(
        read_chunks(raw, WORDS), promote_options="default"
    ).to_pylist()]  # fmt: skip
    assert back == rows
    for row, words in zip(rows, open_table(raw).rows(), strict=True):
        for name in ("uri", "video_id", "title", "stickers", "views", "weight", "posterior_icd"):
            if name in row:
                assert words[name] == row[name]
