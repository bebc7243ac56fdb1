"""The world's factors as data: what may vary in a clip, and how often.

Each factor exists twice. Its true level is what is the case and decides the labels (``odds``); its shown
level is what the clip lets one see, read or hear of it (``channel``). All numbers are design choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Object(Enum):
    """What the person in the picture holds; HIDDEN, behind a mosaic, is only ever shown, never true."""

    BLADE = "blade"
    FLAME = "flame"
    BOTTLE = "bottle"
    BALL = "ball"
    FLOWER = "flower"
    PHONE = "phone"
    HIDDEN = "hidden"


class Action(Enum):
    """How it moves."""

    CALM = "calm"
    SWING = "swing"
    CLASH = "clash"


class Topic(Enum):
    """What the clip is about, as its title says; VAGUE titles leave it open."""

    COOK = "cook"
    SPORT = "sport"
    FILM = "film"
    DARE = "dare"
    THREAT = "threat"
    VAGUE = "vague"


class Sticker(Enum):
    """What on-screen text says of the scene: nothing, a teaser, that it was safe, that it was not."""

    NONE = "none"
    HYPE = "hype"
    SAFE = "safe"
    UNSAFE = "unsafe"


class Edit(Enum):
    """Marks that editing left in the picture; PIP is a reaction inset."""

    PLAIN = "plain"
    LETTERBOX = "letterbox"
    PIP = "pip"
    LOGO = "logo"
    BORDER = "border"


class Claim(Enum):
    """Where the clip comes from, as its title says."""

    OWN = "own"
    CREDIT = "credit"
    COMMENTARY = "commentary"
    AGGREGATOR = "aggregator"
    DENIAL = "denial"
    NONE = "none"


class Sound(Enum):
    """Sound track; RERECORDED is a loudspeaker caught by a microphone. MUTED is only ever shown, never true."""

    VOICE = "voice"
    MUSIC = "music"
    AMBIENT = "ambient"
    RERECORDED = "rerecorded"
    SCREAM = "scream"
    BANG = "bang"
    MUTED = "muted"


@dataclass(frozen=True)
class Factors:
    """One level per factor, of one video; true levels are independent of each other."""

    object: Object
    action: Action
    topic: Topic
    sticker: Sticker
    edit: Edit
    claim: Claim
    sound: Sound


FACTOR_TYPES: Mapping[str, type[Enum]] = MappingProxyType(
    {
        "object": Object,
        "action": Action,
        "topic": Topic,
        "sticker": Sticker,
        "edit": Edit,
        "claim": Claim,
        "sound": Sound,
    }
)

#: P(true level); the levels of one factor add up to 1
PRIOR: Mapping[Enum, float] = MappingProxyType(
    {
        **{Object.BLADE: 0.17, Object.FLAME: 0.15, Object.BOTTLE: 0.17},
        **{Object.BALL: 0.20, Object.FLOWER: 0.15, Object.PHONE: 0.16, Object.HIDDEN: 0.0},
        **{Action.CALM: 0.45, Action.SWING: 0.30, Action.CLASH: 0.25},
        **{Topic.COOK: 0.17, Topic.SPORT: 0.17, Topic.FILM: 0.14},
        **{Topic.DARE: 0.12, Topic.THREAT: 0.10, Topic.VAGUE: 0.30},
        **{Sticker.NONE: 0.50, Sticker.HYPE: 0.20, Sticker.SAFE: 0.15, Sticker.UNSAFE: 0.15},
        **{Edit.PLAIN: 0.45, Edit.LETTERBOX: 0.17, Edit.PIP: 0.14, Edit.LOGO: 0.12, Edit.BORDER: 0.12},
        **{Claim.OWN: 0.20, Claim.CREDIT: 0.12, Claim.COMMENTARY: 0.13},
        **{Claim.AGGREGATOR: 0.12, Claim.DENIAL: 0.10, Claim.NONE: 0.33},
        **{Sound.VOICE: 0.26, Sound.MUSIC: 0.26, Sound.AMBIENT: 0.16, Sound.RERECORDED: 0.12},
        **{Sound.SCREAM: 0.11, Sound.BANG: 0.09, Sound.MUTED: 0.0},
    }
)
