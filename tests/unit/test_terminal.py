"""Lines, cells, Markdown and log records that strangers' texts cannot forge."""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from coefvq.errors import DataError
from coefvq.terminal import cell, echo, echo_json, markdown, printable, progress, protect

HOSTILE = "a\x1b[2Jb\nerror: forged\r\x9b31m\u202eevil\u2066\u2028\x85\x00[red]x[/red]\udcff"
OBEYED = {
    *map(chr, range(32)),
    *map(chr, range(0x7F, 0xA0)),
    "\u2028",
    "\u2029",
    *"\u202a\u202b\u202c\u202d\u202e\u2066",
}


@given(st.text(st.characters(exclude_categories=[])))
def test_no_character_that_a_terminal_obeys_remains(text: str) -> None:
    shown = printable(text)
    assert not OBEYED & set(shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202e\U000e0041\udcff", "\\u202e\\U000e0041\\udcff"),
        ("naïve 日本 👨‍👩‍👧 C:\\x", "naïve 日本 👨‍👩‍👧 C:\\x"),
    ],
)
def test_escapes_are_visible_and_other_text_is_left_alone(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_is_one_clean_line_wherever_it_goes() -> None:
    error = DataError(f"clip {HOSTILE}: not at https://u:pw@host/x?sig=1; check it")
    for text in (str(error), f"{error}", repr(error), str(pickle.loads(pickle.dumps(error)))):  # noqa: S301
        assert not OBEYED & set(text)
        assert "pw" not in text
        assert "sig=1" not in text


def test_a_table_shows_markup_and_escapes_as_text() -> None:
    table = Table(title=cell(HOSTILE))
    table.add_column(cell("[bold]id[/bold]"))
    table.add_row(cell(HOSTILE))
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=200).print(table)
    text = stream.getvalue()
    assert "[red]x[/red]" in text
    assert "[bold]id[/bold]" in text
    assert "\x1b[2J" not in text
    assert not any(line.startswith("error") for line in text.splitlines())


def test_markdown_cannot_hold_a_heading_link_cell_or_html() -> None:
    shown = markdown("# x\n\n[click](https://u:p@evil/?a) | <script> `x` **b** &lt;")
    assert "\n" not in shown
    assert shown.endswith("&amp;lt;")
    for part in ("[click]", "<script>", " | ", "`x`", "**b**", "u:p"):
        assert part not in shown


def test_json_and_lines_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"id": HOSTILE + "\x7f", "uri": "https://u:pw@host/x"})
    echo(HOSTILE, "second")
    printed = capsys.readouterr().out
    lines = printed.split("\n")
    assert len(lines) == 4
    assert json.loads(lines[0]) == {"id": HOSTILE + "\x7f", "uri": "https://***@host/x"}
    assert not (OBEYED - {"\n"}) & set(printed)


def test_the_title_of_a_bar_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(HOSTILE, 1) as advance:
        advance(1)
    assert capsys.readouterr().err.splitlines() == [printable(HOSTILE) + ": 1 done"]


@pytest.mark.parametrize("debug", ["", "1"])
def test_log_records_are_clean_and_their_traceback_is_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    monkeypatch.setenv("COEFVQ_DEBUG", debug)
    before = logging.getLogRecordFactory()
    try:
        protect()
        protect()
        stream = io.StringIO()
        logger = logging.Logger("test")
        logger.addHandler(logging.StreamHandler(stream))
        logger.warning("id %s", HOSTILE)
        try:
            raise RuntimeError("https://u:pw@host/x?sig=1")
        except RuntimeError:
            logger.exception("failed")
            logger.warning("as text: %s", traceback.format_exc())
    finally:
        logging.setLogRecordFactory(before)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "id a\\x1b[2Jb\nerror" in text  # a message may have lines; each of them is clean
    assert "failed" in text
    assert text.count("Traceback") == (2 if debug else 0)
    assert "pw" not in text
    assert "sig=1" not in text
