"""``coefvq register | status | history | rollback``: the release of pairs from the command line."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coefvq.cli.options import ByOption, IssueOption, JsonOption, ParamsOption, ReasonOption
from coefvq.cli.workspace import connect_registry
from coefvq.config import PARAMS_FILE, Params
from coefvq.errors import CoefVQError, RegistryError
from coefvq.terminal import cell, echo, echo_json, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from coefvq.registry.gates import GateReport
    from coefvq.registry.history import Decision
    from coefvq.registry.overview import IssueStatus
    from coefvq.registry.pairs import RegisteredPair
    from coefvq.registry.release import Registration


def register(
    issue: IssueOption,
    keep_refused: Annotated[
        bool, typer.Option("--keep-refused", help="Register even if the gate refuses; approval then takes --override.")
    ] = False,
    retuned: Annotated[
        bool,
        typer.Option("--retuned", help="The proposal of `coefvq retune`, not the pipeline's candidate."),
    ] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Check the gate and make reports/ISSUE/candidate.json the challenger.

    The same candidate gives the same version. Exit code 6 if the gate refuses.

    Example: coefvq register --issue icd

    Example: coefvq register --issue icd --retuned
    """
    settings = connect_registry(params)
    settings.check_issue(issue)
    outcome = _retuned(settings, issue, keep_refused) if retuned else _trained(settings, issue, keep_refused)
    if as_json:
        echo_json({"gate": outcome.report.model_dump(mode="json"), "pair": _pair_json(outcome.pair)}, indent=2)
    else:
        _print_registration(issue, outcome.report, outcome.pair)
    if not outcome.report.passed:
        kept = "registered all the same" if outcome.pair else "not registered"
        raise RegistryError(f"gate refused the candidate of {issue}, {kept}: {outcome.report.failures}")


def _trained(settings: Params, issue: str, keep_refused: bool) -> Registration:
    """The candidate that the pipeline left, and its report."""
    from coefvq.registry import release
    from coefvq.registry.bundle import read_candidate

    path = settings.paths.report(issue, "candidate.json")
    candidate = read_candidate(path)
    if candidate.issue != issue:
        raise RegistryError(f"{path}: issue = {candidate.issue}: expected {issue}; run the candidate stage again")
    outcome = release.register(candidate, settings.gate, keep_refused=keep_refused)
    if outcome.pair is not None and outcome.pair.offered:
        _keep_report(settings, outcome.pair)
    return outcome


def _retuned(settings: Params, issue: str, keep_refused: bool) -> Registration:
    """The proposal of a re-tuning, and its files."""
    from coefvq.retuning.offer import keep_proposal, register_proposed
    from coefvq.retuning.settings import RetuneSettings

    retuning = RetuneSettings.of(settings, issue)
    outcome = register_proposed(retuning, retuning.folder, keep_refused=keep_refused)
    if outcome.pair is not None and outcome.pair.offered:
        say(f"proposal: {keep_proposal(retuning, outcome.pair, retuning.folder)}")
    return outcome


def _keep_report(settings: Params, pair: RegisteredPair) -> None:
    """Without its report a pair is registered all the same; without its scores no later pair is compared with it."""
    from coefvq.reporting.gather import ReportSettings, keep_report

    try:
        say(f"report: {keep_report(ReportSettings.of(settings), pair)}")
    except CoefVQError as error:
        say(f"no report is kept with version {pair.version}: {error}")


def status(
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only pairs that wait for a decision; prints nothing if none does.")
    ] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Which pair of each issue is served, which waits, and who decided last.

    Example: coefvq status --json
    """
    from coefvq.registry import overview, tracking

    connect_registry(params, create=False)
    rows = overview.status() if tracking.store().exists else []
    if waiting:
        rows = [row for row in rows if row.challenger is not None]
    if as_json:
        echo_json([_status_json(row) for row in rows], indent=2)
    elif waiting:
        echo(*map(_waits, rows))
    elif rows:
        show(status_table(rows))
        echo(*(f"{row.issue}: {note}" for row in rows for note in _notes(row)))
    else:
        echo("nothing is registered; coefvq register --issue NAME makes the first challenger")


def history(
    issue: Annotated[str | None, typer.Option(help="Only this issue.")] = None,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Every decision: who approved, rejected or rolled back what, when and why; oldest first.

    Example: coefvq history --issue icd
    """
    from coefvq.registry import release, tracking

    settings = connect_registry(params, create=False)
    chosen = None if issue is None else settings.check_issue(issue)
    rows = release.history(chosen) if tracking.store().exists else []
    if as_json:
        echo_json([row.model_dump(mode="json") for row in rows], indent=2)
    elif rows:
        show(history_table(rows))
    else:
        echo("no decisions yet")


def rollback(
    issue: IssueOption,
    by: ByOption,
    reason: ReasonOption,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Serve the pair again that was champion before the present one; repeat to go further back.

    Example: coefvq rollback --issue icd --by ana --reason "false alarms on cooking clips"
    """
    from coefvq.registry import release

    settings = connect_registry(params, create=False)
    decision = release.rollback(settings.check_issue(issue), by, reason)
    if as_json:
        echo_json(decision.model_dump(mode="json"), indent=2)
    else:
        echo(f"{issue}: champion is version {decision.to_version} again (was {decision.from_version or 'none'})")


def gate_table(issue: str, report: GateReport) -> Table:
    """Each check of the gate with its value and limit."""
    from rich.table import Table

    table = Table(title=f"gate of {issue}: {'passed' if report.passed else 'refused'}")
    for name in ("check", "result", "value", "limit", "explanation"):
        table.add_column(name, justify="right" if name in ("value", "limit") else "left")
    for item in sorted(report.checks, key=lambda item: item.passed):  # what failed comes first
        value = "–" if item.value is None else f"{item.value:.4g}"
        _add(table, item.name, "passed" if item.passed else "FAILED", value, f"{item.limit:.4g}", item.explanation)
    return table


def _print_registration(issue: str, report: GateReport, pair: RegisteredPair | None) -> None:
    show(gate_table(issue, report))
    if pair is not None:
        known = "registered" if pair.created else "was registered before"
        todo = (
            f"coefvq approve --issue {issue} --by … --reason …" if pair.offered else "nothing, it was decided on before"
        )
        echo(f"{issue}: bundle {pair.bundle_version} {known}; next: {todo}")


def _waits(row: IssueStatus) -> str:
    return f"{row.issue}: bundle {_shown(row.challenger)} waits: coefvq approve --issue {row.issue}, or coefvq reject"


def _short(at: str) -> str:
    """A time to the minute: tables have 80 columns."""
    try:
        return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M")
    except ValueError:  # a record that somebody edited is shown as it is
        return at


def status_table(rows: list[IssueStatus]) -> Table:
    """Pairs of each issue in 80 columns: bundle names are whole, since people copy them."""
    table = _plain_table("pairs")
    table.add_column("issue", overflow="fold")
    for name in ("champion", "challenger", "gate"):
        table.add_column(name, no_wrap=True)
    table.add_column("last decision", overflow="fold")
    for row in rows:
        shown = (_shown(row.champion), _shown(row.challenger), _gate(row.challenger), _last(row))
        _add(table, row.issue, *shown)
    return table


def _plain_table(title: str) -> Table:
    """A table without frame: its borders would cost a quarter of 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def _shown(pair: RegisteredPair | None) -> str:
    return "–" if pair is None else pair.bundle_version


def _gate(pair: RegisteredPair | None) -> str:
    if pair is None or pair.gate is None:
        return "–"
    return "passed" if pair.gate.passed else "refused"


def _last(row: IssueStatus) -> str:
    return "–" if row.last is None else f"{row.last.action} {row.last.version} by {row.last.by}, {_short(row.last.at)}"


def _notes(row: IssueStatus) -> list[str]:
    notes = []
    if row.pending:
        notes.append("a decision was interrupted; the next approve, reject or rollback carries it out")
    if row.moved_by_hand:
        notes.append("the champion alias was moved by hand; nothing is scored until somebody approves or rolls back")
    if row.missing is not None:
        notes.append(row.missing)
    return notes


def history_table(rows: list[Decision]) -> Table:
    """Decisions in 80 columns; a decision that was not carried out says so beside its action."""
    table = _plain_table("decisions")
    for name in ("#", "when (UTC)"):
        table.add_column(name, no_wrap=True)
    table.add_column("issue", overflow="fold")
    table.add_column("action", max_width=10)
    table.add_column("versions", no_wrap=True)
    table.add_column("by: reason", overflow="fold")
    for row in rows:
        marks = [*(["override"] if row.override else []), *([row.state] if row.state != "done" else [])]
        action = " ".join([row.action, *([f"({', '.join(marks)})"] if marks else [])])
        versions = f"{row.from_version or '–'} → {row.to_version or '–'}"
        _add(table, str(row.sequence), _short(row.at), row.issue, action, versions, f"{row.by}: {row.reason}")
    return table


def _status_json(row: IssueStatus) -> dict[str, Any]:
    return {
        "issue": row.issue,
        "champion": _pair_json(row.champion),
        "challenger": _pair_json(row.challenger),
        "last_decision": None if row.last is None else row.last.model_dump(mode="json"),
        "pending": row.pending,
        "moved_by_hand": row.moved_by_hand,
        "missing": row.missing,
    }


def _pair_json(pair: RegisteredPair | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    gate = None if pair.gate is None else pair.gate.model_dump(mode="json")
    return {**asdict(pair), "gate": gate, "bundle_version": pair.bundle_version}


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(cell, cells))
