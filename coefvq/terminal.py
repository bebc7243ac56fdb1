"""What leaves the process as text: lines, tables, JSON, progress bars, log records.

Ids, titles, column names, file names and reasons come from strangers. So no text goes to a terminal, a log or a
Markdown page before ``clean`` has seen it: control characters, which could move the cursor, forge a second line or turn
the reading direction, appear as escapes such as ``\\x1b`` and ``\\n``, and secrets are hidden (``redaction``).
JSON output is redacted too; ``json.dumps`` escapes the rest.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coefvq.redaction import redact, redact_value

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress
    from rich.text import Text

Advance = Callable[[int], None]
#: environment variable that asks for tracebacks
DEBUG = "COEFVQ_DEBUG"
_TRACEBACK = "Traceback (most recent call last)"

# C0 and C1 controls, soft hyphen, marks and overrides of direction, line and paragraph separators, invisible
# characters, halves of surrogate pairs (bytes of a file name that are no UTF-8). Joiners stay: emoji and several
# scripts need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


def printable(text: str) -> str:
    """One line without a character that a terminal would obey; such characters become visible escapes."""
    return _UNSAFE.sub(_escape, text)


def clean(text: object) -> str:
    """``printable`` and without secrets: what may be shown to anybody."""
    return redact(printable(str(text)))


def markdown(text: object) -> str:
    """``clean`` text as Markdown that shows it as it is: no heading, link, cell border or HTML of its own."""
    # HTML entities rather than backslashes: Markdown renderers pass raw tags through
    return _MARKDOWN.sub(r"\\\1", html.escape(clean(text), quote=False))


def echo(*lines: object) -> None:
    """Each argument as one line on stdout."""
    for line in lines:
        print(clean(line))


def say(message: object) -> None:
    """One line on stderr; stdout is kept for results."""
    print(clean(message), file=sys.stderr, flush=True)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """A value as JSON on stdout, keys sorted, secrets hidden; NaN is refused because JSON has none."""
    text = json.dumps(redact_value(value), indent=indent, sort_keys=True, allow_nan=False)
    print(text.replace("\x7f", "\\u007f"))


def cell(text: object, style: str = "") -> Text:
    """A cell, heading or title of a rich table: clean, and never markup."""
    from rich.text import Text

    return Text(clean(text), style)


def size_text(count: float) -> str:
    """Bytes as a person reads them: 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def show(renderable: RenderableType, width: int | None = None) -> None:
    """Print a rich table on stdout; ``width`` is its width where stdout is no terminal."""
    from rich.console import Console

    console = Console()
    (console if width is None or console.is_terminal else Console(width=width)).print(renderable)


def progress_bar(transient: bool = False) -> Progress:
    """A rich progress bar on stderr that takes no title for markup; a ``transient`` one disappears at its end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    title = TextColumn("{task.description}", markup=False)
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    silent = not sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=transient, disable=silent)


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr; where stderr is no terminal, one line at the end instead of many."""
    with progress_bar() as bar:
        task = bar.add_task(clean(title), total=total)

        def advance(count: int) -> None:
            bar.update(task, advance=count)

        yield advance
    if not sys.stderr.isatty():
        say(f"{title}: {total} done")


def protect() -> None:
    """Clean every log record of this process, and print what the terminal's encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not getattr(logging.getLogRecordFactory(), "cleans", False):
        logging.setLogRecordFactory(_CleanRecords(logging.getLogRecordFactory()))


class _CleanRecords:
    """A factory of log records whose message and traceback may be shown."""

    cleans = True

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self._make(*arguments, **more)
        message = _message(record)
        if os.environ.get(DEBUG) != "1":
            # libraries log the traceback of what they then raise; the error's own line follows
            message, record.exc_info = message.partition(_TRACEBACK)[0].rstrip(), None
        # the lines of a message that has several are ours or a library's; each of them is cleaned
        record.msg = "\n".join(map(clean, message.split("\n")))
        record.args = None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))).rstrip("\n")
        return record


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  a library's wrong call must not end the run that logs
        return str(record.msg)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
