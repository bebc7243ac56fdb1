"""Titles of originals and copies: neutral ones where the input has none, and paraphrases.

No template belongs to one class alone: copyists claim to have filmed a clip, and creators repost their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coefvq.simulation.reupload.edits import handle

_NEUTRAL = (
    *("what a day", "this just happened", "caught on camera", "look at this", "a short moment", "no comment"),
    *("well, that was something", "just another {day}", "{day} in the city", "around the corner", "on my way home"),
    *(
        "still thinking about this one",
        "what would you do",
        "things you see on a {day}",
        "in {n} seconds",
        "sin palabras",
    ),
)
_DRESSED = (
    *(
        "{title} #fyp",
        "{title} #viral #clip",
        "wait for it... {title}",
        "{title} (part {n})",
        "{title} !!",
        "OMG {title}",
    ),
    *(
        "watch: {title}",
        "{title} | {day}",
        "{title}, keep watching",
        "so... {title}",
        "{title} \N{FIRE}",
        "#trending {title}",
    ),
)
_SECOND_HAND = (
    *("via {who}: {title}", "{title}, credit to {who}", "found this: {title}", "best of the week: {title}"),
    *(
        "{title} | clips every day",
        "repost: {title}",
        "not my video: {title}",
        "top {n}: {title}",
        "{who} posted this, {title}",
    ),
)
_CLAIMED = (
    *(
        "{title}, filmed by me",
        "my own footage: {title}",
        "I recorded this: {title}",
        "{title} (original)",
        "my video, {title}",
    ),
    *("shot this on {day}: {title}", "{title}, I was there"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# shares of dressed, second-hand, claimed, shortened
_BY_COPYIST = (0.45, 0.3, 0.1, 0.15)
_BY_CREATOR = (0.55, 0.1, 0.25, 0.1)


def neutral_title(rng: np.random.Generator) -> str:
    """A title that says nothing of where the clip is from."""
    return _filled(rng, _NEUTRAL, "")


def retitled(rng: np.random.Generator, title: str, copyist: bool) -> str:
    """``title`` said anew; both classes use every way, in other shares."""
    way = int(rng.choice(4, p=_BY_COPYIST if copyist else _BY_CREATOR))
    if way == 3:
        return _shortened(rng, title)
    return _filled(rng, (_DRESSED, _SECOND_HAND, _CLAIMED)[way], title)


def _shortened(rng: np.random.Generator, title: str) -> str:
    words = title.split()
    if len(words) < 3:
        return title.upper()
    keep = int(rng.integers(2, len(words)))
    return " ".join(words[:keep]) + "..."


def _filled(rng: np.random.Generator, templates: Sequence[str], title: str) -> str:
    template = templates[int(rng.integers(len(templates)))]
    day = _DAYS[int(rng.integers(len(_DAYS)))]
    return template.format(title=title, day=day, n=int(rng.integers(2, 12)), who=handle(rng))
