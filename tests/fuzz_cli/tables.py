"""Mutations of CSV tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz_cli.damage import Mutation, Words, replace_bytes
from tests.fuzz_cli.documents import STRINGS

Rows = list[list[str]]
CsvChange = Callable[[Random, Rows], Words]
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


def changed_bytes(change: Callable[[Random, bytes], bytes]) -> Callable[[Random, Path], Words]:
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
    Mutation("unclosed_quote", changed_bytes(unclosed_quote), "refuse"),
    Mutation("not_utf8", changed_bytes(lambda rng, data: data + b'\xff\xfe,"\x80\n'), "refuse"),
    Mutation("nul_byte", changed_bytes(lambda rng, data: data[:30] + b"\x00" + data[30:])),
    Mutation("utf16", changed_bytes(lambda rng, data: data.decode().encode("utf-16"))),
    Mutation("blank", changed_bytes(lambda rng, data: b"\n\n"), "refuse"),
    Mutation("huge_field", changed_bytes(lambda rng, data: data.rstrip(b"\n") + b"x" * 1_000_000 + b"\n")),
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
