"""The report in its four forms; ids and values come from users and must stay harmless."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from coefvq.data.validation.report import (
    COMPLAINTS,
    Check,
    ValidationResult,
    first_error,
    to_html,
    to_json,
    to_markdown,
)

GOOD = Check("rows", None, True, "at least 40 rows", "60 rows")
TOLERATED = Check("decodable", "decode_ok", True, "at least 0.9 decodable", "59 of 60 decodable", ("v7",), 1)
LABELS = Check(
    "label_values", "label_icd", False, "0, 1 or empty", "fails in 3 of 60 rows", ("v00012", "v00034", "v00050"), 3
)
PREVALENCE = Check("prevalence", "label_icd", False, "0.005 to 0.6 positive", "0.72")
EVIL = '<script>alert("x")</script>|`a`\n\x1b[31m\u202e'


def result(*checks: Check) -> ValidationResult:
    return ValidationResult(all(check.success for check in checks), checks)


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, set[str | None]] = {}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_first_error_names_place_rows_and_remedy() -> None:
    assert first_error(result(GOOD, LABELS)) == (
        "manifest.parquet: label_icd: 3 row(s) outside {0,1} (v00012, v00034, v00050); "
        "correct them in metadata.csv and run ingest again"
    )


def test_first_error_of_an_aggregate_says_what_was_expected_and_found() -> None:
    assert first_error(result(PREVALENCE, LABELS), source="data/m.parquet") == (
        "data/m.parquet: label_icd: expected 0.005 to 0.6 positive, found 0.72; "
        "check the labels (swapped classes?), or widen validate.prevalence for the issue (1 more check(s) failed)"
    )
    rows = Check("rows", None, False, "at least 40 rows", "3 rows")
    assert first_error(result(rows)).startswith("manifest.parquet: expected at least 40 rows, found 3 rows; add clips")


def test_first_error_shows_three_ids_and_says_that_there_are_more() -> None:
    many = Check("views", "views", False, "0 or more", "fails", tuple(f"v{n}" for n in range(20)), 500)
    assert "500 row(s) below 0 (v0, v1, v2, …);" in first_error(result(many))
    shared = Check("video_id_unique", "video_id", False, "no value twice", "fails", ("v4",), 2)
    assert "2 row(s) share an id (v4);" in first_error(result(shared))


def test_first_error_stays_one_printable_line() -> None:
    line = first_error(result(Check("views", "views", False, "0", "-1", (EVIL,), 1)))
    assert line.isprintable()
    assert "alert" in line


def test_first_error_of_a_good_result_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="every check of this result holds"):
        first_error(result(GOOD))


@pytest.mark.parametrize("name", sorted(COMPLAINTS))
def test_every_kind_of_failure_reads_as_a_sentence_with_a_remedy(name: str) -> None:
    line = first_error(result(Check(name, "column", False, "this", "that", ("v1",), 1)))
    assert line.startswith("manifest.parquet: column: ")
    assert line.endswith(f"; {COMPLAINTS[name][1]}")
    assert not line.endswith(".")


def test_json_is_complete_and_plain() -> None:
    report = json.loads(json.dumps(to_json(result(GOOD, TOLERATED, LABELS)), allow_nan=False))
    assert (report["success"], report["n_checks"], report["n_failed"]) == (False, 3, 1)
    assert report["checks"][0] == {
        "name": "rows",
        "column": None,
        "success": True,
        "expected": "at least 40 rows",
        "observed": "60 rows",
        "failing_ids": [],
        "n_failing": 0,
        "remedy": None,
    }
    assert report["checks"][1]["failing_ids"] == ["v7"]
    assert report["checks"][2]["remedy"] == "correct them in metadata.csv and run ingest again"


def test_markdown_puts_failures_first_and_keeps_its_columns() -> None:
    evil = Check("views", "views", False, "0 or more", EVIL, (EVIL,), 1)
    lines = to_markdown(result(GOOD, TOLERATED, evil)).splitlines()
    assert lines[0] == "# Manifest validation: failed, 1 of 3 checks do not hold"
    table = lines[2:]
    assert len(table) == 2 + 3
    assert table[2].startswith("| views | views | **FAILED** |")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8}
    assert "<script" not in "\n".join(lines)
    assert to_markdown(result(GOOD)).startswith("# Manifest validation: passed, all 1 checks hold\n")


def test_html_shows_every_check_and_the_remedy_of_each_failure() -> None:
    page = Page(to_html(result(GOOD, TOLERATED, LABELS, PREVALENCE)))
    assert "failed, 2 of 4 checks do not hold" in page.text
    for check in (GOOD, TOLERATED, LABELS, PREVALENCE):
        assert check.expected in page.text
        assert check.observed in page.text
    for check in (LABELS, PREVALENCE):
        assert COMPLAINTS[check.name][1] in page.text
    assert "3 row(s): v00012, v00034, v00050" in page.text
    assert COMPLAINTS["decodable"][1] not in page.text
    assert page.tags.count("tr") == 1 + 4
    assert page.tags.count("section") == 2


def test_html_says_when_it_names_only_some_of_the_rows() -> None:
    many = Check("views", "views", False, "0 or more", "fails", tuple(f"v{n}" for n in range(20)), 1500)
    assert "1,500 row(s): v0, v1" in Page(to_html(result(many))).text
    assert "v19, …" in Page(to_html(result(many))).text


def test_html_is_one_offline_file_without_scripts() -> None:
    text = to_html(result(GOOD, LABELS))
    page = Page(text)
    assert set(page.tags).isdisjoint({"script", "link", "img", "iframe"})
    assert set(page.attributes).isdisjoint({"src", "href", "style"})
    assert not re.search(r"https?:|url\(|@import", text)
    assert "width=device-width, initial-scale=1" in page.attributes["content"]
    assert page.attributes["lang"] == {"en"}


def test_html_escapes_what_users_wrote() -> None:
    evil = Check("views", EVIL, False, EVIL, EVIL, (EVIL,), 1)
    text = to_html(result(evil))
    page = Page(text)
    assert "script" not in page.tags
    assert page.text.count('<script>alert("x")</script>') == 7
    assert "\x1b" not in text
    assert "\u202e" not in text
