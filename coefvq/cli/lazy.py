"""Commands that are imported when one of them is asked for: `coefvq status` loads nothing of the stream.

Typer builds a command from its function, so it would import every command to run one. Here a list of commands shows
what its table says ("lazily loading subcommands" in Click's documentation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Entry:
    """A command, or a group of them, that is not imported yet: ``register`` imports it and adds it to an app.

    ``help`` is its line in a list of commands; None: it is imported to show that line.
    """

    name: str
    register: Callable[[typer.Typer], None]
    help: str | None = None
    panel: str | None = None


def entry(name: str, place: str, help: str | None = None, panel: str | None = None, epilog: str | None = None) -> Entry:
    """An entry by its place, ``module:name`` of a function with Typer annotations or of a Typer app."""

    def register(app: typer.Typer) -> None:
        found = EntryPoint(name, place, "").load()
        if not isinstance(found, typer.Typer):
            app.command(name, epilog=epilog, rich_help_panel=panel)(found)
        elif help is None:
            app.add_typer(found, name=name)
        else:
            app.add_typer(found, name=name, help=help)

    return Entry(name, register, help, panel)


def plugins(group: str, panel: str) -> list[Entry]:
    """What installed packages register in a group of entry points (docs/adr/0004)."""
    points = sorted(entry_points(group=group), key=lambda point: point.name)
    return [entry(point.name, point.value, panel=panel) for point in points]


class Later(TyperCommand):
    """A command as a list of commands shows it; it is imported to run, to be completed or to show its own help."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, help=entry.help, rich_help_panel=entry.panel)
        self._entry = entry

    def loaded(self) -> Any:
        """The command itself."""
        app = typer.Typer()
        self._entry.register(app)
        return typer.main.get_group(app).commands[self._entry.name]

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """That of the command itself, whose ``command`` it names."""
        return self.loaded().make_context(*arguments, **more)


class LazyGroup(TyperGroup):
    """The commands of an app, and behind them those that are imported later."""

    entries: Callable[[], Sequence[Entry]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in type(self).entries():
            self.commands[entry.name] = Later(entry)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported only if nothing is known of it but its place."""
        found = super().get_command(ctx, cmd_name)
        return found.loaded() if isinstance(found, Later) and found.help is None else found


def lazy_group(entries: Callable[[], Sequence[Entry]]) -> type[LazyGroup]:
    """``cls`` of a Typer app with these commands; ``entries`` is called when the app runs."""
    return type("Commands", (LazyGroup,), {"entries": staticmethod(entries)})
