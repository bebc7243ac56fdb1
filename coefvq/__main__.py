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
from typing import Annotated, Any

import typer

from coefvq.cli.lazy import Entry, LazyGroup, entry, plugins
from coefvq.compute.collection import collect_rarely
from coefvq.compute.freed_memory import keep_freed_memory
from coefvq.faults import report as report_fault
from coefvq.stages import STAGES, Stage
from coefvq.telemetry import switch_off
from coefvq.terminal import clean, protect, say
from coefvq.version import __version__

# OpenMP's threads would otherwise wait for one another at full load: beside another process, such as the training of
# the second issue, small operations took twelve times as long (docs/performance.md)
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


#: name, place below coefvq.cli, line in a list of commands (that of the command's own help), panel
_COMMANDS = (
    ("data", "data:app", "Make and inspect data sets.", None),
    ("models", "models:app", "Presets: what they are, need and weigh; fetch their weights.", None),
    ("features", "features:app", "Cache of the outputs of frozen towers.", None),
    ("clips", "clips:app", "Store of decoded clips.", None),
    ("cascade", "cascade:app", "Thresholds of a cascade from any two columns of scores.", None),
    ("vmp", "vmp:app", "Video Management Platform: a stream of videos through the champion.", None),
    (
        "score",
        "score:score",
        "Score videos with the approved pair: decision, both scores, and which stage decided; video by video.",
        "Use",
    ),
    (
        "plan",
        "plan:plan",
        "Hours, disk and memory of each stage, on one machine and on several; the recipe says which models.",
        "Use",
    ),
    (
        "show",
        "show:show_results",
        "Print base, MLLM and cascade of the last `dvc repro` on the test split, a table per issue.",
        "Use",
    ),
    (
        "retune",
        "retune:retune",
        "Propose new thresholds for the champion's models; nothing is served before registration and approval.",
        "Release",
    ),
    (
        "report",
        "report:report",
        "Write one self-contained HTML page per issue: verdict, comparison, curves, drift, examples, lineage.",
        "Release",
    ),
    (
        "register",
        "registry:register",
        "Check the gate and make reports/ISSUE/candidate.json the challenger.",
        "Release",
    ),
    (
        "status",
        "registry:status",
        "Which pair of each issue is served, which waits, and who decided last.",
        "Release",
    ),
    (
        "history",
        "registry:history",
        "Every decision: who approved, rejected or rolled back what, when and why; oldest first.",
        "Release",
    ),
    (
        "rollback",
        "registry:rollback",
        "Serve the pair again that was champion before the present one; repeat to go further back.",
        "Release",
    ),
)


def _entries() -> list[Entry]:
    own = [entry(name, f"coefvq.cli.{place}", line, panel) for name, place, line, panel in _COMMANDS]
    return [*map(_stage, STAGES), *own, *plugins("coefvq.commands", "Flows")]


def _stage(stage: Stage) -> Entry:
    def register(app: typer.Typer) -> None:
        from coefvq.cli import stages

        stages.add(app, stage)

    return Entry(stage.name, register, stage.help, "Pipeline stages")


class _Commands(LazyGroup):
    """The root group; typer's own messages quote arguments, which are somebody's file names."""

    entries = staticmethod(_entries)

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
