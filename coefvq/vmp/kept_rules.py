"""The rules of a stream, kept beside its state: a later run without ``--rules`` decides as the one before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coefvq.errors import ConfigError
from coefvq.files import read_text, write_text
from coefvq.vmp.rules import Rules, load_rules, parse_rules

FILE = "rules.yaml"
#: in place of a file: the rules that ship
SHIPPED = Path("shipped")


def next_rules(state: Path, given: Path | None) -> Rules:
    """The rules that a run would take, with nothing kept and nothing said.

    Raises:
        ConfigError: a file is missing or does not fit.
    """
    kept = state / FILE
    if given is None and kept.is_file():
        return load_rules(kept)
    return load_rules(None if given == SHIPPED else given)


def kept_rules(state: Path, given: Path | None, say: Callable[[str], None]) -> Rules:
    """The rules to run with: those of ``given``, which are kept from now on, else those kept, else the shipped ones.

    A line says where they come from, and that they changed.

    Raises:
        ConfigError: a file is missing or does not fit; what was kept stays.
    """
    kept = state / FILE
    before = _text(kept) if kept.is_file() else None
    if given is None:
        if before is None:
            return load_rules()
        say(f"rules: those of the last run, kept in {kept} (--rules FILE changes them, --rules shipped ends this)")
        return parse_rules(before, str(kept))
    if given == SHIPPED:
        kept.unlink(missing_ok=True)
        if before is not None:
            say(f"rules: the shipped ones; those kept in {kept} are gone. {_STAY}")
        return load_rules()
    text = _text(given)
    rules = parse_rules(text, str(given))
    if before is not None and before != text:
        say(f"rules: {given} differs from those of the last run. {_STAY}")
    write_text(kept, text)
    return rules


_STAY = "Verdicts that were made stay until their video changes; score all again: coefvq vmp rescore start"


def _text(path: Path) -> str:
    what = "--rules takes a YAML file (docs/vmp.md), or the word shipped"
    return read_text(path, missing=what, remedy=what, error=ConfigError, limit=2**20)
