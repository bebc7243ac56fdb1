"""The shape of a language's phrases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic


@dataclass(frozen=True)
class Phrases:
    """Phrases of one language; ``{name}``, ``{n}``, ``{day}`` and ``{mood}`` are filled in.

    ``Claim.NONE`` and ``Sticker.NONE`` have none. ``moods`` may be empty where adjectives would have to agree.
    """

    days: tuple[str, ...]
    moods: tuple[str, ...]
    topic: Mapping[Topic, tuple[str, ...]]
    claim: Mapping[Claim, tuple[str, ...]]
    sticker: Mapping[Sticker, tuple[str, ...]]
