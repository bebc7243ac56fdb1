"""``coefvq vmp audit``: what people shall label, their labels, and the recall in production that follows."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coefvq.cli.options import IssueOption, JsonOption, ParamsOption, TenantOption
from coefvq.cli.vmp_state import StateOption, print_result, state_folder
from coefvq.config import PARAMS_FILE
from coefvq.errors import ConfigError
from coefvq.files import write_csv
from coefvq.vmp.keys import DEFAULT, key, split
from coefvq.vmp.state import open_state

if TYPE_CHECKING:
    from coefvq.cascade.audit_sample import AuditEstimate
    from coefvq.vmp.audit import StreamAudit
    from coefvq.vmp.audit_store import Draw

app = typer.Typer(invoke_without_command=True)

LabelsOption = Annotated[Path, typer.Option(help="Table with video_id and label (or label_ISSUE), 0 or 1.")]
MomentOption = Annotated[str | None, typer.Option(help="ISO 8601, such as 2026-01-31 or 2026-01-31T08:00+01:00.")]


@app.callback(epilog="Example: coefvq vmp audit --issue icd --labels reviewed.csv --json")
def audit(
    context: typer.Context,
    issue: Annotated[str | None, typer.Option(help="Whose recall to estimate.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Table with video_id and label (or label_ISSUE), 0 or 1.")] = None,
    since: MomentOption = None,
    until: MomentOption = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Estimate recall in production from audited videos of a window: rows of the index plus labels people gave.

    Needs `vmp run --audit-rate`. Label all audited videos, and all (or a random part of) the escalated ones; or let
    `draw` choose what to label and `import` take the labels.
    """
    if context.invoked_subcommand is not None:
        if tenant != DEFAULT:
            raise ConfigError(f"vmp audit: write --tenant {tenant} behind {context.invoked_subcommand}")
        return
    from coefvq.vmp.audit import audit_stream
    from coefvq.vmp.audit_rows import audited_scores

    if issue is None or labels is None:
        raise ConfigError("vmp audit: pass --issue and --labels, or one of the commands draw, import, estimates")
    window = (_moment("--since", since), _moment("--until", until))
    known = _labels(labels, issue, tenant)
    with open_state(state_folder(state, params), create=False) as (_, index):
        found = audit_stream(issue, audited_scores(index, issue, *window, tenant=tenant), known)
    print_result(asdict(found), as_json, _describe_stream(found))


@app.command(epilog="Example: coefvq vmp audit draw --issue icd --labels 200 --out label.csv")
def draw(
    issue: IssueOption,
    labels: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many videos people can label.")],
    out: Annotated[Path, typer.Option(help="CSV to write: what to label, with an empty column label.")],
    since: MomentOption = None,
    until: MomentOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Draws the same videos again; default: a new one.")
    ] = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Choose what to label among the verdicts of a window, with known inclusion probabilities."""
    from coefvq.vmp import audit_store
    from coefvq.vmp.loop import now

    window = (_moment("--since", since), _moment("--until", until))
    with open_state(state_folder(state, params), create=False) as (log, index):
        chosen = secrets.randbits(32) if seed is None else seed
        made, sample = audit_store.make(index, issue, labels, chosen, window, now(), tenant)
        events = log.newest(row.video_id for row in made.drawn)
        contents = {video_id: (event.uri, event.title) for video_id, event in events.items()}
        write_csv(
            out,
            ("video_id", "label", "probability", "kind", "bundle", "uri", "title"),
            (
                (split(row.video_id)[1], "", row.probability, row.kind, row.bundle,
                 *contents.get(row.video_id, ("", "")))
                for row in made.drawn
            ),
        )  # fmt: skip
    left_out = f"; {sample.unlogged} filtered out before the audit began are left out" if sample.unlogged else ""
    lines = [
        f"draw {made.number}: {len(made.drawn)} videos to label in {out}{left_out}",
        f"then: coefvq vmp audit import --draw {made.number} --labels {out}",
    ]
    strata = [asdict(stratum) for stratum in made.strata]
    drawn = [asdict(row) | {"video_id": split(row.video_id)[1]} for row in made.drawn]
    summary = {"draw": made.number, "seed": made.seed, "unlogged": sample.unlogged, "strata": strata, "drawn": drawn}
    print_result(summary, as_json, lines)


@app.command("import", epilog="Example: coefvq vmp audit import --draw 1 --labels label.csv --batch batch/metadata.csv")
def take(
    number: Annotated[int, typer.Option("--draw", min=1, max=2**63 - 1, help="Number that `draw` printed.")],
    labels: LabelsOption,
    batch: Annotated[Path | None, typer.Option(help="Write the labelled videos here, as a table for ingest.")] = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Take the labels of a draw and print recall per bundle; refuses a draw that lost more than 1 % of its videos."""
    from coefvq.vmp import audit_store
    from coefvq.vmp.audit_batch import write_batch
    from coefvq.vmp.loop import now

    with open_state(state_folder(state, params), create=False) as (log, index):
        known = _labels(labels, audit_store.get(index, number, tenant).issue, tenant)
        made = audit_store.take_labels(index, number, known, now())
        written = None if batch is None else write_batch(log, made, batch)
    lines = _lines(made)
    if written is not None:
        lines.append(f"{written[0]} videos with weights in {batch}; {written[1]} deleted since are left out")
    summary = _summary(made) | {"batch": None if written is None else {"videos": written[0], "left_out": written[1]}}
    print_result(summary, as_json, lines)


@app.command(epilog="Example: coefvq vmp audit estimates --json")
def estimates(
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Show recall per window and bundle, of all draws that have their labels."""
    from coefvq.vmp import audit_store

    with open_state(state_folder(state, params), create=False) as (_, index):
        draws = [audit_store.get(index, number) for number in audit_store.numbers(index)]
    labelled = [made for made in draws if made.imported_at is not None and made.tenant == tenant]
    lines = [line for made in labelled for line in _lines(made)]
    print_result({"draws": [_summary(made) for made in labelled]}, as_json, lines or ["no draw has its labels yet"])


def _labels(path: Path, issue: str, tenant: str) -> dict[str, int]:
    """Labels of a tenant's videos, by key."""
    from coefvq.vmp.audit import read_labels

    return {key(tenant, video_id): label for video_id, label in read_labels(path, issue).items()}


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r:.40}: expected ISO 8601 such as 2026-01-31T08:00+01:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _summary(made: Draw) -> dict[str, Any]:
    from coefvq.vmp.audit_draws import estimates as by_bundle

    found = {
        bundle: {"refused": result} if isinstance(result, str) else asdict(result)
        for bundle, result in by_bundle(made.strata, made.drawn, made.labels).items()
    }
    return {"draw": made.number, "issue": made.issue, "since": made.since, "until": made.until,
            "drawn_at": made.drawn_at, "labels": len(made.labels), "estimates": found}  # fmt: skip


def _lines(made: Draw) -> list[str]:
    from coefvq.vmp.audit_draws import estimates as by_bundle

    window = f"{made.since or 'the start'} to {made.until or made.drawn_at}"
    head = f"draw {made.number}, {made.issue}, {window}"
    return [
        f"{head}, {made.issue}={bundle}: {found if isinstance(found, str) else _recall(found)}"
        for bundle, found in by_bundle(made.strata, made.drawn, made.labels).items()
    ]


def _recall(found: AuditEstimate) -> str:
    return (
        f"recall {100 * found.recall.value:.1f} %, 95 % interval {100 * found.recall.low:.1f} to "
        f"{100 * found.recall.high:.1f} (Hájek {100 * found.recall_hajek:.1f})"
    )


def _describe_stream(found: StreamAudit) -> list[str]:
    result = found.estimate
    rows = ", ".join(f"{found.rows[kind]} {kind} ({found.labels.get(kind, 0)} labelled)" for kind in found.rows)
    left_out = f"; {found.unlogged} filtered out before the audit began are left out" if found.unlogged else ""
    return [
        f"{found.issue}: {_recall(result)}",
        f"positives found {result.found.value:.0f}, missed {result.missed.value:.0f} "
        f"({result.missed.low:.0f} to {result.missed.high:.0f}), of which {result.seen_missed} were seen",
        f"{rows}{left_out}",
    ]
