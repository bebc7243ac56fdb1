"""``coefvq vmp``: the commands of the Video Management Platform, by place."""

from __future__ import annotations

import typer

from coefvq.cli.lazy import Entry, entry, lazy_group


def _entries() -> list[Entry]:
    """Commands with an example below their help, then groups, in the order of the help page."""
    return [
        _command("mllm", "vmp_mllm", "--mllm-budget 0.5/s"),
        _command("mirror", "vmp_mirror", "--config vmp.yaml"),
        _command("check", "vmp_engines", "--config vmp.yaml"),
        _command("publish", "vmp_publish", "data/raw --state vmp"),
        _command("run", "vmp_run", "--once --issue icd --json"),
        _command("override", "vmp_status", "clip_0001 --verdict removed --by ana --reason 'court order'"),
        _command("status", "vmp_status", "--json"),
        entry("rescore", "coefvq.cli.vmp_rescore:app"),
        entry("rules", "coefvq.cli.vmp_rules:app"),
        _command("get", "vmp_data", "clip_0001 --json"),
        _command("scan", "vmp_data", "--in removed --csv"),
        _command("export", "vmp_data", "index.csv"),
        _command("scores", "vmp_scores", "--issue icd"),
        _command("changes", "vmp_data", "--since 1041 --json"),
        _command("compact", "vmp_data", "--audit-days 0"),
        _command("forget", "vmp_data", "clip_0001"),
        entry("audit", "coefvq.cli.vmp_audit:app"),
        entry("dlq", "coefvq.cli.vmp_dlq:app"),
    ]


def _command(name: str, module: str, example: str) -> Entry:
    return entry(name, f"coefvq.cli.{module}:{name}", epilog=f"Example: coefvq vmp {name} {example}")


app = typer.Typer(
    cls=lazy_group(_entries),
    help="Video Management Platform: Source → Retriever → Filter → Sink over a local event log.",
    no_args_is_help=True,
)


@app.callback()
def _root() -> None:
    pass
