"""No secret of a URL survives, whatever it is made of; other text is left alone; twice is as once."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coefvq.redaction import redact, redact_value
from coefvq.terminal import clean, printable

# all that may stand in a password as it is, and what people forget to encode; quotes and spaces end a URL in a sentence
MARKS = "/@?:#%&=+,;!$*()~._-'"
secrets = st.text(string.ascii_letters + string.digits + MARKS, max_size=24).map(lambda text: f"sEcrEt{text}T0ken")
schemes = st.sampled_from(["https", "s3", "postgresql+psycopg2", "ssh", "gs", "az", "http"])
hosts = st.sampled_from(["host", "host.example.com", "localhost:8080", "[::1]:443", "10.0.0.1"])
before = st.sampled_from(["", "cannot reach ", "a::", "(", "'", '"', "from https://other.org/x, then "])
after = st.sampled_from(["", " failed", ": try again", ")", "'", '"', ", and https://other.org/y"])


def hidden(secret: str, text: str) -> bool:
    return "sEcrEt" not in text and "T0ken" not in text and secret not in text


@given(schemes, secrets, hosts, before, after)
def test_a_password_is_hidden(scheme: str, secret: str, host: str, start: str, end: str) -> None:
    # what follows an @ up to a ? reads as host and path, and nothing can tell
    assume(not re.search("@.*[?#]", secret))
    shown = redact(f"{start}{scheme}://user:{secret}@{host}/path/clip.mp4{end}")
    assert hidden(secret, shown)
    assert shown.endswith("/path/clip.mp4" + end)
    assert redact(shown) == shown


@given(schemes, secrets, hosts, before)
def test_a_token_in_the_query_or_fragment_is_hidden(scheme: str, secret: str, host: str, start: str) -> None:
    for mark in ("?sig=", "?a=1&token=", "#access_token="):
        shown = redact(f"{start}{scheme}://{host}/path{mark}{secret} failed")
        assert hidden(secret, shown)
        assert f"{host}/path" in shown
        assert shown.endswith(" failed")
        assert redact(shown) == shown


@given(st.text())
def test_whatever_the_text_twice_is_as_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
    assert printable(printable(text)) == printable(text)
    assert clean(clean(text)) == clean(text)


@given(st.text(string.ascii_letters + string.digits + " .,:;@/?#%-_|'()"))
def test_text_without_a_url_is_left_alone(text: str) -> None:
    assert redact(text.replace("://", "")) == text.replace("://", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://x-access-token:TOK@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("git@host.org:team/repo.git", "git@host.org:team/repo.git"),
        ("s3://KEY:SE/CR+ET@bucket/a", "s3://***@bucket/a"),
        ("postgresql://u:p%40ss@h:5432/db", "postgresql://***@h:5432/db"),
        ("redis://:pw@h/0", "redis://***@h/0"),
        ("sqlite:///a/b.db?mode=ro", "sqlite:///a/b.db?mode=ro"),
        ("sqlite:////home/a@b/q?x/mlflow.db", "sqlite:////home/a@b/q?x/mlflow.db"),
        ("simplecache::s3://k:s@b/x", "simplecache::s3://***@b/x"),
        ("https://a/x,https://u:p@b/z", "https://a/x,https://***@b/z"),
        ("https://h/x?next=https://b/y&token=S", "https://h/x?***"),
        ("https%3A%2F%2Fu%3Ap%40h%2Fx%3Fsig%3D1", "https://***@h/x?***"),
        ("https://www.site.com/@user/video/1", "https://www.site.com/@user/video/1"),
        ("http://localhost:8080/@user", "http://localhost:8080/@user"),
        ("http://127.0.0.1:5000/#/experiments/1/runs/ab", "http://127.0.0.1:5000/#/experiments/1/runs/ab"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("key AKIAABCDEFGHIJKLMNOP is used", "key *** is used"),
        ("AWS_SECRET_ACCESS_KEY=abc/def text.max_tokens=5", "AWS_SECRET_ACCESS_KEY=*** text.max_tokens=5"),
    ],
)
def test_forms_people_meet(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_json_values_are_redacted_all_the_way_down() -> None:
    value = {"a": ["https://u:p@h/x", 1, None], "https://h/?sig=1": {"b": "plain"}}
    assert redact_value(value) == {"a": ["https://***@h/x", 1, None], "https://h/?***": {"b": "plain"}}


@pytest.mark.parametrize("text", ["a" * 200_000, "a://" * 50_000, "@" * 200_000, "a:" * 100_000, "x=" * 100_000])
def test_a_hostile_text_costs_no_more_than_its_length(text: str) -> None:
    # a quadratic search would take hours here; the test's own timeout would say so
    assert redact(redact(text)) == redact(text)
