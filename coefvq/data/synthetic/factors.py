"""The world as data: what may vary in a clip, how often, and how it moves the odds of each issue.

All numbers are design choices. They make each issue need more than one modality: a blade is harmless
in a kitchen, a brawl on a film set, a reaction inset with a spoken comment is original work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Object(Enum):
    """What the person in the picture holds."""

    BLADE = "blade"
    FLAME = "flame"
    BOTTLE = "bottle"
    BALL = "ball"
    FLOWER = "flower"
    PHONE = "phone"


class Action(Enum):
    """How it moves."""

    CALM = "calm"
    SWING = "swing"
    CLASH = "clash"


class Topic(Enum):
    """What the title says the clip is about."""

    COOK = "cook"
    SPORT = "sport"
    FILM = "film"
    DARE = "dare"
    THREAT = "threat"
    VAGUE = "vague"


class Sticker(Enum):
    """Kind of on-screen text."""

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
    """What the title says of the clip's origin."""

    OWN = "own"
    CREDIT = "credit"
    COMMENTARY = "commentary"
    AGGREGATOR = "aggregator"
    DENIAL = "denial"
    NONE = "none"


class Sound(Enum):
    """Sound track; RERECORDED is a loudspeaker caught by a microphone."""

    VOICE = "voice"
    MUSIC = "music"
    AMBIENT = "ambient"
    RERECORDED = "rerecorded"


@dataclass(frozen=True)
class Factors:
    """The latent factors of one video; they are independent of each other."""

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

#: P(level); the levels of one factor add up to 1
PRIOR: Mapping[Enum, float] = MappingProxyType(
    {
        **{Object.BLADE: 0.17, Object.FLAME: 0.15, Object.BOTTLE: 0.17},
        **{Object.BALL: 0.20, Object.FLOWER: 0.15, Object.PHONE: 0.16},
        **{Action.CALM: 0.45, Action.SWING: 0.30, Action.CLASH: 0.25},
        **{Topic.COOK: 0.17, Topic.SPORT: 0.17, Topic.FILM: 0.14},
        **{Topic.DARE: 0.12, Topic.THREAT: 0.10, Topic.VAGUE: 0.30},
        **{Sticker.NONE: 0.50, Sticker.HYPE: 0.20, Sticker.SAFE: 0.15, Sticker.UNSAFE: 0.15},
        **{Edit.PLAIN: 0.45, Edit.LETTERBOX: 0.17, Edit.PIP: 0.14, Edit.LOGO: 0.12, Edit.BORDER: 0.12},
        **{Claim.OWN: 0.20, Claim.CREDIT: 0.12, Claim.COMMENTARY: 0.13},
        **{Claim.AGGREGATOR: 0.12, Claim.DENIAL: 0.10, Claim.NONE: 0.33},
        **{Sound.VOICE: 0.30, Sound.MUSIC: 0.35, Sound.AMBIENT: 0.22, Sound.RERECORDED: 0.13},
    }
)


@dataclass(frozen=True)
class LogOdds:
    """One issue's log-odds up to its intercept: sharpness · (sum of main effects + sum of pair effects).

    ``factors`` names the fields of ``Factors`` that matter, in the order pairs are keyed. Levels and
    pairs that are not listed count 0.
    """

    factors: tuple[str, ...]
    sharpness: float
    main: Mapping[Enum, float]
    pairs: Mapping[tuple[Enum, Enum], float]


#: inappropriate content: what is done with the object, unless title or sticker explain it away
ICD = LogOdds(
    factors=("object", "action", "topic", "sticker"),
    sharpness=1.7,
    main={
        **{Object.BLADE: 4.2, Object.FLAME: 3.0, Object.BOTTLE: 1.6},
        **{Object.BALL: -1.2, Object.FLOWER: -2.2, Object.PHONE: -1.2},
        **{Action.CALM: -3.2, Action.SWING: 0.4, Action.CLASH: 2.6},
        **{Topic.COOK: -0.5, Topic.SPORT: -0.3, Topic.FILM: -1.6, Topic.DARE: 1.2, Topic.THREAT: 1.8},
        **{Sticker.SAFE: -1.6, Sticker.UNSAFE: 1.4},
    },
    pairs={
        (Object.BALL, Action.SWING): -1.0,
        (Object.BOTTLE, Action.CLASH): 1.4,
        (Object.BLADE, Action.SWING): 1.5,
        (Object.FLAME, Action.SWING): 1.3,
        (Object.BLADE, Topic.COOK): -3.2,
        (Object.FLAME, Topic.COOK): -3.2,
        (Object.BOTTLE, Topic.COOK): -1.5,
        (Object.BALL, Topic.SPORT): -3.0,
        (Object.BLADE, Topic.SPORT): 1.0,
        (Object.FLAME, Topic.SPORT): 1.0,
        (Object.FLOWER, Topic.THREAT): -1.0,
        (Object.PHONE, Topic.DARE): -0.5,
        (Action.CLASH, Topic.SPORT): -2.5,
        (Action.CLASH, Topic.THREAT): 1.5,
        (Action.SWING, Topic.DARE): 1.0,
        (Action.CALM, Topic.DARE): -0.5,
        (Topic.FILM, Sticker.UNSAFE): 1.5,
        (Topic.COOK, Sticker.UNSAFE): -1.5,
        (Topic.DARE, Sticker.SAFE): -1.0,
    },
)

#: unoriginal content: marks of copying, unless comment and voice make it a work of its own
UCC = LogOdds(
    factors=("edit", "claim", "sound"),
    sharpness=3.4,
    main={
        **{Edit.PLAIN: -1.5, Edit.LETTERBOX: 1.2, Edit.PIP: 0.2, Edit.LOGO: 1.5, Edit.BORDER: 1.0},
        **{Claim.OWN: -2.0, Claim.CREDIT: 1.8, Claim.COMMENTARY: -0.3},
        **{Claim.AGGREGATOR: 1.3, Claim.DENIAL: 1.5},
        **{Sound.VOICE: -1.0, Sound.MUSIC: 0.5, Sound.AMBIENT: -0.5, Sound.RERECORDED: 1.0},
    },
    pairs={
        (Edit.PIP, Claim.COMMENTARY): -2.0,
        (Edit.LETTERBOX, Claim.OWN): 1.0,
        (Edit.PLAIN, Claim.CREDIT): -0.5,
        (Edit.LOGO, Claim.OWN): 0.5,
        (Claim.COMMENTARY, Sound.VOICE): -2.0,
        (Claim.COMMENTARY, Sound.MUSIC): 1.5,
        (Claim.CREDIT, Sound.VOICE): -1.5,
        (Claim.OWN, Sound.RERECORDED): 2.0,
        (Claim.DENIAL, Sound.VOICE): -0.5,
        (Edit.PIP, Sound.VOICE): -1.5,
        (Edit.PIP, Sound.MUSIC): 1.5,
        (Edit.LETTERBOX, Sound.VOICE): -1.0,
        (Edit.PLAIN, Sound.RERECORDED): 0.8,
        (Edit.PLAIN, Sound.VOICE): -0.5,
    },
)

ISSUES: Mapping[str, LogOdds] = MappingProxyType({"icd": ICD, "ucc": UCC})

#: which factors a scorer of each kind can see
VIEWS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "all": frozenset(FACTOR_TYPES),
        "vision": frozenset({"object", "action", "edit"}),
        "vision+text": frozenset({"object", "action", "edit", "topic", "sticker", "claim"}),
    }
)
