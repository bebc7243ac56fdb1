"""The structured log of a stream: one line per batch, as JSON or for a terminal, without secrets."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TextIO

from coefvq.redaction import redact_value
from coefvq.terminal import printable
from coefvq.vmp.records import BatchReport

if TYPE_CHECKING:
    from coefvq.vmp.features.values import HeldError

LogForm = Literal["json", "console"]


class StreamLog:
    """Lines about one run; ``consumer`` stands in each."""

    def __init__(self, form: LogForm, out: TextIO, consumer: str) -> None:
        import structlog

        render: Any = structlog.processors.JSONRenderer(sort_keys=True)
        if form == "console":
            render = structlog.dev.ConsoleRenderer(colors=False, sort_keys=True)
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(out),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _clean,
                render,
            ],
            wrapper_class=structlog.BoundLogger,
        ).bind(consumer=consumer)

    def batch(self, report: BatchReport) -> None:
        """A batch was committed."""
        self._logger.info("batch", **report.counts())

    def held(self, error: HeldError) -> None:
        """A feature store is waited for."""
        self._logger.warning("held", reason=str(error))

    def note(self, line: str) -> None:
        """What a person would be told."""
        self._logger.info("note", text=line)


def _clean(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No secret, and no character that forges a second line or moves the cursor."""
    shown: dict[str, Any] = redact_value(dict(line))
    return {name: printable(value) if isinstance(value, str) else value for name, value in shown.items()}
