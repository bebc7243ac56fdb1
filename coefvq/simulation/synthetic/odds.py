"""How the true factors move the odds of each issue. All numbers are design choices.

Each issue needs every modality: a blade is harmless in a kitchen, a brawl on a film set; a shout on a
sports ground is a cheer, and in a brawl it is not; a reaction inset with a spoken comment is original work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from coefvq.simulation.synthetic.factors import Action, Claim, Edit, Object, Sound, Sticker, Topic


@dataclass(frozen=True)
class LogOdds:
    """One issue's log-odds up to its intercept: sharpness · (sum of main effects + sum of pair effects).

    Pairs are keyed in the order of ``factors.FACTOR_TYPES``. What is not listed counts 0.
    """

    sharpness: float
    main: Mapping[Enum, float]
    pairs: Mapping[tuple[Enum, Enum], float]


#: inappropriate content: what is done with the object, unless title, sticker or sound explain it away
ICD = LogOdds(
    sharpness=2.4,
    main={
        **{Object.BLADE: 3.4, Object.FLAME: 2.4, Object.BOTTLE: 1.4},
        **{Object.BALL: -1.2, Object.FLOWER: -2.0, Object.PHONE: -1.2},
        **{Action.CALM: -2.6, Action.SWING: 0.4, Action.CLASH: 2.4},
        **{Topic.COOK: -1.0, Topic.SPORT: -0.8, Topic.FILM: -2.0, Topic.DARE: 1.4, Topic.THREAT: 2.2},
        **{Sticker.SAFE: -1.6, Sticker.UNSAFE: 1.4},
        **{Claim.COMMENTARY: -0.8, Claim.DENIAL: 0.4},
        **{Sound.VOICE: -0.4, Sound.MUSIC: -1.6, Sound.SCREAM: 2.4, Sound.BANG: 1.8},
    },
    pairs={
        (Object.BALL, Action.SWING): -1.0,
        (Object.BOTTLE, Action.CLASH): 1.4,
        (Object.BLADE, Action.SWING): 1.2,
        (Object.FLAME, Action.SWING): 1.2,
        (Object.BLADE, Topic.COOK): -3.0,
        (Object.FLAME, Topic.COOK): -3.0,
        (Object.BOTTLE, Topic.COOK): -1.5,
        (Object.BALL, Topic.SPORT): -2.5,
        (Object.BLADE, Topic.SPORT): 1.0,
        (Object.FLAME, Sound.BANG): 1.4,
        (Action.CLASH, Topic.SPORT): -2.4,
        (Action.CLASH, Topic.THREAT): 1.4,
        (Action.SWING, Topic.DARE): 1.0,
        (Action.CLASH, Sound.SCREAM): 1.4,
        (Action.CLASH, Sound.MUSIC): -1.4,
        (Action.CALM, Sound.BANG): -0.8,
        (Topic.FILM, Sticker.UNSAFE): 1.4,
        (Topic.COOK, Sticker.UNSAFE): -1.2,
        (Topic.DARE, Sticker.SAFE): -1.0,
        (Topic.FILM, Edit.LETTERBOX): -1.0,
        (Topic.SPORT, Sound.SCREAM): -2.4,
        (Topic.SPORT, Sound.BANG): -1.6,
        (Topic.FILM, Sound.SCREAM): -1.6,
        (Topic.FILM, Sound.BANG): -1.6,
        (Topic.THREAT, Sound.VOICE): 1.6,
        (Topic.DARE, Sound.SCREAM): 0.8,
    },
)

#: unoriginal content: marks of copying, unless comment and voice make it a work of its own
UCC = LogOdds(
    sharpness=3.4,
    main={
        **{Edit.PLAIN: -2.0, Edit.LETTERBOX: 1.4, Edit.PIP: 0.2, Edit.LOGO: 2.0, Edit.BORDER: 1.4},
        **{Claim.OWN: -2.2, Claim.CREDIT: 2.0, Claim.COMMENTARY: -0.6},
        **{Claim.AGGREGATOR: 1.7, Claim.DENIAL: 1.7},
        **{Sound.VOICE: -1.0, Sound.MUSIC: 0.6, Sound.AMBIENT: -0.5, Sound.RERECORDED: 1.2},
        **{Sound.SCREAM: -0.6, Sound.BANG: -0.4},
        **{Topic.FILM: 0.6, Topic.SPORT: 0.4, Topic.COOK: -0.6},
        **{Sticker.HYPE: 0.8, Sticker.SAFE: -0.4},
        **{Object.PHONE: 0.3},
    },
    pairs={
        (Topic.COOK, Sound.VOICE): -0.8,
        (Topic.FILM, Edit.LETTERBOX): 1.0,
        (Topic.SPORT, Edit.LOGO): 1.0,
        (Topic.FILM, Sound.RERECORDED): 1.0,
        (Topic.SPORT, Sound.RERECORDED): 0.8,
        (Sticker.HYPE, Claim.OWN): -0.6,
        (Sticker.HYPE, Claim.AGGREGATOR): 0.6,
        (Edit.PIP, Claim.COMMENTARY): -2.0,
        (Edit.LETTERBOX, Claim.OWN): 1.0,
        (Edit.PLAIN, Claim.CREDIT): -0.5,
        (Edit.LOGO, Claim.OWN): 0.5,
        (Edit.PIP, Sound.VOICE): -1.5,
        (Edit.PIP, Sound.MUSIC): 1.5,
        (Edit.LETTERBOX, Sound.VOICE): -1.0,
        (Edit.PLAIN, Sound.RERECORDED): 0.8,
        (Edit.PLAIN, Sound.VOICE): -0.5,
        (Claim.COMMENTARY, Sound.VOICE): -2.0,
        (Claim.COMMENTARY, Sound.MUSIC): 1.5,
        (Claim.CREDIT, Sound.VOICE): -1.5,
        (Claim.OWN, Sound.RERECORDED): 2.0,
        (Claim.DENIAL, Sound.VOICE): -0.5,
    },
)

ISSUES: Mapping[str, LogOdds] = MappingProxyType({"icd": ICD, "ucc": UCC})
