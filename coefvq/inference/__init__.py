"""The one scoring path: evaluation, bulk scoring, the command line and the VMP all use it."""

from coefvq.inference.pairs import MultiIssueScorer, PairScorer
from coefvq.inference.scores import (
    Scores,
    head_scores,
    plan_batches,
    score_batches,
    score_dataset,
)
from coefvq.inference.settings import EXACT, NOTHING, Recorded, load_for_scoring, ready_for_scoring, recorded

__all__ = [
    "EXACT",
    "NOTHING",
    "MultiIssueScorer",
    "PairScorer",
    "Recorded",
    "Scores",
    "head_scores",
    "load_for_scoring",
    "plan_batches",
    "ready_for_scoring",
    "recorded",
    "score_batches",
    "score_dataset",
]
