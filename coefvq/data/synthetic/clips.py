"""One synthetic video as facts: factors, labels, text, and who posted it when.

Everything follows from (seed, index), never from how many videos are made, so a data set can grow
without changing what it already holds. Creators and shared sources stay inside a circle of
neighbouring indices: groups of linked videos are small at any size, and a grouped split stays possible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import blake2b

import numpy as np

from coefvq.data.synthetic.factors import ISSUES, Claim, Factors
from coefvq.data.synthetic.texts import write_stickers, write_title
from coefvq.data.synthetic.world import draw_factors, posterior
from coefvq.records import label_column, posterior_column

#: columns of metadata.csv, in order
COLUMNS = (
    *("file_name", "video_id", "title", "stickers", "published_at", "creator_id", "source_id", "views"),
    *(label_column(issue) for issue in ISSUES),
    *(posterior_column(issue) for issue in ISSUES),
)

_CIRCLE = 12  # videos whose creators know each other
_CREATORS = 3  # per circle, picked with Zipf weights 1, 1/2, 1/3: about one creator per four videos
_RELAY = 3  # at most so many videos are cut from one source
_SECOND_HAND = frozenset({Claim.CREDIT, Claim.AGGREGATOR, Claim.DENIAL})
_START = datetime(2025, 1, 1, tzinfo=UTC)
_SPACING_SECONDS = 120
_VIEWS_LOG_MEAN, _VIEWS_LOG_STD = 6.5, 2.0  # log-normal: median near 700, one in a thousand above 300,000


@dataclass(frozen=True)
class Clip:
    """The facts of one video; ``labels`` and ``posteriors`` are keyed by issue."""

    index: int
    video_id: str
    factors: Factors
    title: str
    stickers: tuple[str, ...]
    published_at: datetime
    creator_id: str
    source_id: str
    views: int
    labels: Mapping[str, int]
    posteriors: Mapping[str, float]

    @property
    def file_name(self) -> str:
        """Path of the clip below the data set's folder."""
        return f"videos/{self.video_id}.mp4"


def random_streams(seed: int, index: int) -> list[np.random.Generator]:
    """Three independent generators of one video: facts, picture, sound."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence([seed, index]).spawn(3)]


def describe(seed: int, index: int, prevalence: Mapping[str, float]) -> Clip:
    """Draw the facts of video ``index``; labels are Bernoulli(posterior) at the given prevalence."""
    rng = random_streams(seed, index)[0]
    factors = draw_factors(rng)
    posteriors = {issue: posterior(issue, factors, prevalence[issue]) for issue in ISSUES}
    return Clip(
        index=index,
        video_id=f"s{seed}-{index:06d}",
        factors=factors,
        posteriors=posteriors,
        labels={issue: int(rng.random() < posteriors[issue]) for issue in ISSUES},
        title=write_title(rng, factors.topic, factors.claim),
        stickers=write_stickers(rng, factors.sticker),
        published_at=_published_at(rng, index),
        creator_id=_creator_id(rng, seed, index),
        source_id=_source_id(seed, index, factors.claim),
        views=int(rng.lognormal(_VIEWS_LOG_MEAN, _VIEWS_LOG_STD)),
    )


def metadata_row(clip: Clip) -> list[str]:
    """The clip's cells of metadata.csv; posteriors as ``repr``, which reads back to the same float."""
    return [
        *(clip.file_name, clip.video_id, clip.title, json.dumps(clip.stickers, ensure_ascii=False)),
        *(clip.published_at.isoformat(), clip.creator_id, clip.source_id, str(clip.views)),
        *(str(clip.labels[issue]) for issue in ISSUES),
        *(repr(clip.posteriors[issue]) for issue in ISSUES),
    ]


def factors_row(clip: Clip) -> dict[str, str]:
    """The clip's line of factors.jsonl: ``video_id`` and the level of each factor."""
    levels: dict[str, Enum] = asdict(clip.factors)
    return {"video_id": clip.video_id, **{name: level.value for name, level in levels.items()}}


def _published_at(rng: np.random.Generator, index: int) -> datetime:
    # later indices are later in time, so a data set grows at its end
    return _START + timedelta(seconds=index * _SPACING_SECONDS + int(rng.integers(_SPACING_SECONDS)))


def _creator_id(rng: np.random.Generator, seed: int, index: int) -> str:
    zipf = 1.0 / np.arange(1, _CREATORS + 1)
    rank = int(rng.choice(_CREATORS, p=zipf / zipf.sum()))
    return f"creator-{_digest(seed, 'creator', index // _CIRCLE, rank)}"


def _source_id(seed: int, index: int, claim: Claim) -> str:
    """Second-hand videos among three neighbours are cut from one source; all others have their own."""
    shared = claim in _SECOND_HAND
    key = ("shared", index // _RELAY) if shared else ("own", index)
    return f"source-{_digest(seed, *key)}"


def _digest(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=6).hexdigest()
