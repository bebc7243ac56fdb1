"""What a limited worker answers, as bytes: a letter, then JSON. Nothing in it is unpickled.

    r               ready: the work is loaded
    v<JSON>         the value of one item; bytes travel as base64, a dataclass as an object
    e<JSON>         [name of the error, its text, the worker's traceback]

Whoever reads an answer says what type it must have (a pydantic ``TypeAdapter``); names of errors come from a closed
list. A worker that was taken over by a clip can lie within that type and do no more.
"""

from __future__ import annotations

import json
import traceback
from base64 import b64encode
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from coefvq.compute.worker_pipe import MAX_ANSWER
from coefvq.errors import (
    ConfigError,
    DataError,
    ModelError,
    RegistryError,
    StorageError,
    TrainingError,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

R = TypeVar("R")
#: what became of an item: its value, the error of the work, or why the worker gave no answer
Outcome = tuple[Literal["value", "error", "lost"], Any]

READY = b"r"
_OWN = (ConfigError, DataError, ModelError, RegistryError, StorageError, TrainingError)
_PYTHON = (ImportError, OSError, RuntimeError, TimeoutError, TypeError, ValueError)
_ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (*_OWN, *_PYTHON)}
_STORY = 20_000  # characters of a traceback


def value_bytes(value: object) -> bytes:
    """The answer to one item, in the worker.

    Raises:
        TypeError: it holds something that has no form here.
    """
    answer = b"v" + _json(value)
    if len(answer) > MAX_ANSWER:
        raise ValueError(f"an answer of {len(answer)} bytes: a worker may send {MAX_ANSWER}; let it write a file")
    return answer


def error_bytes(error: BaseException) -> bytes:
    """An error of the work, in the worker."""
    if isinstance(error, ImportError) and "failed to map segment" in str(error):
        error = DataError(f"a worker has too little memory to start ({error}); raise worker_mib of ingest.limits")
    known = next((kind.__name__ for kind in type(error).__mro__ if kind in _ERRORS.values()), None)
    text = str(error) if known else f"{type(error).__name__} in a worker: {error}"
    story = "".join(traceback.format_exception(error))
    return b"e" + _json([known or "RuntimeError", text, story[-_STORY:]])


def read_answer(answer: bytes, kind: TypeAdapter[R]) -> Outcome:
    """Value or error that an answer holds, in the parent.

    Raises:
        ValueError: it is none, or its value is not of ``kind``.
    """
    letter, body = answer[:1], answer[1:]
    if letter == b"v":
        return "value", kind.validate_json(body, strict=True)
    if letter == b"e":
        return "error", _error(body)
    raise ValueError(f"an answer that begins with {letter!r}")


def _json(value: object) -> bytes:
    # a file's name may hold bytes that are no text
    return json.dumps(value, default=_plain, ensure_ascii=False).encode("utf-8", "replace")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"a worker answers in JSON, which has no form for {type(value).__name__}")


def _error(body: bytes) -> Exception:
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("an error nested without end") from None
    if not (isinstance(found, list) and len(found) == 3 and all(isinstance(part, str) for part in found)):
        raise ValueError("an error that is not three texts")
    name, text, story = found
    if name not in _ERRORS:
        raise ValueError(f"an error of the name {name[:40]!r}")
    error = _ERRORS[name](text)
    error.add_note(f"in a worker process:\n{story[-_STORY:]}")
    return error
