"""Mutations of tables: CSV and JSONL as text, Parquet through pandas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.fuzz_cli.damage import Mutation, Words, replace_bytes
from tests.fuzz_cli.documents import STRINGS

if TYPE_CHECKING:
    import pandas as pd

Rows = list[list[str]]
CsvChange = Callable[[Random, Rows], Words]
Change = Callable[[Random, "pd.DataFrame"], tuple["pd.DataFrame", Words]]
IDS = ("video_id",)
PATHS = ("file_name", "uri")
#: places that no row may lead to
ELSEWHERE = (
    "../outside/secret.mp4",
    "/etc/passwd",
    "http://127.0.0.1:9/clip.mp4",
    "file:///etc/passwd",
    "no_such_clip.mp4",
    "pipe:0",
    "data",
    "x" * 300 + ".mp4",
    "\x1b[2J.mp4",
    "a\nb.mp4",
)


def _rows(path: Path) -> Rows:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def _written(rows: Rows, delimiter: str = ",", end: str = "\n") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def changed_csv(change: CsvChange) -> Callable[[Random, Path], Words]:
    """A mutation from a change of the rows, the header being the first."""

    def apply(rng: Random, path: Path) -> Words:
        rows = _rows(path)
        words = change(rng, rows)
        replace_bytes(path, _written(rows))
        return words

    return apply


def trailing_comma(rng: Random, rows: Rows) -> Words:
    for row in rows[1:]:
        row.append("")
    return ()


def long_row(rng: Random, rows: Rows) -> Words:
    at = rng.randrange(1, len(rows))
    rows[at].append("more")
    return ()


def short_row(rng: Random, rows: Rows) -> Words:
    at = rng.randrange(1, len(rows))
    rows[at].pop()
    return ()


def column_twice(rng: Random, rows: Rows) -> Words:
    at = rng.randrange(len(rows[0]))
    for row in rows:
        row.append(row[at])
    return (rows[0][at],)


def column_near(rng: Random, rows: Rows) -> Words:
    """A column that the reader knows, with two letters exchanged."""
    at = rng.choice([n for n, name in enumerate(rows[0]) if name in KNOWN])
    name = rows[0][at]
    place = rng.choice([n for n in range(1, len(name) - 1) if name[n] != name[n + 1]])
    rows[0][at] = name[:place] + name[place + 1] + name[place] + name[place + 2 :]
    return (rows[0][at], name)


def column_case(rng: Random, rows: Rows) -> Words:
    at = rng.choice([n for n, name in enumerate(rows[0]) if name in KNOWN])
    name = rows[0][at]
    rows[0][at] = rng.choice((name.upper(), name.capitalize()))
    return (rows[0][at], name)


def column_gone(rng: Random, rows: Rows) -> Words:
    """The column that a reader cannot do without."""
    at = next(n for n, name in enumerate(rows[0]) if name in NEEDED)
    name = rows[0][at]
    for row in rows:
        del row[at]
    return (name,)


def id_twice(rng: Random, rows: Rows) -> Words:
    at = rows[0].index("video_id") if "video_id" in rows[0] else 0
    rows[2][at] = rows[1][at]
    return (rows[1][at],)


def id_empty(rng: Random, rows: Rows) -> Words:
    at = rows[0].index("video_id") if "video_id" in rows[0] else 0
    rows[2][at] = ""
    return ("video_id", rows[0][at])


def odd_text(rng: Random, rows: Rows) -> Words:
    row, at = rng.randrange(1, len(rows)), rng.randrange(len(rows[0]))
    rows[row][at] = rng.choice([text for text in STRINGS if text != "\ud800"])
    return ()


def odd_header(rng: Random, rows: Rows) -> Words:
    rows[0][rng.randrange(len(rows[0]))] = rng.choice([text for text in STRINGS if text != "\ud800"])
    return ()


def bad_label(rng: Random, rows: Rows) -> Words:
    at = next(n for n, name in enumerate(rows[0]) if name.startswith("label"))
    rows[rng.randrange(1, len(rows))][at] = rng.choice(("2", "yes", "-1", "0.5", "inf"))
    return (rows[0][at],)


def bad_score(rng: Random, rows: Rows) -> Words:
    at = rows[0].index(rng.choice(("base", "mllm")))
    for row in rows[1:]:
        row[at] = rng.choice(("nan", "inf", "-inf", "text"))
    return (rows[0][at],)


def elsewhere(rng: Random, rows: Rows) -> Words:
    """A row that leads to where it may not; the reader has to say so, and to touch nothing."""
    at = next(n for n, name in enumerate(rows[0]) if name in PATHS)
    rows[1][at] = rng.choice(ELSEWHERE)
    return (rows[1][at][:40].split("\n")[0].strip("\x1b"), "clip0")


def words_like_na(rng: Random, rows: Rows) -> Words:
    at = rows[0].index("title")
    for row, word in zip(rows[1:], ("NA", "null", "nan", "None", "N/A", "#N/A"), strict=False):
        row[at] = word
    return ()


def header_only(rng: Random, rows: Rows) -> Words:
    del rows[1:]
    return ()


def _form(
    delimiter: str = ",", end: str = "\n", head: bytes = b"", tail: bytes = b""
) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        replace_bytes(path, head + _written(_rows(path), delimiter, end) + tail)
        return ()

    return apply


def _bytes(change: Callable[[Random, bytes], bytes]) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        replace_bytes(path, change(rng, path.read_bytes()))
        return ()

    return apply


def unclosed_quote(rng: Random, data: bytes) -> bytes:
    head, _, tail = data.partition(b"\n")
    return head + b'\n"' + tail


KNOWN = ("file_name", "title", "label_icd", "video_id", "base", "mllm", "label")
NEEDED = ("file_name", "uri", "base", "label")

CSV = (
    Mutation("trailing_comma", changed_csv(trailing_comma), "refuse"),
    Mutation("long_row", changed_csv(long_row), "refuse"),
    Mutation("short_row", changed_csv(short_row), "refuse"),
    Mutation("column_twice", changed_csv(column_twice), "refuse"),
    Mutation("column_near", changed_csv(column_near), "refuse"),
    Mutation("column_case", changed_csv(column_case), "refuse"),
    Mutation("column_gone", changed_csv(column_gone), "refuse"),
    Mutation("id_twice", changed_csv(id_twice), "refuse"),
    Mutation("id_empty", changed_csv(id_empty)),
    Mutation("odd_text", changed_csv(odd_text)),
    Mutation("odd_header", changed_csv(odd_header)),
    Mutation("header_only", changed_csv(header_only)),
    Mutation("unclosed_quote", _bytes(unclosed_quote), "refuse"),
    Mutation("not_utf8", _bytes(lambda rng, data: data + b'\xff\xfe,"\x80\n'), "refuse"),
    Mutation("nul_byte", _bytes(lambda rng, data: data[:30] + b"\x00" + data[30:])),
    Mutation("utf16", _bytes(lambda rng, data: data.decode().encode("utf-16"))),
    Mutation("blank", _bytes(lambda rng, data: b"\n\n"), "refuse"),
    Mutation("huge_field", _bytes(lambda rng, data: data.rstrip(b"\n") + b"x" * 1_000_000 + b"\n")),
    Mutation("semicolon", _form(";"), "same"),
    Mutation("tab", _form("\t"), "same"),
    Mutation("carriage_returns", _form(end="\r\n"), "same"),
    Mutation("byte_order_mark", _form(head=b"\xef\xbb\xbf"), "same"),
    Mutation("blank_end", _form(tail=b"\n\n"), "same"),
)
#: for tables with labels, with scores, with paths
LABELS = (Mutation("bad_label", changed_csv(bad_label), "refuse"),)
SCORES = (Mutation("bad_score", changed_csv(bad_score), "refuse"),)
CLIPS = (
    Mutation("elsewhere", changed_csv(elsewhere), "refuse"),
    Mutation("words_like_na", changed_csv(words_like_na), "accept"),
)


def changed_parquet(change: Change) -> Callable[[Random, Path], Words]:
    """A mutation from a change of the frame."""

    def apply(rng: Random, path: Path) -> Words:
        import pandas as pd

        frame, words = change(rng, pd.read_parquet(path))
        path.unlink()
        frame.to_parquet(path, index=False)
        return words

    return apply


def _drop_column(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = rng.choice(list(frame.columns))
    return frame.drop(columns=name), (name,)


def _drop_id(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = "video_id" if "video_id" in frame else frame.columns[0]
    return frame.drop(columns=name), (name,)


def _wrong_type(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = rng.choice(list(frame.columns))
    value: Any = rng.choice(("text", b"\xff", [1, 2], {"a": 1}, True, -1.5, 10**12))
    return frame.assign(**{name: [value] * len(frame)}), (name,)


def _all_null(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = rng.choice(list(frame.columns))
    return frame.assign(**{name: None}), (name,)


def _rows_twice(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    import pandas as pd

    return pd.concat([frame, frame.head(2)]), (str(frame["video_id"].iloc[0]) if "video_id" in frame else "",)


def _no_rows(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    return frame.head(0), ()


def _one_row(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    return frame.head(1), ()


def _odd_number(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    names = [name for name in frame.columns if frame[name].dtype.kind in "fi"]
    if not names:
        return _wrong_type(rng, frame)
    name = rng.choice(names)
    values = frame[name].astype(float)
    values.iloc[: max(1, len(values) // 3)] = rng.choice((float("nan"), float("inf"), float("-inf"), -1.0, 1e300))
    return frame.assign(**{name: values}), (name,)


def _odd_text(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    names = [name for name in frame.columns if frame[name].dtype.kind not in "fib"]
    name = rng.choice(names)
    values = list(frame[name].astype(str))
    values[0] = rng.choice([text for text in STRINGS if text != "\ud800"])
    return frame.assign(**{name: values}), (name,)


def _shuffled_columns(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    names = list(frame.columns)
    rng.shuffle(names)
    return frame[names], ()


def _score_out(value: float) -> Change:
    def change(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
        name = rng.choice(("base", "mllm"))
        return frame.assign(**{name: value}), (name,)

    return change


def _float_ids(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    return frame.assign(video_id=[9007199254740993.0 + 2 * n for n in range(len(frame))]), ("video_id",)


PARQUET = (
    Mutation("drop_column", changed_parquet(_drop_column)),
    Mutation("drop_id", changed_parquet(_drop_id), "refuse"),
    Mutation("wrong_type", changed_parquet(_wrong_type)),
    Mutation("all_null", changed_parquet(_all_null)),
    Mutation("rows_twice", changed_parquet(_rows_twice), "refuse"),
    Mutation("no_rows", changed_parquet(_no_rows), "refuse"),
    Mutation("one_row", changed_parquet(_one_row)),
    Mutation("odd_number", changed_parquet(_odd_number)),
    Mutation("odd_text", changed_parquet(_odd_text)),
    Mutation("shuffled_columns", changed_parquet(_shuffled_columns), "same"),
)
PARQUET_SCORES = (
    Mutation("score_nan", changed_parquet(_score_out(float("nan"))), "refuse"),
    Mutation("score_above_1", changed_parquet(_score_out(1.5)), "refuse"),
    Mutation("score_infinite", changed_parquet(_score_out(float("inf"))), "refuse"),
)
PARQUET_IDS = (Mutation("float_ids", changed_parquet(_float_ids), "refuse"),)


def _lines(change: Callable[[Random, list[str]], Words]) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        lines = path.read_text(encoding="utf-8").splitlines()
        words = change(rng, lines)
        replace_bytes(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
        return words

    return apply


def _line_changed(change: Callable[[Random, dict[str, Any]], None]) -> Callable[[Random, Path], Words]:
    def one(rng: Random, lines: list[str]) -> Words:
        row = json.loads(lines[1])
        change(rng, row)
        lines[1] = json.dumps(row)
        return ()

    return _lines(one)


def _line_set(text: str) -> Callable[[Random, Path], Words]:
    def one(rng: Random, lines: list[str]) -> Words:
        lines[1] = text
        return ()

    return _lines(one)


def _line_key_twice(rng: Random, lines: list[str]) -> Words:
    lines[1] = lines[1].rstrip()[:-1] + ', "title": "again"}'
    return ("title",)


def _odd_value(rng: Random, row: dict[str, Any]) -> None:
    key = rng.choice(list(row))
    row[key] = rng.choice((*STRINGS, 1e400, [1], {"a": 1}, True, None, 10**30))


def _odd_id(rng: Random, row: dict[str, Any]) -> None:
    row["video_id"] = rng.choice((True, [1], {"a": 1}, 1e30))


def _leads_elsewhere(rng: Random, row: dict[str, Any]) -> None:
    row["file_name"] = rng.choice(ELSEWHERE)


JSONL = (
    Mutation("line_cut", _line_set('{"file_name": "a'), "refuse"),
    Mutation("line_no_object", _line_set("[1, 2]"), "refuse"),
    Mutation("line_number", _line_set("7"), "refuse"),
    Mutation("line_deep", _line_set("[" * 100_000), "refuse"),
    Mutation("line_key_twice", _lines(_line_key_twice), "refuse"),
    Mutation("line_odd_value", _line_changed(_odd_value)),
    Mutation("line_odd_id", _line_changed(_odd_id), "refuse"),
    Mutation("line_elsewhere", _line_changed(_leads_elsewhere)),
    Mutation("not_utf8", _bytes(lambda rng, data: data + b'{"file_name": "\xff"}\n'), "refuse"),
)
