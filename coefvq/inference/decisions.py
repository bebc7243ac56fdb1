"""From scores to decisions: which videos go to the MLLM, and what its answers and its silence mean (paper, 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import CoefVQError
from coefvq.inference.scores import Scores


@dataclass(frozen=True)
class Route:
    """Where each video of a batch goes, bool [n] each.

    ``escalated`` videos need the MLLM for their decision. ``filtered`` ones are decided without it; those that are
    ``audited`` too are shown to the MLLM all the same, so that the filter's misses can be counted.
    """

    escalated: BoolArray
    filtered: BoolArray
    audited: BoolArray

    @property
    def to_mllm(self) -> list[int]:
        """Indices of the videos that the MLLM sees."""
        indices: list[int] = np.flatnonzero(self.escalated | self.audited).tolist()
        return indices


@dataclass(frozen=True)
class Answers:
    """What the MLLM said: ``scores`` [n], NaN where it was not asked or failed, and the errors by index.

    ``silence`` says why the MLLM answered no video at all; empty if it did.
    """

    scores: Scores
    errors: Mapping[int, CoefVQError]
    silence: str = ""


@dataclass(frozen=True)
class Decisions:
    """One row of facts per video, [n] each.

    ``final`` is the score that the decision threshold decides, NaN without a decision. ``by_mllm`` marks videos whose
    final score is the MLLM's, ``down`` those that wait for an MLLM that is down, ``drawn`` those whose audit
    probability is to be logged. ``errors`` are of videos without a decision, by index.
    """

    final: Scores
    by_mllm: BoolArray
    down: BoolArray
    drawn: BoolArray
    errors: Mapping[int, CoefVQError]


def route(policy: CascadePolicy, base: Scores, views: Scores, drawn: BoolArray) -> Route:
    """Send videos on by their base score [n] and views [n, NaN unknown]; ``drawn`` [n] are those an audit picks."""
    escalated = policy.escalates(base, views)
    filtered = ~escalated & ~policy.accepts(base, views)
    return Route(escalated, filtered, filtered & drawn)


def decide(policy: CascadePolicy, sent: Route, base: Scores, views: Scores, answers: Answers) -> Decisions:
    """Combine both models' scores by the policy; an MLLM that is down counts as the policy's ``mllm_down`` says."""
    failed = np.zeros(len(base), bool)
    failed[list(answers.errors)] = True
    down = sent.escalated & ~failed if answers.silence else np.zeros(len(base), bool)
    # a silent MLLM audited nobody of this batch, so no probability is logged; a failed audit counts as not drawn
    answered = ~failed & (not answers.silence)
    audited, drawn = sent.audited & answered, sent.filtered & answered
    # where an audit fails, the base model's decision stands
    errors = {index: error for index, error in answers.errors.items() if sent.escalated[index]}
    good = ~(failed & sent.escalated)
    final = np.full(len(base), np.nan)
    final[good] = policy.final_score(base[good], answers.scores[good], views[good], down[good])
    final[audited] = answers.scores[audited]
    return Decisions(final, (sent.escalated & ~down) | audited, down, drawn, errors)
