"""A person's decision inside a flow: waiting for it, the form in the UI, and finding the run that waits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

from prefect import get_run_logger
from prefect.client.schemas.responses import SetStateStatus
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field

from coefvq.errors import RegistryError
from coefvq.registry.pairs import RegisteredPair
from coefvq.terminal import clean, markdown
from tasks.release import decision_on, record_decision

#: how long a suspended run may wait before it fails
WAIT_SECONDS = 14 * 24 * 3600
_TAG = "awaiting-"
_RESULT = {True: "passed", False: "FAILED"}


class Approval(RunInput):
    """What the resume form asks; the name is self-declared and kept in the registry's history."""

    verdict: Literal["approve", "reject"] = Field(description="What is to become of the challenger.")
    by: str = Field(min_length=1, description="Your name.")
    reason: str = Field(min_length=1, description="Why; kept with the decision.")


def settle(pair: RegisteredPair, report: Callable[[], str | None], wait: bool) -> str:
    """The decision on a challenger: the one already taken, or the one a person takes while the run is suspended.

    ``report`` makes what the person decides from and returns the link to it; ``wait`` works in a deployment run only.

    Returns:
        "approve", "reject" or "waiting".
    """
    taken = decision_on(pair)
    if taken is not None:
        clear_waiting()
        return str(taken.action)
    # before the decision: afterwards there would be another champion to compare with
    link = report()
    if not wait or deployment.id is None:
        get_run_logger().info("bundle %s waits: coefvq approve --issue %s", pair.bundle_version, pair.issue)
        return "waiting"
    mark_waiting(UUID(flow_run.id), pair)
    answer = suspend_flow_run(
        wait_for_input=Approval.with_initial_data(description=describe(pair, link)),
        timeout=WAIT_SECONDS,
        key=waiting_tag(pair.issue, pair.version),
    )
    decision = record_decision(pair.issue, answer.verdict, answer.by, answer.reason, pair.version, str(flow_run.id))
    clear_waiting()
    return str(decision.action)


def describe(pair: RegisteredPair, report: str | None = None) -> str:
    """Markdown shown above the form; ``report`` is the link to the pair's report."""
    checks = pair.gate.checks if pair.gate else ()
    lines = [f"| {markdown(c.name)} | {_RESULT[c.passed]} | {markdown(c.explanation)} |" for c in checks]
    table = "\n".join(["| check | result | explanation |", "|---|---|---|", *lines])
    return (
        f"## {pair.issue}: bundle {pair.bundle_version} waits for approval\n\n{_link(report)}{table}\n\n"
        f"From a terminal: `coefvq approve --issue {pair.issue} --by NAME --reason WHY` or `coefvq reject …`."
    )


def _link(report: str | None) -> str:
    if report is None:
        return ""
    # a browser opens no file from a page of a server: the path is there to copy
    shown = clean(report)
    # what would end a link or a code span in Markdown, or begin HTML, is percent-encoded
    shown = re.sub(r"[\s<>()\[\]\\`|]", lambda match: quote(match[0], safe=""), shown)
    return f"**[Read the report]({shown})** (`{shown}`)\n\n"


def waiting_tag(issue: str, version: str) -> str:
    """Tag of a run that waits for a decision on this version, and the key of its suspension.

    Prefect allows small letters, digits and dashes in such keys.
    """
    return f"{_TAG}{issue.replace('_', '-')}-{version}"


def mark_waiting(run_id: UUID, pair: RegisteredPair) -> None:
    """Tag a run with what it waits for, so that a terminal can find it."""
    _tag(run_id, [waiting_tag(pair.issue, pair.version)])


def clear_waiting() -> None:
    """Take the tag off this run: it waits for nothing any more. Outside of a deployment run there is none."""
    if deployment.id is not None:
        _tag(UUID(flow_run.id), [])


def _tag(run_id: UUID, waiting: list[str]) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        kept = [tag for tag in run.tags if not tag.startswith(_TAG)]
        if sorted(run.tags) != sorted([*kept, *waiting]):
            client.update_flow_run(run_id, tags=[*kept, *waiting])


def resume_waiting(issue: str, version: str, answer: dict[str, Any]) -> list[UUID]:
    """Resume the runs suspended for a decision on this version; returns their ids."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateName,
        FlowRunFilterTags,
    )

    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[waiting_tag(issue, version)]),
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended", "Paused"])),
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted)
        for run in runs:
            _resume(client, run.id, answer)
    return [run.id for run in runs]


def _resume(client: Any, run_id: UUID, answer: dict[str, Any]) -> None:
    result = client.resume_flow_run(run_id, run_input=answer)
    if result.status != SetStateStatus.ACCEPT:
        raise RegistryError(
            f"the decision is recorded, but flow run {run_id} was not resumed ({result.details.reason}); "
            "resume it in the UI"
        )


def server_configured() -> bool:
    """Whether a Prefect server is set up; without one no run can be waiting."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is not None
