"""Every table a user may bring, and the line each mistake is told in."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.config import LabelSource
from coefvq.data.importers import apply_labels, import_table, open_table, parquet_reader
from coefvq.data.importers.values import MAX_TEXT
from coefvq.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"file_name": "a.mp4", "label": "fight", "title": "one", "stickers": '["x", "y"]', "views": "10"},
    {"file_name": "b.mp4", "label": "normal", "title": "", "stickers": "", "views": ""},
]
FIGHT = {"icd": LabelSource(column="label", positive=("fight",))}


def write_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_video_folder_with_csv(tmp_path: Path) -> None:
    table = import_table(write_csv(tmp_path, ROWS))
    frame = apply_labels(table, FIGHT)
    assert table.root == tmp_path
    assert list(frame["video_id"]) == ["a", "b"]
    assert list(frame["stickers"]) == [["x", "y"], []]
    assert list(frame["label_icd"]) == [1, 0]
    assert frame["views"].tolist() == [10, pd.NA]
    assert list(frame["weight"]) == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_of_every_format_give_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"table.{kind}"
    frame = pd.DataFrame(ROWS)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    else:
        frame.to_parquet(path)
    table = import_table(path)
    assert table.root == tmp_path
    assert table.frame[["uri", "title", "views"]].equals(
        import_table(write_csv(tmp_path, ROWS)).frame[["uri", "title", "views"]]
    )


def test_folders_named_after_labels(tmp_path: Path) -> None:
    for label in ("fight", "normal"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.mp4").touch()
    frame = apply_labels(import_table(tmp_path), FIGHT)
    assert sorted(frame["uri"]) == ["fight/x.mp4", "normal/x.mp4"]
    assert frame["video_id"].is_unique
    assert sorted(frame["label_icd"]) == [0, 1]


def test_parquet_with_timestamps_and_gaps(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS).assign(published_at=pd.to_datetime(["2026-01-01", None], utc=True))
    frame.to_parquet(tmp_path / "t.parquet")
    published = import_table(tmp_path / "t.parquet").frame["published_at"]
    assert published[0].startswith("2026-01-01")
    assert pd.isna(published[1])


def test_empty_label_is_unlabelled(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "label": "1"}, {**ROWS[1], "label": ""}]
    frame = apply_labels(import_table(write_csv(tmp_path, rows)), {"icd": LabelSource(column="label", positive=None)})
    assert frame["label_icd"].tolist() == [1, pd.NA]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"file_name": "a.mp4"}, "row 3: duplicate video_id 'a' (first in row 2)"),
        ({"file_name": ""}, "row 3: empty file name"),
        ({"views": "many"}, "row 3: views = 'many': expected a whole number"),
        ({"stickers": "[oops"}, "row 3: stickers = '[oops': expected a JSON list"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    write_csv(tmp_path, [ROWS[0], {**ROWS[1], **change}])
    with pytest.raises(DataError) as caught:
        import_table(tmp_path)
    assert expected in str(caught.value)
    assert "metadata.csv" in str(caught.value)


def test_label_outside_zero_and_one(tmp_path: Path) -> None:
    table = import_table(write_csv(tmp_path, [ROWS[0], {**ROWS[1], "label": "2"}]))
    with pytest.raises(DataError, match=r"row 2: label = 'fight': expected 0, 1 or empty.*ingest\.labels\.icd"):
        apply_labels(table, {"icd": LabelSource(column="label", positive=None)})


def test_a_positive_value_that_never_occurs_is_a_misspelling(tmp_path: Path) -> None:
    table = import_table(write_csv(tmp_path, ROWS))
    with pytest.raises(DataError, match=r"never holds 'fihgt' .*values there: fight, normal"):
        apply_labels(table, {"icd": LabelSource(column="label", positive=("fight", "fihgt"))})


def test_missing_label_column_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'y' for issue icd.*file_name"):
        apply_labels(import_table(write_csv(tmp_path, ROWS)), {"icd": LabelSource(column="y", positive=None)})


@pytest.mark.parametrize("name", ["nothing", "empty_folder", "odd.txt", "broken.jsonl", "broken.parquet"])
def test_what_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "odd.txt").write_text("x")
    (tmp_path / "broken.jsonl").write_text('{"file_name": "a.mp4"}\n{')
    (tmp_path / "broken.parquet").write_text("x")
    with pytest.raises(DataError) as caught:
        import_table(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_a_jsonl_are_its_lines(tmp_path: Path) -> None:
    rows = [json.dumps(ROWS[0]), json.dumps(ROWS[0])]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"row 2: duplicate video_id 'a' \(first in row 1\)"):
        import_table(tmp_path / "t.jsonl")


def rows_of(source: Path, labels: dict[str, LabelSource] | None = None) -> list[dict[str, Any]]:
    """Manifest words of a source, streamed."""
    return list(open_table(source, labels=labels or {}).rows())


def refusal(source: Path, labels: dict[str, LabelSource] | None = None) -> str:
    """The line a source is refused with; both ways of reading agree."""
    with pytest.raises(DataError) as caught:
        open_table(source, labels=labels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- VideoFolder


def test_split_folders_with_labels(tmp_path: Path) -> None:
    for place in ("train/fight", "train/normal", "validation/fight", "test/normal", "traffic"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.mp4").touch()
    rows = rows_of(tmp_path, FIGHT)
    assert {(row["uri"], row["split"], row["label_icd"]) for row in rows} == {
        ("train/fight/x.mp4", "train", 1),
        ("train/normal/x.mp4", "train", 0),
        ("validation/fight/x.mp4", "val", 1),
        ("test/normal/x.mp4", "test", 0),
        ("traffic/x.mp4", "traffic", None),
    }
    assert len({row["video_id"] for row in rows}) == 5


def test_a_split_beside_a_label_is_refused(tmp_path: Path) -> None:
    for place in ("train", "car"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.mp4").touch()
    assert "'train' reads as a split and 'car' as a label" in refusal(tmp_path)


def test_a_table_in_each_split_folder(tmp_path: Path) -> None:
    for name, row in (("train", ROWS[0]), ("validation", ROWS[1])):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name, [row])
    rows = rows_of(tmp_path, FIGHT)
    assert [(row["uri"], row["split"], row["label_icd"]) for row in rows] == [
        ("train/a.mp4", "train", 1),
        ("validation/b.mp4", "val", 0),
    ]
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.mp4").touch()
    assert "test: holds clips but no metadata table" in refusal(tmp_path)


def test_two_tables_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path, ROWS)
    (tmp_path / "metadata.jsonl").write_text("{}")
    assert "holds metadata.csv and metadata.jsonl; keep one" in refusal(tmp_path)


def test_links_that_stay_are_listed_and_others_and_pipes_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").symlink_to("nowhere/b.mp4")
    (tmp_path / "b2.mp4").symlink_to("/nowhere/b.mp4")
    os.mkfifo(tmp_path / "c.mp4")
    (tmp_path / "d").symlink_to(tmp_path)
    assert [row["uri"] for row in rows_of(tmp_path)] == ["a.mp4", "b.mp4"]


def test_tables_and_folders_behind_links_that_lead_outside_are_not_read(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    write_csv(outside, ROWS)
    (inside / "metadata.csv").symlink_to(outside / "metadata.csv")
    assert "metadata.csv: a link that leads out of its folder" in refusal(inside)
    (inside / "metadata.csv").unlink()
    (inside / "train").symlink_to(outside)
    assert "neither a metadata table nor video files; add one of them (found: train;" in refusal(inside)


def test_a_folder_without_rights_costs_only_its_clips() -> None:
    own = os.geteuid()
    with TemporaryDirectory() as top:
        folder = Path(top)
        folder.chmod(0o755)
        for name in ("1", "2"):
            (folder / name).mkdir()
            (folder / name / "a.mp4").touch()
        (folder / "2").chmod(0)
        if own == 0:  # root may read everything
            os.seteuid(65534)
        try:
            table = import_table(folder)
        finally:
            os.seteuid(own)
    assert table.frame["uri"].tolist() == ["1/a.mp4"]
    assert table.left_out.first == ("2 (a folder that cannot be read)",)


# ---- ms-swift

CHAT = {
    "messages": [
        {"role": "system", "content": "you judge"},
        {"role": "user", "content": "<video>my dinner"},
        {"role": "assistant", "content": "fine"},
    ],
    "videos": ["a.mp4"],
}


def test_swift_chats(tmp_path: Path) -> None:
    chats = [CHAT, {**CHAT, "videos": ["b.mp4"], "label": 1, "title": "own title", "views": 5}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, chats)))
    by_label = rows_of(tmp_path / "t.jsonl", {"icd": LabelSource(column="label", positive=None)})
    assert [(row["uri"], row["title"], row["views"], row["label_icd"]) for row in by_label] == [
        ("a.mp4", "my dinner", None, None),
        ("b.mp4", "own title", 5, 1),
    ]
    by_answer = rows_of(tmp_path / "t.jsonl", {"icd": LabelSource(column="answer", positive=("fine",))})
    assert [row["label_icd"] for row in by_answer] == [1, 1]
    pd.DataFrame([CHAT]).to_parquet(tmp_path / "t.parquet")
    assert rows_of(tmp_path / "t.parquet")[0]["title"] == "my dinner"


@pytest.mark.parametrize("label", [True, 1, "1", 1.0])
def test_two_classes_may_be_true_and_false(tmp_path: Path, label: object) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({**CHAT, "label": label}))
    labels = {"icd": LabelSource(column="label", positive=None)}
    assert rows_of(tmp_path / "t.jsonl", labels)[0]["label_icd"] == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"videos": ["a.mp4", "b.mp4"]}, "videos = ['a.mp4', 'b.mp4']: expected a list of one path"),
        ({"videos": None}, "videos = None: expected a list of one path"),
        ({"messages": "hello"}, "messages = 'hello': expected a list"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "expected role and content as texts"),
        ({"label": [1, 3]}, "label = [1, 3]: expected text"),
    ],
)
def test_a_bad_chat_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({**CHAT, **change}))
    message = refusal(tmp_path / "t.jsonl", {"icd": LabelSource(column="label", positive=None)})
    assert "t.jsonl row 1: " in message
    assert expected in message


# ---- one cell

CELLS = [
    ({"views": "NaN"}, "views = 'NaN': expected a whole number"),
    ({"views": "inf"}, "views = 'inf': expected a whole number"),
    ({"views": "-1"}, "views = '-1': expected a whole number"),
    ({"views": "1.5"}, "views = '1.5': expected a whole number"),
    ({"views": "1_000"}, "views = '1_000': expected a whole number"),
    ({"views": "9223372036854775808"}, "expected a whole number"),
    ({"weight": "-1"}, "weight = '-1': expected a finite number above 0"),
    ({"weight": "0"}, "weight = '0': expected a finite number above 0"),
    ({"weight": "nan"}, "weight = 'nan': expected a finite number above 0"),
    ({"weight": "1e999"}, "weight = '1e999': expected a finite number above 0"),
    ({"posterior_icd": "inf"}, "posterior_icd = 'inf': expected a finite number"),
    ({"split": "validation"}, "split = 'validation': expected one of train, val, test, traffic"),
    ({"sha256": "abc"}, "sha256 = 'abc': expected 64 hexadecimal digits"),
    ({"published_at": "yesterday"}, "published_at = 'yesterday': expected ISO 8601"),
    ({"published_at": "0001-01-01T00:00:00+14:00"}, "expected ISO 8601"),
    ({"title": "x" * (MAX_TEXT + 1)}, f"title has {MAX_TEXT + 1} characters: expected at most {MAX_TEXT}"),
    ({"stickers": '["a", null]'}, "stickers holds an empty item"),
    ({"label": "yes"}, "label = 'yes': expected 0, 1 or empty"),
]


@pytest.mark.parametrize(("change", "expected"), CELLS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_bad_cell_is_named(tmp_path: Path, change: dict[str, str], expected: str, kind: str) -> None:
    rows = [{"file_name": "a.mp4", "label": "1", **dict.fromkeys(change)}, {"file_name": "b.mp4", **change}]
    path = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pd.DataFrame(rows).to_parquet(path)
    message = refusal(path, {"icd": LabelSource(column="label", positive=None)})
    assert f"t.{kind} row 2: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"file_name": "a.mp4", "views": NaN}', "NaN is not a JSON number"),
        ('{"file_name": "a.mp4", "file_name": "b.mp4"}', "a key occurs twice"),
        ('["a.mp4"]', "expected an object, got list"),
        ("[" * 100_000, "not usable as JSON"),
        ('{"file_name": "a\\u0000.mp4"}', "file_name holds a NUL character"),
        ('{"file_name": "\\ud800.mp4"}', "lone surrogate"),
        ('{"title": "no file"}', "no column file_name"),
        ('{"file_name": {"path": "a.mp4"}}', "file_name = {'path': 'a.mp4'}: expected text"),
        ('{"file_name": "a.mp4", "views": true}', "views = True: expected a whole number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"file_name": "first.mp4"}\n\n' + line)
    message = refusal(tmp_path / "t.jsonl")
    assert "t.jsonl row 3: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "no rows"),
        (b"file_name,title\n", "no rows"),
        (b"file_name,title,title\na.mp4,x,y\n", "row 1: column 'title' twice in the header"),
        (b"file_name,,title\na.mp4,x,y\n", "row 1: a column without a name"),
        (b"file_name,title\na.mp4\n", "row 2: 1 fields: expected 2"),
        (b"file_name,title\na.mp4,x\nb.mp4,y,z\n", "row 3: 3 fields: expected 2"),
        (b'file_name,title\na.mp4,"x\n', "row 2: not readable as CSV"),
        (b'file_name,title\n"a.mp4"x,y\n', "row 2: not readable as CSV"),
        (b"file_name,title\na.mp4,\xff\n", "row 2: byte 7 of the line is not UTF-8"),
        (b"file_name,title\na.mp4,x\0y\n", "row 2: holds a NUL byte"),
        (b"name;title\na.mp4;x\n", "no column file_name"),
        (b'file_name,title\na.mp4,"two\nlines"\nb.mp4,x,y\n', "row 4: 3 fields: expected 2"),
        (b"file_name,video_id\na.mp4,1\nb.mp4,\n", "row 3: none, but a video_id in "),
    ],
)
def test_a_bad_csv_is_named(tmp_path: Path, text: bytes, expected: str) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    message = refusal(tmp_path / "t.csv")
    assert "t.csv" in message
    assert expected in message


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbffile_name\na.mp4\n")
    assert rows_of(tmp_path / "t.csv")[0]["uri"] == "a.mp4"


@pytest.mark.parametrize(
    ("name", "start"),
    [("t.csv", b'file_name,title\na.mp4,"'), ("t.csv", b""), ("t.jsonl", b'{"file_name": "a.mp4", "title": "')],
)
def test_a_line_of_a_gigabyte_is_not_read(tmp_path: Path, name: str, start: bytes) -> None:
    with (tmp_path / name).open("wb") as stream:
        stream.write(start)
        stream.truncate(2**30)
    assert "longer than 1048576 bytes" in refusal(tmp_path / name)


def test_a_quote_left_open_is_not_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file_name,title\n" + 'a.mp4,"' + ("x" * 50 + '\n","') * 40_000)
    assert "longer than 1048576 bytes" in refusal(tmp_path / "t.csv")


# ---- Parquet


def test_a_column_too_large_is_refused_from_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"file_name": ["a.mp4"], "title": ["x" * 5000]}).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr(parquet_reader, "_MAX_COLUMN_BYTES", 4000)
    assert "row group 0, column title: " in refusal(tmp_path / "t.parquet")
    monkeypatch.undo()
    monkeypatch.setattr(parquet_reader, "_MAX_COLUMN_VALUES", 0)
    assert "1 values: expected at most" in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("column", ["title", "stickers"])
def test_a_text_that_a_dictionary_would_multiply_is_refused(tmp_path: Path, column: str) -> None:
    long = "x" * (5 * MAX_TEXT)
    values = [long if column == "title" else [long]] * 300
    pq.write_table(pa.table({"file_name": [f"{i}.mp4" for i in range(300)], column: values}), tmp_path / "t.parquet")
    assert f"row group 0: {column} holds a text of {5 * MAX_TEXT} bytes" in refusal(tmp_path / "t.parquet")


def test_lists_that_a_dictionary_would_multiply_are_refused(tmp_path: Path) -> None:
    rows, items = 400, 6000  # all items in the last row
    text = pa.DictionaryArray.from_arrays(pa.array([0] * items, pa.int32()), ["x" * 400_000])
    stickers = pa.ListArray.from_arrays([*[0] * rows, items], text)
    names = [f"{number}.mp4" for number in range(rows)]
    pq.write_table(pa.table({"file_name": names, "stickers": stickers}), tmp_path / "t.parquet", store_schema=False)
    assert (tmp_path / "t.parquet").stat().st_size < 10**6
    assert "stickers has 6399 items of up to 400000 bytes" in refusal(tmp_path / "t.parquet")


def test_parquet_with_a_column_twice_or_bad_text(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a.mp4"]), pa.array(["b"]), pa.array(["c"])], ["uri", "title", "title"])
    pq.write_table(twice, tmp_path / "t.parquet")
    assert "column 'title' twice" in refusal(tmp_path / "t.parquet")
    raw = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"uri": ["a.mp4", "b.mp4"], "title": raw}), tmp_path / "t.parquet")
    assert "t.parquet row 2: holds text that is not UTF-8" in refusal(tmp_path / "t.parquet")


def test_nan_is_no_gap(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.mp4"], "views": [float("nan")]}), tmp_path / "t.parquet")
    assert "row 1: views = nan: expected text or empty" in refusal(tmp_path / "t.parquet")


# ---- over all rows


def test_a_column_per_row_is_refused(tmp_path: Path) -> None:
    lines = (json.dumps({"file_name": f"{number}.mp4", f"key {number}": 1}) for number in range(1200))
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert "row 1000: more than 1000 different columns" in refusal(tmp_path / "t.jsonl")


def test_times_become_utc(tmp_path: Path) -> None:
    times = ["2026-01-01T08:00:00+08:00", "2026-01-01 00:00:00Z", ""]
    write_csv(tmp_path, [{"file_name": f"{i}.mp4", "published_at": time} for i, time in enumerate(times)])
    assert [row["published_at"] for row in rows_of(tmp_path)] == ["2026-01-01T00:00:00+00:00"] * 2 + [None]


def test_times_with_and_without_offset_do_not_mix(tmp_path: Path) -> None:
    times = ["2026-01-01", "", "2026-01-01T00:00:00Z"]
    write_csv(tmp_path, [{"file_name": f"{i}.mp4", "published_at": time} for i, time in enumerate(times)])
    message = refusal(tmp_path)
    assert "row 4: an offset in published_at, but no offset in " in message
    assert "metadata.csv row 2" in message


def test_the_same_name_in_many_folders(tmp_path: Path) -> None:
    write_csv(tmp_path, [{"file_name": f"{i}/video.mp4"} for i in range(3)])
    ids = [row["video_id"] for row in rows_of(tmp_path)]
    assert len(set(ids)) == 3
    assert all(video_id.startswith("video-") for video_id in ids)
    write_csv(tmp_path, [{"file_name": "https://h/a.mp4?signature=s3cret"}])
    signed = rows_of(tmp_path)[0]["video_id"]
    write_csv(tmp_path, [{"file_name": "https://h/a.mp4?signature=other"}])
    assert rows_of(tmp_path)[0]["video_id"] == signed
    assert signed.startswith("a-")


def test_a_table_that_changes_under_the_reader(tmp_path: Path) -> None:
    table = open_table(write_csv(tmp_path, ROWS), labels={})
    write_csv(tmp_path, [*ROWS, {**ROWS[0], "file_name": "c.mp4"}])
    with pytest.raises(DataError, match="changed while it was read"):
        list(table.rows())


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12).map(str.strip)
TABLE = st.lists(
    st.fixed_dictionaries(
        {
            "title": TEXT,
            "stickers": st.lists(TEXT.filter(bool), max_size=3),
            "views": st.none() | st.integers(0, 2**40),
            "weight": st.none() | st.floats(1e-6, 1e6),
            "creator_id": st.none() | TEXT.filter(bool),
            "published_at": st.none() | st.datetimes(datetime(1990, 1, 1)).map(lambda t: t.isoformat()),
            "split": st.sampled_from([None, "train", "val", "test", "traffic"]),
            "label": st.sampled_from([None, 0, 1]),
            "posterior_icd": st.none() | st.floats(0, 1),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(TABLE)
def test_the_format_makes_no_difference(tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"file_name": f"{number}.mp4", **row} for number, row in enumerate(table)]
    flat = [{**row, "stickers": json.dumps(row["stickers"])} for row in rows]
    pd.DataFrame(flat, dtype=object).to_csv(folder / "t.csv", index=False)
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table(columns), folder / "t.parquet")
    labels = {"icd": LabelSource(column="label", positive=None)}
    frames = [pd.DataFrame(rows_of(folder / f"t.{kind}", labels)) for kind in ("csv", "jsonl", "parquet")]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])
