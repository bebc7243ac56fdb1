"""``coefvq`` and ``python -m coefvq``: name -> command.

Every DVC stage is one command. Commands that need Prefect or DVC are plugged in through the entry-point
groups ``coefvq.commands`` and ``coefvq.commands.data`` by the layers above, so that the library imports neither.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coefvq.cli import (
    audit,
    cascade,
    clips,
    data,
    features,
    models,
    plan,
    registry,
    report,
    retune,
    score,
    show,
    stages,
    vmp,
)
from coefvq.compute.collection import collect_rarely
from coefvq.compute.freed_memory import keep_freed_memory
from coefvq.faults import report as report_fault
from coefvq.stages import STAGES
from coefvq.telemetry import switch_off
from coefvq.terminal import clean, protect, say
from coefvq.version import __version__

# OpenMP's threads would otherwise wait for one another at full load: beside another process, such as the training of
# the second issue, small operations took twelve times as long (docs/performance.md)
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class _Commands(TyperGroup):
    """The root group; typer's own messages quote arguments, which are somebody's file names."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _clean_usage():
            return super().make_context(*arguments, **more)

    def invoke(self, *arguments: Any, **more: Any) -> Any:
        with _clean_usage():
            return super().invoke(*arguments, **more)


@contextmanager
def _clean_usage() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = clean(error.message)
        raise


app = typer.Typer(
    name="coefvq",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Cascaded multimodal video classification: data, train, evaluate, release, serve.",
)


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = (
        False
    ),
) -> None:
    pass


def _assemble() -> None:
    for stage in STAGES:
        stages.add(app, stage)
    app.add_typer(data.app, name="data", help="Make and inspect data sets.")
    app.add_typer(models.app, name="models", help="Presets: what they are, need and weigh; fetch their weights.")
    app.add_typer(features.app, name="features", help="Cache of the outputs of frozen towers.")
    app.add_typer(clips.app, name="clips", help="Store of decoded clips.")
    cascade.app.command(name="audit")(audit.audit)
    app.add_typer(cascade.app, name="cascade", help="Thresholds of a cascade from any two columns of scores.")
    app.add_typer(vmp.app, name="vmp", help="Video Management Platform: a stream of videos through the champion.")
    app.command(name="score", rich_help_panel="Use")(score.score)
    app.command(name="plan", rich_help_panel="Use")(plan.plan)
    app.command(name="show", rich_help_panel="Use")(show.show_results)
    app.command(name="retune", rich_help_panel="Release")(retune.retune)
    app.command(name="report", rich_help_panel="Release")(report.report)
    for name in ("register", "status", "history", "rollback"):
        app.command(name=name, rich_help_panel="Release")(getattr(registry, name))
    _plug_in(app, "coefvq.commands", "Flows")
    _plug_in(data.app, "coefvq.commands.data", "Versions")


def _plug_in(group: typer.Typer, name: str, panel: str) -> None:
    for plugin in sorted(entry_points(group=name), key=lambda entry: entry.name):
        group.command(name=plugin.name, rich_help_panel=panel)(plugin.load())


def main() -> None:
    """Run a command; an error is one line on stderr and the exit code of its class, whatever it was."""
    protect()
    switch_off()
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    keep_freed_memory()
    collect_rarely()
    # where DeepSpeed is installed, accelerate imports it, and it would tell stdout that there is no GPU
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator" not in record.getMessage())
    try:
        _assemble()
        app()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        pass  # who read our output, such as head, has seen enough
    except Exception as error:  # noqa: BLE001  the one place where nothing may pass
        sys.exit(report_fault(error))
    finally:
        _flush()


def _flush() -> None:
    """Write what is buffered now: a reader that has gone must not show as an error when the interpreter ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        # what could not be written is still buffered, and the interpreter would try again and end with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(report_fault(error))


if __name__ == "__main__":
    main()
