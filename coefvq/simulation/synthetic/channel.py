"""What a clip shows of its true factors: an observation channel per factor, with known probabilities.

Things look like other things or are hidden, titles leave out or misstate, stickers are missing, editing
marks are cropped away, the sound is replaced. Given the true level, the shown level is drawn once, on its
own; picture, text and sound are made from shown levels only, so they tell no more than those.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from coefvq.simulation.synthetic.factors import FACTOR_TYPES, Action, Claim, Edit, Object, Sound, Sticker, Topic

#: P(shown | true) of what is shown wrongly; with the rest of its probability a level is shown as it is
MISTAKEN: Mapping[Enum, Mapping[Enum, float]] = MappingProxyType(
    {
        # seen from its edge a knife is a phone; a torch is a red flower; 6 in 100 are behind a mosaic
        Object.BLADE: {Object.HIDDEN: 0.06, Object.PHONE: 0.04, Object.BOTTLE: 0.03},
        Object.FLAME: {Object.HIDDEN: 0.06, Object.FLOWER: 0.06},
        Object.BOTTLE: {Object.HIDDEN: 0.06, Object.BLADE: 0.02, Object.PHONE: 0.04},
        Object.BALL: {Object.HIDDEN: 0.06, Object.FLOWER: 0.04},
        Object.FLOWER: {Object.HIDDEN: 0.06, Object.FLAME: 0.02, Object.BALL: 0.03},
        Object.PHONE: {Object.HIDDEN: 0.06, Object.BLADE: 0.02, Object.BOTTLE: 0.03},
        Action.CALM: {Action.SWING: 0.04, Action.CLASH: 0.01},
        Action.SWING: {Action.CALM: 0.05, Action.CLASH: 0.04},
        Action.CLASH: {Action.CALM: 0.02, Action.SWING: 0.07},
        # every tenth title does not say what the clip is about; some say what draws more clicks
        Topic.COOK: {Topic.VAGUE: 0.10, Topic.DARE: 0.02},
        Topic.SPORT: {Topic.VAGUE: 0.10, Topic.THREAT: 0.02},
        Topic.FILM: {Topic.VAGUE: 0.08, Topic.DARE: 0.01, Topic.THREAT: 0.02},
        Topic.DARE: {Topic.VAGUE: 0.10, Topic.FILM: 0.02},
        Topic.THREAT: {Topic.VAGUE: 0.08, Topic.FILM: 0.02, Topic.DARE: 0.02},
        Topic.VAGUE: {Topic.DARE: 0.02, Topic.FILM: 0.01},
        Sticker.NONE: {Sticker.HYPE: 0.05, Sticker.SAFE: 0.02},
        Sticker.HYPE: {Sticker.NONE: 0.10},
        Sticker.SAFE: {Sticker.NONE: 0.10, Sticker.HYPE: 0.02},
        Sticker.UNSAFE: {Sticker.NONE: 0.10, Sticker.HYPE: 0.03, Sticker.SAFE: 0.02},
        # marks are cropped or painted over; a plain clip may have bars for reasons of its own
        Edit.PLAIN: {Edit.LETTERBOX: 0.02, Edit.BORDER: 0.02},
        Edit.LETTERBOX: {Edit.PLAIN: 0.08},
        Edit.PIP: {Edit.PLAIN: 0.06},
        Edit.LOGO: {Edit.PLAIN: 0.09, Edit.BORDER: 0.02},
        Edit.BORDER: {Edit.PLAIN: 0.08, Edit.LETTERBOX: 0.02},
        Claim.OWN: {Claim.NONE: 0.10},
        Claim.CREDIT: {Claim.NONE: 0.08, Claim.OWN: 0.02},
        Claim.COMMENTARY: {Claim.NONE: 0.10},
        Claim.AGGREGATOR: {Claim.NONE: 0.08, Claim.OWN: 0.03},
        Claim.DENIAL: {Claim.NONE: 0.08, Claim.OWN: 0.02},
        Claim.NONE: {Claim.OWN: 0.03, Claim.COMMENTARY: 0.02},
        # any track may be muted or have music laid over it; a shout may pass for speech, a shot for noise
        Sound.VOICE: {Sound.MUTED: 0.04, Sound.MUSIC: 0.04, Sound.RERECORDED: 0.02},
        Sound.MUSIC: {Sound.MUTED: 0.04, Sound.RERECORDED: 0.02},
        Sound.AMBIENT: {Sound.MUTED: 0.04, Sound.MUSIC: 0.04},
        Sound.RERECORDED: {Sound.MUTED: 0.04, Sound.MUSIC: 0.04, Sound.VOICE: 0.03},
        Sound.SCREAM: {Sound.MUTED: 0.04, Sound.MUSIC: 0.04, Sound.VOICE: 0.03},
        Sound.BANG: {Sound.MUTED: 0.04, Sound.MUSIC: 0.04, Sound.AMBIENT: 0.03},
    }
)


@lru_cache
def channel_matrix(name: str) -> NDArray[np.float64]:
    """P(shown | true) of factor ``name``, ``float64 [true levels, shown levels]``; rows sum to 1."""
    levels = list(FACTOR_TYPES[name])
    matrix = np.zeros((len(levels), len(levels)))
    for row, level in enumerate(levels):
        mistaken = MISTAKEN.get(level, {})
        for shown, probability in mistaken.items():
            matrix[row, levels.index(shown)] = probability
        matrix[row, row] = 1.0 - sum(mistaken.values())
    matrix.flags.writeable = False
    return matrix
