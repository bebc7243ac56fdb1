"""A plain English description of what a clip shows and says, for teaching a projector to name things."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from coefvq.data.synthetic.factors import Action, Claim, Edit, Factors, Object, Sound, Sticker, Topic

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


def caption(shown: Factors) -> str:
    """One line on everything shown: object, action, editing marks, topic, claim of origin, sticker, sound."""
    words = _WORDS
    return (
        f"{words[shown.action].format(object=words[shown.object])}, with {words[shown.edit]}. "
        f"The title is about {words[shown.topic]} and {words[shown.claim]}. "
        f"{words[shown.sticker]}. One hears {words[shown.sound]}."
    )
