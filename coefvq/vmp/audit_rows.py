"""The few facts of each verdict that an audit looks at, read from the index without the rest of its JSON."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from coefvq.errors import DataError
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import DEFAULT

_PAGE = 5000
#: of an issue's scores what ``audit.kind_of`` and the estimate look at
_FACTS = ("error", "awaits", "mllm_score", "audit_probability", "positive")
#: names that need no quoting in a JSON path
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


def audited_scores(
    index: IndexStore,
    issue: str,
    since: datetime | None = None,
    until: datetime | None = None,
    tenant: str = DEFAULT,
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """As ``IndexStore.scores``, with the facts alone that an audit looks at; SQLite picks them out of its JSON.

    Raises:
        DataError: a stored value is not JSON.
    """
    if not (isinstance(index.database.connection, sqlite3.Connection) and _PLAIN.fullmatch(issue)):
        yield from index.scores(issue, since, until, tenant)
        return
    facts = ", ".join("json_extract(value, ?)" for _ in _FACTS)
    place = f'$.scores."{issue}"'
    paths = (place, *(f"{place}.{name}" for name in _FACTS))
    try:
        for video_id, kind, *cells in index.verdicts(
            f"json_type(value, ?), {facts}", paths, since, until, tenant, _PAGE
        ):
            if kind not in (None, "null"):
                yield video_id, dict(zip(_FACTS, cells, strict=True))
    except DataError:
        for _ in index.scores(issue, since, until, tenant):
            pass  # which entry is damaged is said by the reader of whole values
        raise
