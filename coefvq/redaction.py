"""Secrets in free text: what a message, a log line or a report may not show.

One function, applied wherever text leaves the process (``terminal``, ``errors``). It prefers to hide too much: a
password may hold ``/``, ``?`` or ``@`` as it is, so where a URL has a user part, everything up to its last ``@``
is taken for it. Kept: scheme, host, port and path, so that a link can be followed; the options of a local
SQLite or ``file`` URL; git's ``user@host:path``, which holds no secret; and a page's route such as ``#/runs/1``.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

# quotes and angle brackets end a URL in a sentence; a bounded scheme keeps the search linear
_URL = re.compile(r"""([A-Za-z][A-Za-z0-9+.\-]{0,30}):(//)([^ \t\r\n\f\v"<>`]*)""")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,30}://")
_QUOTED_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,30}%3A%2F%2F[^\s\"<>`]*", re.IGNORECASE)
_QUOTED = {"%3a": ":", "%2f": "/", "%40": "@", "%3f": "?", "%23": "#"}
_SENTENCE_END = re.compile(r"[.,;:!)\]}'*]+$")
_LOCAL = frozenset({"sqlite", "file"})

_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)(\"?'?\s{0,3}[:=]\s{0,3}\"?'?)"
    r"((?:basic|bearer|token|digest)\s+)?[^\s\"',]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer\s+)(?=\S{0,200}\d)[\w.~+/=\-]{16,}")
_ASSIGNED = re.compile(
    r"\b([\w.\-]{0,40}?(?:password|passwd|pwd|secret|token|signature|api[_-]?key|(?:access|account)[_-]?key(?:[_-]?id)?))"
    r"(\s?=\s?[\"']?)[^\s\"',;&]+",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abp]-)[A-Za-z0-9_\-]{16,})\b"
)


def redact(text: str) -> str:
    """``text`` with the secrets of every URL, of authorization headers and of well-known keys replaced by ``***``.

    Doing it twice changes nothing more.
    """
    text = _QUOTED_URL.sub(_quoted, text)
    text = _URL.sub(_url, text)
    text = _HEADER.sub(lambda m: f"{m[1]}{m[2]}{m[3] or ''}{HIDDEN}", text)
    text = _BEARER.sub(lambda m: m[1] + HIDDEN, text)
    text = _ASSIGNED.sub(lambda m: m[1] + m[2] + HIDDEN, text)
    return _KEY.sub(HIDDEN, text)


def redact_value(value: Any) -> Any:
    """A JSON value with every text in it redacted, keys included."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key) if isinstance(key, str) else key: redact_value(item) for key, item in value.items()}
    return [redact_value(item) for item in value] if isinstance(value, list | tuple) else value


def _quoted(match: re.Match[str]) -> str:
    """A percent-encoded URL: as it is if it holds no secret, else decoded as far as needed and redacted."""
    plain = re.sub("|".join(_QUOTED), lambda m: _QUOTED[m[0].lower()], match[0], flags=re.IGNORECASE)
    hidden = _URL.sub(_url, plain)
    return match[0] if hidden == plain else hidden


def _url(match: re.Match[str]) -> str:
    scheme, rest = match[1], match[3]
    end = _SENTENCE_END.search(rest)
    tail = end[0] if end else ""
    rest = rest.removesuffix(tail)
    shown, start, at = [], 0, rest.rfind("@")
    # a chain (a::b) or a list (a,b): each URL on its own
    for inner in _SCHEME.finditer(_head(rest)):
        part = rest[start : inner.start()]
        if _has_userinfo(part, inner.end() <= at):
            break
        shown.append(f"{scheme}://{part}")
        scheme, start = inner[0].removesuffix("://"), inner.end()
    return "".join(shown) + f"{scheme}://{_without_secrets(rest[start:], scheme.lower() in _LOCAL)}{tail}"


def _without_secrets(rest: str, local: bool) -> str:
    hidden = ""
    if _has_userinfo(rest, "@" in rest):
        hidden, rest = f"{HIDDEN}@", _after_userinfo(rest)
    head = _head(rest)
    options = rest[len(head) :]
    return hidden + head + (options if local else _options(options))


def _head(rest: str) -> str:
    """Authority and path: what comes before the query and the fragment."""
    return re.split(r"[?#]", rest, maxsplit=1)[0]


def _has_userinfo(rest: str, at: bool) -> bool:
    """Whether what follows ``//`` begins with ``user[:password]@`` rather than with a host and port.

    ``at``: whether an ``@`` follows anywhere, as it does where a password holds ``/`` or ``?``.
    """
    authority = _head(rest).partition("/")[0].rstrip(",;|")
    if "@" in authority:
        return True
    name, colon, port = re.sub(r"\[[^\]]*\]", "", authority).partition(":")
    is_host = not name or "." in name or name == "localhost"
    return bool(colon) and at and not (is_host and re.fullmatch(r"\d{0,5}", port))


def _after_userinfo(rest: str) -> str:
    """From the host on. A password may hold ``/`` and ``@``, and ``?`` where no ``host/`` comes before it."""
    head = _head(rest)
    host = head.rpartition("@")[2]
    return (
        rest[len(head) - len(host) :]
        if "@" in head and ("/" in host or "@" not in rest[len(head) :])
        else (rest.rpartition("@")[2])
    )


def _options(more: str) -> str:
    """Query and fragment, hidden unless empty or a page's route."""
    if more[1:] in ("", HIDDEN) or re.fullmatch(r"#/[\w/.\-]*", more):
        return more
    return more[0] + HIDDEN
