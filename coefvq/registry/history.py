"""Who decided what about which pair, when and why: append-only, kept in MLflow (docs/adr/0003).

One decision is one MLflow run of experiment ``coefvq-decisions``. Its fields are the run's parameters,
which MLflow refuses to change; its state is the run's status: RUNNING = recorded but not yet carried
out, FINISHED = done, FAILED = could not be carried out. Model versions may be deleted; the runs stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coefvq.errors import RegistryError
from coefvq.registry import tracking
from coefvq.registry.bundle import bundle_version

EXPERIMENT = "coefvq-decisions"
MAX_REASON_CHARS = 2000  # MLflow cuts parameters at 6000
#: decisions that are read to go on from: more than one, since clocks of several machines differ
_NEWEST = 20

Action = Literal["approve", "reject", "rollback"]
State = Literal["pending", "done", "failed"]
_STATES: dict[str, State] = {"FINISHED": "done", "FAILED": "failed", "KILLED": "failed"}


class Decision(BaseModel):
    """One decision.

    approve: ``from_version`` was champion before (None: none), ``to_version`` is after. rollback: the same.
    reject: ``from_version`` is the rejected challenger, ``to_version`` None, the champion stays.
    ``content_hash`` is that of the pair decided on: approved, rejected or returned to. ``sequence`` orders
    all decisions of a store; ``at`` is UTC in ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequence: Annotated[int, Field(ge=1)]
    at: str
    by: str
    reason: str
    action: Action
    issue: str
    from_version: str | None = None
    to_version: str | None = None
    content_hash: str
    override: bool = False
    flow_run_id: str | None = None
    state: State = "pending"
    run_id: str = ""

    @property
    def version(self) -> str:
        """Version of the pair decided on."""
        version = self.from_version if self.action == "reject" else self.to_version
        if version is None:
            raise RegistryError(f"decision {self.run_id}: {self.action} without a version; the record is damaged")
        return version

    @property
    def bundle_version(self) -> str:
        """Bundle version of the pair decided on."""
        return bundle_version(self.version, self.content_hash)


def checked_person(by: str, reason: str) -> tuple[str, str]:
    """Name and reason without surrounding blanks.

    Raises:
        RegistryError: one is blank, or the reason is longer than MAX_REASON_CHARS.
    """
    name, why = by.strip(), reason.strip()
    if not name:
        raise RegistryError("--by is blank; give the name of the person who decides")
    if not why:
        raise RegistryError("--reason is blank; say why, others will read it")
    if len(why) > MAX_REASON_CHARS or len(name) > MAX_REASON_CHARS:
        raise RegistryError(f"--by and --reason may have {MAX_REASON_CHARS} characters each; shorten them")
    return name, why


def decisions(issue: str | None = None) -> list[Decision]:
    """All decisions, oldest first; of one issue where given.

    Raises:
        RegistryError: a record is damaged, or the store does not answer.
    """
    found = _read()
    return [item for item in found if issue is None or item.issue == issue]


def newest(issue: str | None = None) -> list[Decision]:
    """The latest decisions, oldest first; of one issue where given. How long the history is costs nothing.

    Raises:
        RegistryError: as ``decisions``.
    """
    return _read(_NEWEST) if issue is None else _read(_NEWEST, issue=issue)


def of_pair(issue: str, content_hash: str) -> list[Decision]:
    """The decisions on one pair, oldest first.

    Raises:
        RegistryError: as ``decisions``.
    """
    return _read(issue=issue, content_hash=content_hash)


def of_flow(issue: str, flow_run_id: str) -> list[Decision]:
    """The decisions that one flow run made on an issue, oldest first.

    Raises:
        RegistryError: as ``decisions``.
    """
    return _read(issue=issue, flow_run_id=flow_run_id)


def _read(latest: int | None = None, **fields: str) -> list[Decision]:
    records = tracking.read_records(EXPERIMENT, latest, **fields)
    found = [_parse(record) for record in records if "action" in record.fields]
    return sorted(found, key=lambda item: (item.sequence, item.at, item.run_id))


def _parse(record: tracking.Record) -> Decision:
    try:
        state = _STATES.get(record.status, "pending")
        return Decision.model_validate({**record.fields, "state": state, "run_id": record.run_id})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RegistryError(
            f"decision {record.run_id}: {key}: {first['msg']}; the record is damaged, restore the store"
        ) from error


def begin(
    issue: str,
    action: Action,
    by: str,
    reason: str,
    *,
    content_hash: str,
    from_version: str | None,
    to_version: str | None,
    override: bool = False,
    flow_run_id: str | None = None,
) -> Decision:
    """Record a decision as pending; call while holding the store's lock.

    Raises:
        RegistryError: the store refuses or does not answer.
    """
    decision = Decision(
        sequence=max((item.sequence for item in newest()), default=0) + 1,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        by=by,
        reason=reason,
        action=action,
        issue=issue,
        from_version=from_version,
        to_version=to_version,
        content_hash=content_hash,
        override=override,
        flow_run_id=flow_run_id,
    )
    fields = decision.model_dump(mode="json", exclude={"state", "run_id"}, exclude_none=True)
    name = f"{decision.sequence:04d}-{action}-{issue}"
    run_id = tracking.append_record(EXPERIMENT, name, {key: str(value) for key, value in fields.items()})
    return decision.model_copy(update={"run_id": run_id})


def close(decision: Decision, state: Literal["done", "failed"]) -> Decision:
    """Mark a pending decision as carried out, or as one that cannot be."""
    tracking.close_record(decision.run_id, "FINISHED" if state == "done" else "FAILED")
    return decision.model_copy(update={"state": state})


def champion_stack(history: Iterable[Decision]) -> list[tuple[str, str]]:
    """(version, content hash) of the champions one above the other, the present one last. Pure.

    An approval puts its pair on top; a rollback takes off everything above the pair it returned to.
    So a second rollback goes further back, and a pair that was rolled back is not returned to.
    """
    return _champions(history)[0]


def withdrawn(history: Iterable[Decision]) -> set[tuple[str, str]]:
    """(version, content hash) of the pairs of one issue that were rolled back and not approved again. Pure."""
    return _champions(history)[1]


def _champions(history: Iterable[Decision]) -> tuple[list[tuple[str, str]], set[tuple[str, str]]]:
    """The stack of champions, and what rollbacks took off it and no approval put back."""
    stack: list[tuple[str, str]] = []
    gone: set[tuple[str, str]] = set()
    for item in history:
        if item.state != "done" or item.action == "reject":
            continue
        pair = (item.version, item.content_hash)
        if item.action == "approve":
            stack.append(pair)
        else:
            while stack and stack[-1] != pair:
                gone.add(stack.pop())
        gone.discard(pair)
    return stack, gone


def is_decided_champion(history: Sequence[Decision], version: str, content_hash: str) -> bool:
    """Whether a decision made this pair champion: the last one carried out, or one that a crash interrupted. Pure."""
    moves = [item for item in history if item.action != "reject"]
    done = [item for item in moves if item.state == "done"][-1:]
    waiting = [item for item in moves if item.state == "pending"]
    return (version, content_hash) in [(item.version, item.content_hash) for item in (*done, *waiting)]


def require_decided_champion(issue: str, version: str, content_hash: str) -> None:
    """Refuse a champion alias that was moved by hand, and say who must do what.

    Raises:
        RegistryError: no decision made this pair champion, or the store does not answer.
    """
    if is_decided_champion(newest(issue), version, content_hash):
        return
    past = decisions(issue)
    who = f"--issue {issue} --by NAME --reason WHY"
    again = " --override" if last_verdict(past, version, content_hash) else ""
    stack = champion_stack(past)
    back = f", or return to version {stack[-1][0]}: coefvq rollback {who}" if stack else ""
    raise RegistryError(
        f"{issue}: the alias champion is on version {version}, but no decision put it there; it was moved by hand. "
        f"A person has to approve that version: coefvq approve --version {version}{again} {who}{back}"
    )


def last_verdict(history: Sequence[Decision], version: str, content_hash: str) -> Decision | None:
    """The last approval or rejection of a pair that was carried out; None where it waits for one. Pure."""
    verdicts = (
        item
        for item in reversed(history)
        if item.action != "rollback"
        and item.state == "done"
        and (item.version, item.content_hash) == (version, content_hash)
    )
    return next(verdicts, None)
