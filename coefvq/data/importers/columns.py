"""Names of columns: which are known, and which of a user's are most likely a known one misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from coefvq.errors import DataError
from coefvq.records import CAPTION, MANIFEST_COLUMNS, label_column, posterior_column

#: columns that may name the clip, in order of preference
PATH_COLUMNS = ("uri", "file_name", "path", "video")
#: of ms-swift's rows
CHAT_COLUMNS = ("messages", "videos")
#: columns of a user's table that are read
KNOWN = frozenset(
    {
        *PATH_COLUMNS,
        *CHAT_COLUMNS,
        CAPTION,
        "video_id",
        "title",
        "stickers",
        "published_at",
        "creator_id",
        "source_id",
        "views",
        "weight",
        "split",
        "sha256",
    }
)

_ALTERNATIVES = frozenset({*PATH_COLUMNS, *CHAT_COLUMNS})  # a row has one of them
_FAMILIES = (label_column(""), posterior_column(""))
_SHORTEST = 4  # letters of a name: one edit of a shorter one gives too many other words


@dataclass(frozen=True)
class Expected:
    """``names`` are the columns that a reader looks for; for those of ``settled`` another column stands."""

    names: frozenset[str]
    settled: frozenset[str] = frozenset()

    def count(self, names: Iterable[str]) -> int:
        """How many of ``names`` are looked for, whatever their case."""
        wanted = {_folded(name) for name in self.names}
        return sum(_folded(name) in wanted for name in names)

    def check(self, place: str, names: Sequence[str]) -> None:
        """Refuse a column that is one edit or one letter case away from an absent one that is looked for.

        Raises:
            DataError: names the column that was most likely meant.
        """
        found = _misspelt(self.names, self.settled, tuple(names))
        if found is not None:
            raise DataError(
                f"{place}: column '{found[0]}': did you mean '{found[1]}'? rename it so; if it is a column of your "
                "own, give it a name less like that"
            )


def table_columns(labels: Iterable[str] = (), renames: Mapping[str, str] | None = None) -> Expected:
    """What is looked for in a table of clips; ``labels`` are label columns, ``renames`` is ``ingest.columns``."""
    named = renames or {}
    settled = {*named, *(PATH_COLUMNS if "uri" in named else ())}
    return Expected(KNOWN | set(labels) | set(named.values()), frozenset(settled))


def read_names() -> frozenset[str]:
    """Columns of a user's table that a reader takes without being told, or that a manifest has."""
    return KNOWN | set(MANIFEST_COLUMNS)


def is_family(name: str) -> bool:
    """Whether a column is one of the labels or known posteriors, which are named after an issue."""
    return name.startswith(_FAMILIES)


@lru_cache(maxsize=256)
def _misspelt(wanted: frozenset[str], settled: frozenset[str], names: tuple[str, ...]) -> tuple[str, str] | None:
    present = set(names)
    absent = wanted - present - settled
    if present & _ALTERNATIVES:
        absent -= _ALTERNATIVES
    own = [
        name
        for name in names
        if name not in wanted and name not in MANIFEST_COLUMNS and not (name in KNOWN or name.startswith(_FAMILIES))
    ]
    found = ((name, meant) for name in own for meant in sorted(absent) if _alike(_folded(name), _folded(meant)))
    return next(found, None)


def _folded(name: str) -> str:
    return name.strip().casefold()


def _alike(name: str, meant: str) -> bool:
    return name == meant or (len(meant) >= _SHORTEST and _one_edit(name, meant))


def _one_edit(first: str, second: str) -> bool:
    """Damerau-Levenshtein distance 1: a letter more, less or another, or two neighbours exchanged."""
    if abs(len(first) - len(second)) > 1:
        return False
    same = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    a, b = first[same:], second[same:]
    if same is None:  # one begins with the other
        return True
    return a[1:] in (b, b[1:]) or a == b[1:] or (a[2:] == b[2:] and a[:2] == b[1::-1])
