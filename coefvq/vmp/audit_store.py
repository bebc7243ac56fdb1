"""Draws for labelling and their labels, kept in the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from coefvq.errors import DataError
from coefvq.vmp.audit_draws import Drawn, Sample, Stratum, check_labels, draw
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import DEFAULT


@dataclass(frozen=True)
class Draw:
    """A stored draw of one issue over the verdicts of a window; ``labels`` is empty before the import."""

    number: int
    issue: str
    since: str | None
    until: str | None
    seed: int
    drawn_at: str
    imported_at: str | None
    strata: list[Stratum]
    drawn: list[Drawn]
    labels: dict[str, int]
    tenant: str


def make(
    index: IndexStore,
    issue: str,
    labels: int,
    seed: int,
    window: tuple[datetime | None, datetime | None],
    now: datetime,
    tenant: str = DEFAULT,
) -> tuple[Draw, Sample]:
    """Draw from a tenant's present verdicts on an issue, and store the draw.

    Raises:
        DataError: no video of the window was audited.
    """
    sample = draw(issue, index.scores(issue, *window, tenant), labels, seed)
    since, until = (None if moment is None else moment.astimezone(UTC).isoformat() for moment in window)
    with index.database.transaction() as connection:
        number = connection.execute(
            "INSERT INTO audit_draws (issue, since, until, seed, drawn_at, tenant) VALUES (?, ?, ?, ?, ?, ?) "
            "RETURNING number",
            (issue, since, until, seed, now.isoformat(), tenant),
        ).fetchone()[0]
        connection.executemany(
            "INSERT INTO audit_strata (draw, bundle, kind, videos, labels) VALUES (?, ?, ?, ?, ?)",
            [(number, stratum.bundle, stratum.kind, stratum.videos, stratum.labels) for stratum in sample.strata],
        )
        connection.executemany(
            "INSERT INTO audit_labels (draw, video_id, bundle, kind, probability, audit) VALUES (?, ?, ?, ?, ?, ?)",
            [(number, row.video_id, row.bundle, row.kind, row.probability, row.audit) for row in sample.drawn],
        )
    return get(index, number), sample


def get(index: IndexStore, number: int, tenant: str | None = None) -> Draw:
    """A stored draw, of any tenant where none is named.

    Raises:
        DataError: there is none of that number, or it is another tenant's.
    """
    made = _stored(index, number)
    if made is None or tenant not in (None, made.tenant):
        raise DataError(f"no audit draw {number}; make one: coefvq vmp audit draw --issue ISSUE --labels N")
    return made


def _stored(index: IndexStore, number: int) -> Draw | None:
    rows = index.database.query(
        "SELECT number, issue, since, until, seed, drawn_at, imported_at, tenant FROM audit_draws WHERE number = ?",
        (number,),
    )
    if not rows:
        return None
    strata = index.database.query(
        "SELECT bundle, kind, videos, labels FROM audit_strata WHERE draw = ? ORDER BY bundle, kind", (number,)
    )
    drawn = index.database.query(
        "SELECT video_id, bundle, kind, probability, audit, label FROM audit_labels WHERE draw = ? ORDER BY video_id",
        (number,),
    )
    labels = {cells[0]: cells[5] for cells in drawn if cells[5] is not None}
    _, issue, since, until, seed, drawn_at, imported_at, tenant = rows[0]
    return Draw(number, issue, since, until, seed, drawn_at, imported_at, [Stratum(*cells) for cells in strata],
                [Drawn(*cells[:5]) for cells in drawn], labels, tenant)  # fmt: skip


def numbers(index: IndexStore) -> list[int]:
    """All draws, oldest first."""
    return [number for (number,) in index.database.query("SELECT number FROM audit_draws ORDER BY number")]


def take_labels(index: IndexStore, number: int, labels: Mapping[str, int], now: datetime) -> Draw:
    """Store the labels of a draw, all at once.

    Raises:
        DataError: they were imported before, a video was not drawn, or too many labels are missing.
    """
    with index.database.transaction() as connection:
        known = get(index, number)
        if known.imported_at is not None:
            raise DataError(
                f"audit draw {number} got its labels at {known.imported_at}; they count once: draw again for new ones"
            )
        check_labels(known.drawn, labels)
        rows: Sequence[tuple[int, int, str]] = [(value, number, video_id) for video_id, value in labels.items()]
        connection.executemany("UPDATE audit_labels SET label = ? WHERE draw = ? AND video_id = ?", rows)
        connection.execute("UPDATE audit_draws SET imported_at = ? WHERE number = ?", (now.isoformat(), number))
    return get(index, number)
