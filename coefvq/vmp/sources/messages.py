"""Messages and events: JSON of a versioned schema, checked before anything else sees it.

A message comes from whoever may write to the topic. What does not fit, and what names a file outside the root, is no
event; the reason says why. Another format is a decoder of a package: an entry point of ``coefvq.decoders`` takes the
message's bytes and headers and returns the fields of ``VideoMessage``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from coefvq.config.values import Positive, Section
from coefvq.data.locations import Root, locate, regular_as_written
from coefvq.documents import parse_json
from coefvq.errors import CoefVQError, DataError, MediaError
from coefvq.extensions import DECODERS, extension
from coefvq.vmp.keys import DEFAULT, NAME, split
from coefvq.vmp.keys import key as key_of
from coefvq.vmp.records import Event, EventKind

SCHEMA_VERSION = 1
#: what a decoder of a package gets and gives
Headers = tuple[tuple[str, bytes | None], ...]
Decoder = Callable[[bytes, Headers], Mapping[str, Any]]


_Name = Annotated[str, Field(min_length=1, max_length=512)]
_Whole = Annotated[int, Field(ge=0, lt=2**62)]


class VideoMessage(Section):
    """Version 1 of the message: one change of one video. A deletion needs no more than id and version."""

    # no Literal: it takes true for 1
    schema_version: Annotated[int, Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    tenant: Annotated[str, Field(pattern=f"^{NAME}$")] = DEFAULT
    video_id: _Name
    kind: EventKind
    source_version: Annotated[int, Field(ge=1, lt=2**62)]
    uri: str = ""
    title: Annotated[str, Field(max_length=100_000)] = ""
    stickers: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    views: _Whole | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    published_at: str | None = None
    creator_id: str | None = None
    duration_s: Positive | None = None

    @field_validator("published_at")
    @classmethod
    def _a_time(cls, text: str | None) -> str | None:
        if text is not None and datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("expected ISO 8601 with a UTC offset")
        return text

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "upsert" and not self.uri:
            raise ValueError("uri: an upsert names a file")
        if self.kind == "views" and self.views is None:
            raise ValueError("views: an event of views has a count")
        return self


@dataclass(frozen=True)
class Reading:
    """How messages become events: what is read, and below which folder its files lie."""

    root: Root
    max_bytes: int = 2**20
    decoder: str = "json"

    def event(self, key: bytes | None, value: bytes | None, headers: Headers, place: int) -> Event:
        """The event of a message.

        Raises:
            DataError: it makes none; the message says why.
        """
        if value is None:
            raise DataError("no value; a deletion is an event of kind delete")
        if len(value) > self.max_bytes:
            raise DataError(f"{len(value)} bytes, at most {self.max_bytes} are read (source.max_bytes)")
        message = self._message(value, headers)
        video = key_of(message.tenant, message.video_id)
        expected = _key(message.tenant, message.video_id)
        if key is not None and key != expected:
            raise DataError(f"key {key!r:.80} is not the event's, {expected!r:.80}")
        return Event(
            video, message.kind, self._file(message.uri), message.title, message.stickers, message.views,
            message.sha256, message.published_at, message.source_version, place, message.creator_id,
            message.duration_s,
        )  # fmt: skip

    def _message(self, value: bytes, headers: Headers) -> VideoMessage:
        if self.decoder != "json":
            decode: Decoder = extension(DECODERS, self.decoder)
            try:
                fields = dict(decode(value, headers))
            except (CoefVQError, TypeError, ValueError) as error:
                raise DataError(f"decoder {self.decoder}: {error}") from error
            return _checked(fields, lambda: json.dumps(fields))
        found = _read_once(value)
        if found is not None:
            return found
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}") from error
        # parsed twice: our own reading refuses what pydantic's takes, such as a key that comes twice
        return _checked(parse_json(text, "value", "send one object"), lambda: text)

    def _file(self, uri: str) -> str:
        """The file below the root; one that is not there becomes a dead letter when it is scored."""
        if not uri:
            return uri
        if regular_as_written(uri, self.root) is not None:
            return f"{self.root.prefix}{uri}"
        try:
            return str(locate(uri, self.root).file)
        except MediaError as error:
            if error.reason == "outside_root":
                raise DataError(f"uri: {error}") from error
            return str(self.root.base / uri)


def _read_once(told: bytes) -> VideoMessage | None:
    """The message of a text that one reading is enough for, as nearly all are; None: read it with care.

    What pydantic alone would take is a key that comes twice, and a zero byte, which only an escape can name. In a text
    without escapes each quote begins or ends a key or a text of the message, so such a key would leave quotes over.
    """
    if b"\\" in told:
        return None
    try:
        message: VideoMessage = VideoMessage.__pydantic_validator__.validate_json(told)
    except (TypeError, ValueError):
        return None
    values, texts = vars(message), 0
    for name in message.model_fields_set:
        value = values[name]
        texts += 2 if isinstance(value, str) else 1 + len(value) if isinstance(value, tuple) else 1
    return message if told.count(b'"') == 2 * texts else None


def _checked(fields: Any, text: Callable[[], str]) -> VideoMessage:
    """The message; ``text`` gives its fields as JSON."""
    if not isinstance(fields, dict):
        raise DataError(f"expected an object, got {type(fields).__name__}")
    version = fields.get("schema")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise DataError(f"schema = {version!r:.40}: this version of coefvq reads {SCHEMA_VERSION}")
    try:
        # JSON mode: strict types, yet lists may fill tuples
        return _storable(VideoMessage.model_validate_json(text()))
    except ValidationError as error:
        item = error.errors()[0]
        if item["type"] == "json_invalid":  # it was parsed before: what it cannot hold is half a character
            raise DataError("a text holds half a character (a lone surrogate)") from error
        key = ".".join(map(str, item["loc"])) or "event"
        raise DataError(f"{key} = {item['input']!r:.60}: {item['msg']}") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"not the fields of a message: {error}") from error


def _storable(message: VideoMessage) -> VideoMessage:
    """Refuse a zero byte, which PostgreSQL does not take."""
    for name in message.model_fields_set:
        value = getattr(message, name)
        if any("\x00" in text for text in (value if isinstance(value, tuple) else (value,)) if isinstance(text, str)):
            raise DataError(f"{name} = {value!r:.60}: holds a zero byte")
    return message


def message_key(video: str) -> bytes:
    """Key of a video's messages, ``TENANT/VIDEO_ID``: all of them come to one partition, in their order."""
    return _key(*split(video))


def _key(tenant: str, video_id: str) -> bytes:
    return f"{tenant}/{video_id}".encode()


def encode(event: Event, uri: str) -> bytes:
    """The JSON message of an event; ``uri`` as it is written below the root."""
    tenant, video_id = split(event.video_id)
    fields: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "tenant": tenant,
        "video_id": video_id,
        "kind": event.kind,
        "source_version": event.source_version,
        "uri": uri,
        "title": event.title,
        "stickers": list(event.stickers),
        "views": event.views,
        "sha256": event.sha256,
        "published_at": event.published_at,
        "creator_id": event.creator_id,
        "duration_s": event.duration_s,
    }
    kept = {name: value for name, value in fields.items() if value not in (None, "", [])}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
