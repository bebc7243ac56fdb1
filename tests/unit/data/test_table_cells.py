"""Ids and titles stay what they were written as, whatever wrote the table; separators and misspelt columns are told."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coefvq.config import LabelSource
from coefvq.data.importers import import_table, open_table
from coefvq.data.importers.columns import Expected, table_columns
from coefvq.data.importers.text_readers import read_csv
from coefvq.data.raw_table import canonical_rows, column, read_chunks, same_facts, to_chunks, write_table
from coefvq.errors import DataError

NUMBERS = {"icd": LabelSource(column="label_icd", positive=None)}
LARGEST = 2**53


def rows_of(source: Path, labels: dict[str, LabelSource] | None = None) -> list[dict[str, Any]]:
    return list(open_table(source, labels=labels or {}).rows())


def refusal(source: Path, labels: dict[str, LabelSource] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        open_table(source, labels=labels or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format that the suffix names; a CSV as pandas writes it."""
    if path.suffix == ".csv":
        pd.DataFrame(rows, dtype=object).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


# ---- numbers as ids


def test_an_integer_column_with_a_gap_is_no_float_column(tmp_path: Path) -> None:
    """pandas exports creators 42, (empty), 7 and ids 1001, 1002 as float64; read back they are what they were."""
    frame = pd.DataFrame({"file_name": [f"{i}.mp4" for i in range(3)], "creator_id": [42, None, 7]})
    frame = frame.assign(video_id=[1001.0, 1002.0, 1e5], title=[1.0, 2.5, None], label_icd=[1, None, 0])
    assert frame["creator_id"].dtype == frame["label_icd"].dtype == np.float64
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in ("t.parquet", "t.jsonl"):
        rows = rows_of(tmp_path / name, NUMBERS)
        assert [row["creator_id"] for row in rows] == ["42", None, "7"]
        assert [row["video_id"] for row in rows] == ["1001", "1002", "100000"]
        assert [row["title"] for row in rows] == ["1", "2.5", ""]
        assert [row["label_icd"] for row in rows] == [1, None, 0]


@pytest.mark.parametrize("name", ["video_id", "creator_id", "source_id", "title"])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_float_above_2_to_the_53_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    """1475000000000000001, …2 and …3 are one and the same float: three creators would be one."""
    fits = table(tmp_path / f"a.{kind}", [{"file_name": "a.mp4", name: float(LARGEST)}])
    assert rows_of(fits)[0][name] == str(LARGEST)
    large = [{"file_name": "a.mp4", name: None}, {"file_name": "b.mp4", name: 1475000000000000001.0}]
    message = refusal(table(tmp_path / f"b.{kind}", [large[1], large[0]] if name == "video_id" else large))
    assert f"b.{kind} row {1 if name == 'video_id' else 2}: {name} = 1.475e+18" in message
    assert f"export the column {name} as string or Int64" in message


def test_short_floats_lose_digits_earlier(tmp_path: Path) -> None:
    for kind, exact in ((np.float32, 2**24), (np.float16, 2**11)):
        for value, fits in ((exact, True), (2 * exact, False)):
            cells = pa.array(np.array([value], dtype=kind))
            pq.write_table(pa.table({"file_name": ["a.mp4"], "creator_id": cells}), tmp_path / "t.parquet")
            if fits:
                assert rows_of(tmp_path / "t.parquet")[0]["creator_id"] == str(value)
            else:
                assert "row 1: creator_id = " in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("7", "7"),
        ("1475000000000000001", "1475000000000000001"),
        ("9" * 40, "9" * 40),
        ("42.0", "42"),
        ('"007"', "007"),
        ('"1e5"', "1e5"),
        ('"NA"', "NA"),
        ("1e5", None),
        ("1.475e18", None),
        ("9007199254740993.0", None),  # the next float is another number
        ("true", None),
        ("1e400", None),
        ("[1]", None),
    ],
)
@pytest.mark.parametrize("name", ["video_id", "creator_id", "title"])
def test_a_json_id_is_kept_or_refused(tmp_path: Path, name: str, cell: str, expected: str | None) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"file_name": "a.mp4", "{name}": {cell}, "weight": 1e-3}}')
    if expected is None:
        assert f"t.jsonl row 1: {name} = " in refusal(tmp_path / "t.jsonl")
    else:
        row = rows_of(tmp_path / "t.jsonl")[0]
        assert (row[name], row["weight"]) == (expected, 0.001)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([2**63 - 1, 7], pa.int64()), [str(2**63 - 1), "7"]),
        (pa.array([2**64 - 1, 7], pa.uint64()), [str(2**64 - 1), "7"]),
        (pa.array([Decimal("42.00"), Decimal("1.50")]), ["42", "1.50"]),
        (pa.array([Decimal(10**30), Decimal(7)], pa.decimal128(38, 0)), [str(10**30), "7"]),
        (pa.array(["NA", "null"]).dictionary_encode(), ["NA", "null"]),
        (pa.array(["nan", "None"], pa.large_string()), ["nan", "None"]),
        (pa.array([1_700_000_000, 0], pa.timestamp("s")), ["2023-11-14T22:13:20", "1970-01-01T00:00:00"]),
        (pa.array([b"007", b"7"]), None),
        (pa.array([True, False]), None),
        (pa.array([[1], [2]]), None),
    ],
)
def test_parquet_types_as_ids(tmp_path: Path, cells: pa.Array, expected: list[str] | None) -> None:
    pq.write_table(pa.table({"file_name": ["a.mp4", "b.mp4"], "video_id": cells}), tmp_path / "t.parquet")
    if expected is None:
        assert "row 1: video_id = " in refusal(tmp_path / "t.parquet")
    else:
        assert [row["video_id"] for row in rows_of(tmp_path / "t.parquet")] == expected


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_words_that_pandas_takes_for_gaps_stay_text(tmp_path: Path, kind: str) -> None:
    words = ["NA", "null", "None", "nan", "N/A", "NaN", "#N/A", "007", "7", "1e5", "100000", "True"]
    rows = [{"file_name": f"{i}.mp4", "video_id": word, "title": word} for i, word in enumerate(words)]
    source = table(tmp_path / f"t.{kind}", rows)
    assert [(row["video_id"], row["title"]) for row in rows_of(source)] == [(word, word) for word in words]
    frame = import_table(source).frame
    assert (frame["video_id"].tolist(), frame["title"].tolist()) == (words, words)


def test_a_positive_value_that_is_a_whole_float(tmp_path: Path) -> None:
    pd.DataFrame({"file_name": ["a.mp4", "b.mp4"], "kind": [3.0, None]}).to_parquet(tmp_path / "t.parquet")
    labels = {"icd": LabelSource(column="kind", positive=("3",))}
    assert [row["label_icd"] for row in rows_of(tmp_path / "t.parquet", labels)] == [1, None]


# ---- separators and encodings


def spoken(source: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    capsys.readouterr()
    return rows_of(source, NUMBERS), capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        b"file_name;title;label_icd\r\na.mp4;Cafe;1\r\n",
        b"\xef\xbb\xbffile_name;title;label_icd\r\na.mp4;Caf\xc3\xa9 12,5;1\r\n",
        b"sep=;\r\nfile_name;title;label_icd\r\na.mp4;x;1\r\n",
        b'file_name;title;label_icd\na.mp4;"a;b, ""c""\nd";1\n',
    ],
)
def test_semicolons_as_a_european_excel_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    (tmp_path / "metadata.csv").write_bytes(text)
    rows, said = spoken(tmp_path / "metadata.csv", capsys)
    assert said == "metadata.csv: fields are separated by ;\n"
    title = {b"Cafe": "Cafe", b"12,5": "Café 12,5", b"sep=": "x"}
    wanted = next((word for mark, word in title.items() if mark in text), 'a;b, "c"\nd')
    assert [(row["uri"], row["title"], row["label_icd"]) for row in rows] == [("a.mp4", wanted, 1)]


def test_tabs_and_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("t.tsv", "t.csv"):
        (tmp_path / name).write_text("file_name\ttitle\tlabel_icd\na.mp4\ta, b; c\t1\n")
        rows, said = spoken(tmp_path / name, capsys)
        assert (rows[0]["title"], said) == ("a, b; c", f"{name}: fields are separated by a tab\n")
    (tmp_path / "t.csv").write_text("file_name,title,label_icd,a;b;c;d\na.mp4,x;y,1,\n")
    assert spoken(tmp_path / "t.csv", capsys)[1] == ""
    (tmp_path / "raw").mkdir()
    (tmp_path / "t.tsv").rename(tmp_path / "raw" / "metadata.tsv")
    assert spoken(tmp_path / "raw", capsys)[0][0]["title"] == "a, b; c"


def test_a_header_that_two_separators_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file_name;title,weight\na.mp4;x,1\n")
    assert "row 1: fields may be separated by , as well as by ;" in refusal(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text('sep=;\nfile_name;"title,weight"\na.mp4;x\nb.mp4;y;z\n')
    assert "row 4: 3 fields: expected 2 as in the header; quote texts that hold ;" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("cell", "weight"),
    [
        ("0,75", 0.75),
        ("12,5", 12.5),
        ("0,125", 0.125),
        ("1,2345", 1.2345),
        ("1.5", 1.5),
        ("1,234", None),
        ("1.234,5", None),
    ],
)
def test_decimal_commas(tmp_path: Path, cell: str, weight: float | None) -> None:
    (tmp_path / "t.csv").write_text(f"file_name;weight\na.mp4;{cell}\n")
    if weight is None:  # 1,234 may be a thousand and more
        assert f"row 2: weight = '{cell}': expected a finite number above 0 with a decimal point" in refusal(
            tmp_path / "t.csv"
        )
    else:
        assert rows_of(tmp_path / "t.csv")[0]["weight"] == weight
    (tmp_path / "t.csv").write_text('file_name,weight\na.mp4,"0,75"\n')
    assert "weight = '0,75': expected" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file_name,title\na.mp4,é\n".encode("utf-16"), "t.csv: is UTF-16, not UTF-8; save the table as UTF-8"),
        ("file_name,title\na.mp4,é\n".encode("utf-16-be"), "row 1: holds a NUL byte; save the table as UTF-8"),
        ("file_name,title\na.mp4,é\n".encode("latin-1"), "row 2: byte 7 of the line is not UTF-8; save the table"),
        (b"label,file_name\n1,a.mp4,\n", "row 2: 3 fields: expected 2"),
        (b"label,file_name,\n1,a.mp4,\n", "row 1: a column without a name"),
    ],
)
def test_tables_of_other_encodings_and_shapes(tmp_path: Path, text: bytes, expected: str) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    assert expected in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_quoted_line_ends(tmp_path: Path, end: str) -> None:
    lines = ["file_name,title", f'a.mp4,"two{end}lines"', "b.mp4,x", "c.mp4,"]
    (tmp_path / "t.csv").write_bytes(end.join([*lines, ""]).encode())
    assert [row["title"] for row in rows_of(tmp_path / "t.csv")] == [f"two{end}lines", "x", ""]
    (tmp_path / "t.csv").write_bytes(end.join([*lines, "d.mp4,x,y"]).encode())
    assert "row 6: 3 fields" in refusal(tmp_path / "t.csv")


NAMES = ("file_name", "title", "weight", "label_icd", "views", "my own")


@settings(deadline=None)
@given(
    st.sampled_from(",;\t"),
    st.permutations(NAMES).flatmap(lambda names: st.integers(2, len(names)).map(lambda n: names[:n])),
    st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8), min_size=1),
)
def test_the_separator_is_found(
    tmp_path_factory: pytest.TempPathFactory, separator: str, names: list[str], cells: list[str]
) -> None:
    path = tmp_path_factory.mktemp("separators") / "t.csv"
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    rows = [[cell] * len(names) for cell in cells]
    writer.writerows([names, *rows])
    path.write_text(text.getvalue(), newline="")
    found = read_csv(path, table_columns(["label_icd"]))
    assert found.separator == separator
    assert [list(row.values()) for _, row in found.rows] == rows


# ---- names of columns


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Title", "title"),
        ("TITLE", "title"),
        ("titel", "title"),
        ("tittle", "title"),
        ("Video_ID", "video_id"),
        ("video id", "video_id"),
        ("videoId", "video_id"),
        ("creator_ids", "creator_id"),
        ("view", "views"),
        ("wieght", "weight"),
        ("publishd_at", "published_at"),
        ("sticker", "stickers"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_next_to_a_known_one_is_asked_about(tmp_path: Path, kind: str, name: str, meant: str) -> None:
    source = table(tmp_path / f"t.{kind}", [{"file_name": "a.mp4", name: "1"}])
    assert f": column '{name}': did you mean '{meant}'?" in refusal(source)


def test_a_misspelt_path_or_label_column(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", [{"file_nmae": "a.mp4", "label": "1"}])
    assert "column 'file_nmae': did you mean 'file_name'?" in refusal(source)
    source = table(tmp_path / "t.csv", [{"file_name": "a.mp4", "Label": "1"}])
    assert "column 'Label': did you mean 'label'?" in refusal(source, LABEL)
    rows = [{"file_name": "a.mp4", "title": "x"}, {"file_name": "b.mp4", "Title": "y"}]
    assert "t.jsonl row 2: column 'Title'" in refusal(table(tmp_path / "t.jsonl", rows))


LABEL = {"icd": LabelSource(column="label", positive=None)}


@pytest.mark.parametrize(
    "own",
    [
        {"height": 1, "width": 2, "duration_s": 3.0},  # the manifest's own
        {"paths": "x", "messages_n": 1, "url": "y"},  # another column names the clip
        {"title": "a", "Title": "b"},
        {"label_a": 1, "posterior_a": 0.5, "note": "", "lang": "de", "label": 1, "y": 0, "id": 5, "name": "n"},
        {"subtitle": "x", "weights": 1, "weight": 1.0, "reviews": 3},
    ],
)
def test_columns_of_a_users_own_are_left_alone(tmp_path: Path, own: dict[str, Any]) -> None:
    for kind in ("csv", "parquet", "jsonl"):
        assert len(rows_of(table(tmp_path / f"t.{kind}", [{"file_name": "a.mp4", **own}]))) == 1


@given(st.sampled_from(sorted(table_columns().names)), st.data())
def test_every_single_edit_is_caught(name: str, data: st.DataObject) -> None:
    letter = data.draw(st.sampled_from("abcxyz_09"))
    at = data.draw(st.integers(0, len(name) - 2))
    edited = data.draw(
        st.sampled_from(
            [
                name[:at] + letter + name[at:],
                name[:at] + name[at + 1 :],
                name[:at] + letter + name[at + 1 :],
                name[:at] + name[at + 1] + name[at] + name[at + 2 :],
                name.title(),
            ]
        )
    )
    known = {*table_columns().names, "height"}
    if edited in known or (len(name) < 4 and edited.casefold() != name):
        return
    with pytest.raises(DataError, match="did you mean"):
        Expected(frozenset({name})).check("t.csv", [edited])


# ---- the canonical table of snapshots

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8).map(str.strip)
BREAKS = {"title": "a\rb", "creator_id": 'c\r\n,";\tx', "note": "sep=;", "split": ""}
ROW = st.fixed_dictionaries({"title": TEXT, "creator_id": TEXT, "note": TEXT, "split": st.just("")})


@settings(max_examples=50, deadline=None)
@example([BREAKS], ["NA", "007", "1e5", "x"])
@given(st.lists(ROW, min_size=1, max_size=4), st.lists(TEXT.filter(bool), min_size=4, max_size=4, unique=True))
def test_texts_come_back_from_the_canonical_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], ids: list[str]
) -> None:
    raw = tmp_path_factory.mktemp("canonical")
    rows = [{"uri": f"{i}.mp4", "video_id": ids[i], **row} for i, row in enumerate(rows)]
    names = dict.fromkeys(name for row in rows for name in row)
    given = [{name: value for name, value in row.items() if value} for row in rows]
    for layout in ("files", "reference"):
        write_table(raw, layout, to_chunks(given), names)  # type: ignore[arg-type]
        back = [row for chunk in read_chunks(raw, {}) for row in chunk.to_pylist()]
        assert [{name: row.get(name) or "" for name in names} for row in back] == rows


def test_whole_floats_of_an_older_snapshot_are_the_same_facts(tmp_path: Path) -> None:
    """Older versions wrote creator 42 of a float column as 42.0; the same batch again is nothing new."""
    frame = pd.DataFrame({"file_name": ["a.mp4"], "creator_id": [42.0], "label_icd": [1.0], "note": [3.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    (row,) = canonical_rows(open_table(tmp_path / "t.parquet"), NUMBERS)
    assert (row["creator_id"], row["label_icd"]) == ("42", "1")
    old = {**row, "creator_id": "42.0", "label_icd": "1.0"}
    assert same_facts(old, row) == []
    assert same_facts({**old, "creator_id": "43.0"}, row) == ["creator_id"]
    assert column("creator_id").type == pa.string()
