"""JSON and YAML that must not pass: repeated keys, bombs, tags, wrong shapes, files that are none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coefvq.config import load_params
from coefvq.documents import parse_json, parse_yaml
from coefvq.errors import ConfigError, DataError
from coefvq.files import check_regular, read_json, read_text, read_yaml
from tasks.workspace import round_trip

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' comes twice"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
        ("[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 64 levels"),
        ('{"a": 1', "not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_json(text, "x.json", "make it again")
    assert str(caught.value).startswith("x.json: ")
    assert str(caught.value).endswith("; make it again")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml line 4: key 'c' comes twice"),
        ("yes: 1\n", "x.yaml line 1: key yes: expected a text; put it in quotes"),
        ("? [a, b]\n: 1\n", "key a list or mapping: expected a text"),
        (BOMB, "its aliases stand for more than 200,000 values"),
        ("a: &a [*a]\n", "nested deeper than 64 levels"),
        ("[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        ("[" * 5000 + "]" * 5000, "nested deeper than 64 levels"),
        ("a: !!python/object/apply:os.system [id]\n", "x.yaml line 1: not readable as YAML"),
        ("a: !custom 1\n", "x.yaml line 1: not readable as YAML"),
        ("a: 2026-13-45\n", "x.yaml: not readable as YAML"),
        ("a: 1\n--- \nb: 2\n", "not readable as YAML"),
        ("a: b: c\n", "x.yaml line 1: not readable as YAML"),
        ("a: \x00\n", "not readable as YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_yaml(text, "x.yaml", "correct it")
    assert message in str(caught.value)
    assert str(caught.value).endswith("; correct it")


def test_honest_aliases_and_merges_pass() -> None:
    text = "base: &base {a: 1, b: [1, 2]}\none: {<<: *base, a: 2}\ntwo: *base\n"
    assert parse_yaml(text, "x.yaml", "") == {
        "base": {"a": 1, "b": [1, 2]},
        "one": {"a": 2, "b": [1, 2]},
        "two": {"a": 1, "b": [1, 2]},
    }


@pytest.mark.parametrize("kind", ["pipe", "folder", "bytes", "large", "name", "zero", "loop"])
def test_files_that_are_no_text_are_named_and_do_not_hang(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(b"a: \xff\xfe\n")
    elif kind == "large":
        path.write_bytes(b"#" * (2**20 + 1))
    elif kind == "name":
        path = tmp_path / ("x" * 300)
    elif kind == "zero":
        path = tmp_path / "a\x00b"
    else:
        path.symlink_to(path)
    with pytest.raises(ConfigError, match="; correct it") as caught:
        read_yaml(path, missing="correct it", remedy="correct it")
    assert str(caught.value).startswith(str(path).replace("\x00", "\\x00"))
    if kind in ("pipe", "folder", "name", "zero", "loop"):
        with pytest.raises(DataError, match="; correct it"):
            check_regular(path, missing="correct it", remedy="correct it")


def test_the_top_level_of_json_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match=r"a\.json: expected an object, got a list; delete it"):
        read_json(tmp_path / "a.json")
    assert read_json(tmp_path / "a.json", list) == [1]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert read_text(tmp_path / "a.json", missing="", remedy="") == '{"a": 1}'


def test_params_with_a_repeated_section_are_refused(tmp_path: Path, repository: Path) -> None:
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text + "\nseed: 8\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line \d+: key 'seed' comes twice"):
        load_params(tmp_path / "params.yaml")


@example(2e-05)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_as_the_writer_of_params_writes_it(number: float) -> None:
    text = io.StringIO()
    round_trip().dump({"rate": number}, text)
    assert parse_yaml(text.getvalue(), "x.yaml", "") == {"rate": number}


def test_words_that_only_begin_like_numbers_stay_words() -> None:
    text = "{a: 2e-5, b: 1E3, c: 1e, d: e5, e: 1e5f, f: '1e5', g: 3e5-x}"
    assert parse_yaml(text, "x.yaml", "") == {
        "a": 2e-5, "b": 1000.0, "c": "1e", "d": "e5", "e": "1e5f", "f": "1e5", "g": "3e5-x"
    }  # fmt: skip
