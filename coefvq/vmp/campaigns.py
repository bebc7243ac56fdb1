"""Campaigns: a walk over the index that decides again what an earlier epoch decided.

The walk goes over rows of the index, not over the log: each video once, at its newest content, verdicts of withdrawn
pairs first. Its place is stored in the transaction of each batch, so a killed worker repeats one batch at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from coefvq.errors import DataError
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.schema_steps import ENTRY_OF_VIDEO

CampaignState = Literal["running", "paused", "done"]
_COLUMNS = "number, state, epoch, phase, cursor, total, scored, decided, changed, started_at, ended_at"
#: rows of older epochs, and verdicts of an outage; phase 0 are those of withdrawn pairs, phase 1 the others
_OLD = """
    LEFT JOIN deployments d ON d.epoch = e.epoch
    WHERE e.state != 'deleted' AND (e.epoch < :epoch OR e.rank IN (0, 1))"""


class OvertakenError(Exception):
    """Another worker moved the campaign on while this one scored; the transaction is undone."""


@dataclass(frozen=True)
class Campaign:
    """One campaign: ``scored`` videos took a model, ``decided`` none; ``changed`` ones have another state now."""

    number: int
    state: CampaignState
    epoch: int
    phase: int
    cursor: str
    total: int
    scored: int
    decided: int
    changed: int
    started_at: str
    ended_at: str | None


@dataclass(frozen=True)
class Step:
    """The next batch of a campaign; without videos the phase is over."""

    campaign: Campaign
    video_ids: list[str]


@dataclass(frozen=True)
class Campaigns:
    """The campaigns of an index; at most one is not done."""

    database: Database

    def last(self) -> Campaign | None:
        """The newest campaign."""
        rows = self.database.query(f"SELECT {_COLUMNS} FROM campaigns ORDER BY number DESC LIMIT 1")  # noqa: S608
        return Campaign(*rows[0]) if rows else None

    def start(self, now: datetime) -> Campaign:
        """Begin a campaign towards the head epoch.

        Raises:
            DataError: the index holds nothing yet, or a campaign is under way.
        """
        with self.database.transaction() as connection:
            last = self.last()
            if last is not None and last.state != "done":
                raise DataError(
                    f"campaign {last.number} is {last.state}; see `coefvq vmp rescore status`, "
                    f"{'or wait for it' if last.state == 'running' else 'or resume it: coefvq vmp rescore resume'}"
                )
            if not self.database.query("SELECT 1 FROM entries LIMIT 1"):
                raise DataError(f"{self.database.place}: the index is empty; run `coefvq vmp run` first")
            epoch = self.database.query("SELECT coalesce(max(epoch), 0) FROM deployments")[0][0]
            connection.execute(
                "INSERT INTO campaigns (state, epoch, total, started_at) VALUES ('running', ?, ?, ?)",
                (epoch, self.below(epoch), now.isoformat()),
            )
        return self._required()

    def move(self, state: CampaignState) -> Campaign:
        """Pause or resume.

        Raises:
            DataError: no campaign is under way.
        """
        with self.database.transaction() as connection:
            last = self.last()
            if last is None or last.state == "done":
                raise DataError("no campaign is under way; begin one: coefvq vmp rescore start")
            connection.execute("UPDATE campaigns SET state = ? WHERE number = ?", (state, last.number))
        return self._required()

    def below(self, epoch: int) -> int:
        """How many rows a campaign towards ``epoch`` would decide again."""
        sql = f"SELECT count(*) FROM entries e {_OLD}"  # noqa: S608
        return int(self.database.query(sql, {"epoch": epoch})[0][0])

    def video_ids(self, epoch: int) -> list[str]:
        """The videos that a campaign towards ``epoch`` would visit."""
        sql = f"SELECT e.video_id FROM entries e {_OLD} ORDER BY e.video_id"  # noqa: S608
        rows = self.database.query(sql, {"epoch": epoch})
        return [video_id for (video_id,) in rows]

    def remaining(self) -> int:
        """Rows that the present campaign still has to visit."""
        last = self.last()
        return 0 if last is None or last.state == "done" else sum(self._count(last, phase) for phase in (0, 1))

    def next_step(self, epoch: int, limit: int) -> Step | None:
        """The next batch for a worker of ``epoch``; None where no campaign runs towards that epoch."""
        last = self.last()
        if last is None or last.state != "running" or last.epoch != epoch:
            return None
        rows = self.database.query(
            f"SELECT v.video_id FROM {ENTRY_OF_VIDEO} {_IN_PHASE} ORDER BY v.video_id LIMIT :limit",  # noqa: S608
            {**_place(last, last.phase), "limit": limit},
        )
        return Step(last, [video_id for (video_id,) in rows])

    def advance(
        self, connection: Connection, step: Step, now: datetime, scored: int, decided: int, changed: int
    ) -> None:
        """Store what a batch did, in the transaction of its rows.

        Raises:
            OvertakenError: the campaign is not where the step began.
        """
        at, ids = step.campaign, step.video_ids
        over = not ids and at.phase == 1
        phase, cursor = (at.phase, ids[-1]) if ids else (1, at.cursor if over else "")
        moved = connection.execute(
            "UPDATE campaigns SET phase = ?, cursor = ?, scored = scored + ?, decided = decided + ?, "
            "changed = changed + ?, state = CASE WHEN ? = 1 THEN 'done' ELSE state END, ended_at = ? "
            "WHERE number = ? AND epoch = ? AND phase = ? AND cursor = ?",
            (
                phase,
                cursor,
                scored,
                decided,
                changed,
                over,
                now.isoformat() if over else None,
                at.number,
                at.epoch,
                at.phase,
                at.cursor,
            ),
        )
        if moved.rowcount == 0:
            raise OvertakenError

    def _required(self) -> Campaign:
        found = self.last()
        assert found is not None  # noqa: S101
        return found

    def _count(self, campaign: Campaign, phase: int) -> int:
        if phase < campaign.phase:
            return 0
        sql = f"SELECT count(*) FROM entries e {_IN_PHASE}"  # noqa: S608
        return int(self.database.query(sql, _place(campaign, phase))[0][0])


_IN_PHASE = _OLD + " AND coalesce(d.withdrawn, 0) = 1 - :phase AND e.video_id > :cursor"


def _place(campaign: Campaign, phase: int) -> dict[str, Any]:
    return {"epoch": campaign.epoch, "phase": phase, "cursor": campaign.cursor if phase == campaign.phase else ""}
