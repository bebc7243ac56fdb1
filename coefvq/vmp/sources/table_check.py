"""What `coefvq vmp check` sees of a table: whether its rows make events, and whether its columns order them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from coefvq.errors import DataError
from coefvq.vmp.configuration import TableSource
from coefvq.vmp.records import Event, Known
from coefvq.vmp.sources.batches import Poison
from coefvq.vmp.sources.messages import Reading
from coefvq.vmp.sources.table_pages import Row, Table
from coefvq.vmp.sources.table_rows import event_of

#: rows that are looked at from each end
_ROWS = 500


def look(source: TableSource, reading: Reading, known: Callable[[Iterable[str]], Mapping[str, Known]]) -> str:
    """One line about the table.

    Raises:
        ConfigError: the URL or its driver does not fit.
        DataError: the database does not answer or refuses; a row has no time or id, lies in the future, or has a
            version that did not grow; no row makes an event.
    """
    table = Table(source)
    try:
        oldest, newest = table.page((), _ROWS), table.newest(_ROWS)
        lost = table.unordered()
    finally:
        table.close()
    if lost is not None:
        raise DataError(
            f"{table.what}: the row with video_id {lost['video_id']!r:.60} and updated_at {lost['updated_at']!r:.60} "
            "would never be read: fill in what is missing, or leave such rows out with a query"
        )
    rows = [*oldest.rows, *newest.rows]
    _check_clock(table.what, newest.rows, newest.read_at + max(source.settle, 60.0))
    made = {one.video_id: one for row in rows if isinstance(one := event_of(row, reading, table.name), Event)}
    if rows and not made:
        bad = [one for row in rows if isinstance(one := event_of(row, reading, table.name), Poison)]
        raise DataError(f"{table.what}: its rows make no events, such as {bad[0].key!r:.80}: {bad[0].reason}")
    seen = known(made)
    for name, event in made.items():
        if name in seen and event.source_version < seen[name].seen_version:
            raise DataError(
                f"{table.what}: {name!r:.60} has {source.version} {event.source_version}, the index has seen "
                f"{seen[name].seen_version}: a version has to grow with each change; correct source.version"
            )
    new = sum(name not in seen or event.source_version > seen[name].seen_version for name, event in made.items())
    return f"{table.what}: {new} of {len(made)} rows looked at are new to group {source.group}"


def _check_clock(what: str, rows: Iterable[Row], latest: float) -> None:
    for row in rows:
        if row.changed_at > latest:
            raise DataError(
                f"{what}: updated_at {row.cells['updated_at']!r:.60} lies in the future: times without an offset are "
                "read as UTC, numbers as unix seconds; convert them in a query, or correct the clock that writes them"
            )
