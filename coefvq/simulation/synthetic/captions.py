"""A plain English description of what a clip shows and says, for teaching a projector to name things."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from coefvq.simulation.synthetic.factors import (
    FACTOR_TYPES,
    Action,
    Claim,
    Edit,
    Factors,
    Object,
    Sound,
    Sticker,
    Topic,
)

_WORDS: Mapping[Enum, str] = {
    Object.BLADE: "a knife",
    Object.FLAME: "a torch",
    Object.BOTTLE: "a bottle",
    Object.BALL: "a ball",
    Object.FLOWER: "a flower",
    Object.PHONE: "a phone",
    Object.HIDDEN: "something behind a mosaic",
    Action.CALM: "A person holds {object}",
    Action.SWING: "A person swings {object}",
    Action.CLASH: "Two people clash over {object}",
    Edit.PLAIN: "no editing marks",
    Edit.LETTERBOX: "black bars above and below",
    Edit.PIP: "a reaction inset in a corner",
    Edit.LOGO: "the logo of another account",
    Edit.BORDER: "a mirrored picture in a coloured border",
    Topic.COOK: "cooking",
    Topic.SPORT: "sport",
    Topic.FILM: "a film or a play",
    Topic.DARE: "a dare",
    Topic.THREAT: "a threat",
    Topic.VAGUE: "nothing in particular",
    Claim.OWN: "claims the footage as the author's own",
    Claim.CREDIT: "credits somebody else",
    Claim.COMMENTARY: "announces comments on the clip",
    Claim.AGGREGATOR: "announces a collection of clips",
    Claim.DENIAL: "says that somebody else filmed it",
    Claim.NONE: "does not say who filmed it",
    Sticker.NONE: "There is no sticker",
    Sticker.HYPE: "A sticker asks to keep watching",
    Sticker.SAFE: "A sticker says that it was staged or safe",
    Sticker.UNSAFE: "A sticker says that it was neither staged nor safe",
    Sound.VOICE: "speech",
    Sound.MUSIC: "music",
    Sound.AMBIENT: "background noise",
    Sound.RERECORDED: "a recording from a loudspeaker",
    Sound.SCREAM: "screams",
    Sound.BANG: "bangs",
    Sound.MUTED: "almost nothing",
}


#: one word per level, each of one token in SmolLM2's vocabulary
_SHORT: Mapping[Enum, str] = {
    **dict(zip(Object, ("knife", "torch", "bottle", "ball", "flower", "phone", "mosaic"), strict=True)),
    **dict(zip(Action, ("calm", "swing", "clash"), strict=True)),
    **dict(zip(Topic, ("cooking", "sport", "film", "dare", "threat", "vague"), strict=True)),
    **dict(zip(Sticker, ("blank", "hype", "staged", "danger"), strict=True)),
    **dict(zip(Edit, ("plain", "bars", "corner", "logo", "border"), strict=True)),
    **dict(zip(Claim, ("own", "credit", "comment", "collection", "denial", "unknown"), strict=True)),
    **dict(zip(Sound, ("speech", "music", "noise", "speaker", "scream", "bang", "silence"), strict=True)),
}


def short_captions(shown: Factors) -> tuple[str, ...]:
    """A word per factor in the order of ``FACTOR_TYPES``, as often as there are factors, each time from another start.

    For the alignment warm-up: the first word may be any of them, so the state that predicts it must know them all.
    """
    words = [_SHORT[getattr(shown, name)] for name in FACTOR_TYPES]
    return tuple(" " + " ".join([*words[start:], *words[:start]]) for start in range(len(words)))


def caption(shown: Factors) -> str:
    """One line on everything shown: object, action, editing marks, topic, claim of origin, sticker, sound."""
    words = _WORDS
    return (
        f"{words[shown.action].format(object=words[shown.object])}, with {words[shown.edit]}. "
        f"The title is about {words[shown.topic]} and {words[shown.claim]}. "
        f"{words[shown.sticker]}. One hears {words[shown.sound]}."
    )
