"""``coefvq features``: the cache of the outputs of frozen towers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coefvq.cli.numbers import prune_limits
from coefvq.cli.options import IssueOption, JsonOption, MaxGibOption, ParamsOption, UnusedDaysOption
from coefvq.config import PARAMS_FILE
from coefvq.terminal import cell, echo, echo_json, progress, show, size_text

if TYPE_CHECKING:
    from coefvq.training.features.store import FeatureStore

app = typer.Typer(no_args_is_help=True)


@app.command()
def build(
    issue: IssueOption,
    kind: Annotated[Literal["base", "mllm"], typer.Option(help="Whose towers.")] = "mllm",
    split: Annotated[
        list[str] | None, typer.Option(help="Which splits; default: labelled rows of train and val, as training reads.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Trainings that will read it, for the cost estimate.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost and save.")] = False,
    params: ParamsOption = PARAMS_FILE,
    engine: Annotated[
        Literal["local", "ray"] | None, typer.Option(help="Where towers run; default: runtime.engine.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the features of a model's frozen towers before any run; runs share them.

    Several of these may run at once, on one machine or on a shared disk: they divide the videos. A build
    that was cut off goes on where it was.

    Example: coefvq features build --issue ucc --kind mllm

    Example: coefvq features build --issue ucc --kind mllm --runs 12 --dry-run

    Example: coefvq features build --issue ucc --engine ray
    """
    from coefvq.cli.workspace import open_workspace
    from coefvq.compute.cards import visible_cards
    from coefvq.stages.inputs import TrainBaseInputs, TrainMLLMInputs
    from coefvq.training.features.fill import build_features
    from coefvq.training.features.ray_fill import build_features_on_ray
    from coefvq.training.features.side_by_side import build_on_cards

    loaded = open_workspace(params)
    loaded.check_issue(issue)
    stage: type[TrainBaseInputs | TrainMLLMInputs] = TrainBaseInputs if kind == "base" else TrainMLLMInputs
    inputs = stage.of(loaded, issue)
    if (engine or loaded.runtime.engine) == "ray" and not dry_run:
        facts = build_features_on_ray(inputs.settings, inputs.model, split or [], runs)
    elif len(cards := visible_cards()) > 1 and not dry_run:
        facts = build_on_cards(cards, inputs.settings, inputs.model, split or [], runs)
    else:
        facts = build_features(inputs.settings, inputs.model, split or [], runs, dry_run)
    if as_json:
        echo_json(facts, indent=2)
        return
    echo(facts["decision"])
    if "computed" in facts:
        echo(
            f"{facts['computed']} videos computed in {facts['seconds']:.1f} s ({size_text(facts['bytes'])}), "
            f"{facts['found']} were there, {len(facts['skipped'])} skipped"
        )
    for line in facts.get("skipped", {}).values():
        echo(f"skipped: {line}")


@app.command()
def stats(params: ParamsOption = PARAMS_FILE, as_json: JsonOption = False) -> None:
    """What the cache holds, by part: entries, bytes, last use.

    Example: coefvq features stats --json
    """
    store = _store(params)
    rows = _parts(store)
    if as_json:
        echo_json({"root": str(store.root), "max_bytes": store.max_bytes, "parts": rows}, indent=2)
        return
    from rich.table import Table

    table = Table("part", "key", "entries", "size", "shards", "last use")
    for row in rows:
        last = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["last_use"]))
        size = size_text(row["bytes"])
        table.add_row(cell(row["name"]), cell(row["key"][:8]), f"{row['entries']:,}", size, str(row["shards"]), last)
    show(table)
    total = sum(row["bytes"] for row in rows)
    echo(f"{store.root}: {size_text(total)} of at most {size_text(store.max_bytes)}")


@app.command()
def verify(
    params: ParamsOption = PARAMS_FILE,
    remove: Annotated[bool, typer.Option("--remove", help="Delete what is damaged; the next run computes it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Hash every shard again; exit code 1 if one is damaged and was not removed.

    Example: coefvq features verify --remove
    """
    store = _store(params)
    shards = store.all_shards()
    with progress("hashing shards", len(shards)) as advance:
        damaged = store.verify(advance)
    if remove:
        for path in damaged:
            path.unlink(missing_ok=True)
    names = [str(path.relative_to(store.root)) for path in damaged]
    if as_json:
        echo_json({"shards": len(shards), "damaged": names, "removed": remove}, indent=2)
    else:
        echo(f"{len(shards)} shards, {len(damaged)} damaged" + (", removed" if damaged and remove else ""))
        for name in names:
            echo(f"damaged: {name}")
    if damaged and not remove:
        raise typer.Exit(1)


@app.command()
def prune(
    params: ParamsOption = PARAMS_FILE,
    max_gib: MaxGibOption = None,
    unused_days: UnusedDaysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make room: the least recently used shards go, and what killed processes left. Shards in use stay.

    Without an option the limit is runtime.features_gib.

    Example: coefvq features prune --unused-days 30

    Example: coefvq features prune --max-gib 0
    """
    store = _store(params)
    count, size = store.prune(*prune_limits(store.max_bytes, max_gib, unused_days))
    if as_json:
        echo_json({"shards": count, "bytes": size})
    else:
        echo(f"{count} shards removed ({size_text(size)})")


def _store(params: Path) -> FeatureStore:
    from coefvq.cli.workspace import open_workspace
    from coefvq.training.loading import feature_store

    return feature_store(open_workspace(params).runtime)


def _parts(store: FeatureStore) -> list[dict[str, Any]]:
    from coefvq.files import read_json
    from coefvq.training.features.shards import entries_of

    rows = []
    for about in sorted(store.root.glob("*/part.json")):
        shards = store.shards(about.parent.name)
        if shards:
            rows.append(
                {
                    "name": str(read_json(about).get("name", "unknown")),
                    "key": about.parent.name,
                    "entries": len({entry for shard in shards for entry in entries_of(shard) or []}),
                    "bytes": sum(shard.stat().st_size for shard in shards),
                    "shards": len(shards),
                    "last_use": max(shard.stat().st_mtime for shard in shards),
                }
            )
    return rows
