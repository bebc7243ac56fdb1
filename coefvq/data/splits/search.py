"""Which groups are settled before shares are balanced: every split gets every class, and giants train.

The search for an example of every class is exact, so it succeeds whenever it can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from coefvq.data.splits.groups import Group, Places
from coefvq.records import LABELLED_SPLITS


def free_groups(groups: Sequence[Group], places: Places) -> list[int]:
    """Numbers of the groups without a place, in their random order."""
    return sorted((n for n in range(len(groups)) if n not in places), key=lambda n: groups[n].key)


def giants(groups: Sequence[Group], places: Places, fractions: Mapping[str, float]) -> Places:
    """Train for labelled groups as large as val or test, where train has room; no figure should rest on one."""
    total = sum(group.size for group in groups)
    limit = min((fractions[name] for name in ("val", "test") if fractions[name] > 0), default=1.0) * total
    large = [n for n in free_groups(groups, places) if groups[n].size >= limit and groups[n].classes]
    fits = sum(groups[n].size for n in large) <= fractions["train"] * total
    return dict.fromkeys(large, "train") if fits else {}


def cover_classes(groups: Sequence[Group], places: Places, names: Sequence[str]) -> Places:
    """A small group for each class that a split lacks; nothing where no choice covers them all."""
    stock: dict[int, list[int]] = {}
    for number in sorted(free_groups(groups, places), key=lambda n: groups[n].size):
        if groups[number].classes:
            stock.setdefault(groups[number].classes, []).append(number)
    everything = _union(groups[n].classes for n in range(len(groups)) if places.get(n, "train") in LABELLED_SPLITS)
    lacking = tuple(
        everything & ~_union(groups[n].classes for n, place in places.items() if place == name) for name in names
    )
    kinds = tuple(sorted(stock))
    # more of a kind than there are cells to cover cannot help
    cells = sum(bits.bit_count() for bits in lacking)
    choice = _search(kinds, tuple(min(len(stock[kind]), cells) for kind in kinds), lacking)
    return {stock[kind].pop(0): names[split] for kind, split in choice or ()}


def _union(bit_sets: Iterable[int]) -> int:
    result = 0
    for bits in bit_sets:
        result |= bits
    return result


def _search(
    kinds: tuple[int, ...], stock: tuple[int, ...], lacking: tuple[int, ...]
) -> tuple[tuple[int, int], ...] | None:
    """Pairs (kind, split) that leave no split lacking a class, or None if there are none.

    Depth-first with memory, scarcest class first. ``kinds`` are bit sets of classes, ``stock`` how many
    groups of each kind are left, ``lacking`` the bit set each split still needs.
    """

    @cache
    def search(stock: tuple[int, ...], lacking: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
        wanted = _union(lacking)
        if not wanted:
            return ()
        bits = [1 << position for position in range(wanted.bit_length()) if wanted >> position & 1]
        spare = {
            bit: sum(left for kind, left in zip(kinds, stock, strict=True) if kind & bit)
            - sum(1 for need in lacking if need & bit)
            for bit in bits
        }
        scarce = min(bits, key=lambda bit: spare[bit])
        if spare[scarce] < 0:
            return None
        split = next(place for place, need in enumerate(lacking) if need & scarce)
        usable = [place for place, kind in enumerate(kinds) if kind & scarce and stock[place]]
        # most classes at once first, least waste second
        usable.sort(key=lambda place: (-(kinds[place] & lacking[split]).bit_count(), kinds[place].bit_count()))
        for place in usable:
            fewer = (*stock[:place], stock[place] - 1, *stock[place + 1 :])
            need = (*lacking[:split], lacking[split] & ~kinds[place], *lacking[split + 1 :])
            if (rest := search(fewer, need)) is not None:
                return ((kinds[place], split), *rest)
        return None

    return search(stock, lacking)
