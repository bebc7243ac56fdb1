"""The structured log: one line per batch, whatever ids and reasons hold."""

from __future__ import annotations

import io
import json

import pytest

from coefvq.vmp.features.values import HeldError
from coefvq.vmp.records import BatchReport
from coefvq.vmp.stream_log import LogForm, StreamLog

REPORT = BatchReport(offset=12, events=4, live=1, removed=2, ignored=1, dead=1, stale=0)


def lines(form: LogForm, consumer: str = "vmp") -> list[str]:
    out = io.StringIO()
    log = StreamLog(form, out, consumer)
    log.batch(REPORT)
    log.held(HeldError("creators", "redis://:s3cret@host/0: no\nanswer \x1b[2J"))
    log.note("rules: postgresql://ana:s3cret@host/d")
    return out.getvalue().splitlines()


def test_json_has_one_object_per_line() -> None:
    batch, held, note = (json.loads(line) for line in lines("json"))
    stamp = batch.pop("timestamp")
    assert stamp.endswith("Z")
    assert batch == {
        "consumer": "vmp", "dead": 1, "event": "batch", "events": 4, "ignored": 1, "level": "info", "live": 1,
        "offset": 12, "removed": 2, "stale": 0,
    }  # fmt: skip
    assert (held["event"], held["level"]) == ("held", "warning")
    assert "features of creators: redis://***@host/0: no" in held["reason"]
    assert note["text"] == "rules: postgresql://***@host/d"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_is_one_line_without_a_secret(form: LogForm) -> None:
    found = lines(form, "v\nm\x1bp password=s3cret")
    assert len(found) == 3
    assert not any("s3cret" in line or "\x1b" in line for line in found)
    assert all("***" in line for line in found)


def test_a_terminal_gets_names_and_numbers() -> None:
    line = lines("console")[0]
    for part in ("batch", "offset=12", "events=4", "live=1", "removed=2", "dead=1", "consumer=vmp"):
        assert part in line
