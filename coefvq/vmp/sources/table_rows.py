"""Rows of a table as events: each becomes a message first, so that one set of checks holds for all sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from coefvq.data.importers.values import texts
from coefvq.errors import DataError
from coefvq.vmp.keys import DEFAULT
from coefvq.vmp.records import Event, Known
from coefvq.vmp.sources.batches import Poison
from coefvq.vmp.sources.messages import SCHEMA_VERSION, Reading
from coefvq.vmp.sources.table_pages import Row

#: keys of a message that are texts, whatever type a table gives its ids
_IDS = ("tenant", "video_id", "creator_id")
_WHOLE = ("source_version", "views")


def event_of(row: Row, reading: Reading, stream: str) -> Event | Poison:
    """The event of a row, or the row as a message that is none; both without a place."""
    value = _message(row.cells)
    try:
        return reading.event(None, value, (), 0)
    except DataError as error:
        key = f"{row.cells.get('tenant') or DEFAULT}/{row.cells['video_id']}"
        return Poison(stream, 0, 0, str(error), key.encode(errors="backslashreplace"), value, (), row.changed_at)


def news(event: Event, known: Known | None) -> Event | None:
    """What a row tells that the index has not seen: the event, its views alone, or nothing."""
    if known is None or event.source_version > known.seen_version:
        return event
    is_watched = event.views is not None and event.views > (-1 if known.views is None else known.views)
    if event.source_version == known.seen_version and event.kind == "upsert" and is_watched:
        return Event(event.video_id, "views", views=event.views, source_version=event.source_version)
    return None


def _message(cells: Mapping[str, Any]) -> bytes:
    """The JSON message of a row; cells that fit no message stay in it, for the checks to name."""
    fields = {name: value for name, value in cells.items() if name not in ("updated_at", "deleted_at", "version")}
    fields["source_version"] = cells["version"]
    if cells.get("deleted_at") is not None:
        fields = {name: fields[name] for name in ("tenant", "video_id", "source_version") if name in fields}
    plain = {name: _plain(name, value) for name, value in fields.items() if value is not None}
    plain |= {"schema": SCHEMA_VERSION, "kind": "upsert" if cells.get("deleted_at") is None else "delete"}
    return json.dumps(plain, sort_keys=True, default=_unknown).encode()


def _plain(name: str, value: Any) -> Any:
    """A cell as the type that its key has in a message; what is not to be had stays as it is."""
    if name in _IDS and isinstance(value, int | UUID):
        return str(value)
    if name == "stickers":
        with suppress(DataError):
            return texts("row", name, value)
    if name == "published_at":
        return _time(value)
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if name in _WHOLE and value == int(value) else float(value)
    return value


def _time(value: Any) -> Any:
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()
    return value


def _unknown(value: Any) -> Any:
    """No text: a check would take it for one."""
    return {type(value).__name__: str(value)}
