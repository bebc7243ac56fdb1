"""One synthetic video as facts: true and shown factors, labels, text, and who posted it when.

Everything follows from (seed, index), never from how many videos are made, so a data set can grow
without changing what it already holds. Creators and shared sources stay inside a circle of
neighbouring indices, so groups of linked videos are small at any size; ``copies`` also ties videos of strangers.
Creator, source, date and view count follow from neither labels nor true factors: no view holds them, and
nothing can be learnt from them that the view "all" does not say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import numpy as np

from coefvq.records import label_column, posterior_column
from coefvq.simulation.synthetic.captions import caption, short_captions
from coefvq.simulation.synthetic.factors import FACTOR_TYPES, Claim, Factors
from coefvq.simulation.synthetic.odds import ISSUES
from coefvq.simulation.synthetic.texts import Writing, write
from coefvq.simulation.synthetic.world import chance, draw_shown, draw_truth, posterior

#: posterior columns of metadata.csv: (issue, view) by name
POSTERIORS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        posterior_column(issue) + ("" if view == "all" else "_" + view.replace("+", "_")): (issue, view)
        for view in ("all", "vision+text", "vision")
        for issue in ISSUES
    }
)

#: columns of metadata.csv, in order
COLUMNS = (
    *("file_name", "video_id", "title", "stickers", "published_at", "creator_id", "source_id", "views"),
    *(label_column(issue) for issue in ISSUES),
    *POSTERIORS,
)

_CIRCLE = 12  # videos whose creators know each other
_CREATORS = 3  # per circle, picked with Zipf weights 1, 1/2, 1/3: about one creator per four videos
_RELAY = 3  # at most so many videos are cut from one source
_SECOND_HAND = frozenset({Claim.CREDIT, Claim.AGGREGATOR, Claim.DENIAL})
_COPIES = 1  # the stream of random numbers that decides on copies
_START = datetime(2021, 1, 1, tzinfo=UTC)
_SPACING_SECONDS = 4 * 3600  # 2,000 videos are eleven months
_VIEWS_LOG_MEAN, _VIEWS_LOG_STD = 6.5, 2.0  # log-normal: median near 700, one in a thousand above 300,000
_DIGITS = 12  # of stored posteriors: sums may differ in their last bits between processors


@dataclass(frozen=True)
class Clip:
    """The facts of one video; ``labels`` by issue, ``posteriors`` by column (``POSTERIORS``)."""

    index: int
    video_id: str
    truth: Factors
    shown: Factors
    writing: Writing
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


def describe(seed: int, index: int, prevalence: Mapping[str, float], copies: float = 0.0) -> Clip:
    """Draw the facts of video ``index``; labels are drawn from P(label | true factors) at the given prevalence.

    A share ``copies`` of the videos names the source of any earlier one, whoever made it; nothing else differs.
    """
    rng = random_streams(seed, index)[0]
    truth = draw_truth(rng)
    shown = draw_shown(rng, truth)
    return Clip(
        index=index,
        video_id=f"s{seed}-{index:06d}",
        truth=truth,
        shown=shown,
        labels={issue: int(rng.random() < chance(issue, truth, prevalence[issue])) for issue in ISSUES},
        posteriors={
            column: float(f"{posterior(issue, shown, prevalence[issue], view):.{_DIGITS}g}")
            for column, (issue, view) in POSTERIORS.items()
        },
        writing=write(rng, shown),
        published_at=_published_at(rng, index),
        creator_id=_creator_id(rng, seed, index),
        source_id=_copied_source(seed, index, copies) or _source_id(seed, index, shown.claim),
        views=int(rng.lognormal(_VIEWS_LOG_MEAN, _VIEWS_LOG_STD)),
    )


def metadata_row(clip: Clip) -> list[str]:
    """The clip's cells of metadata.csv; posteriors as ``repr``, which reads back to the same float."""
    stickers = json.dumps(clip.writing.stickers, ensure_ascii=False)
    return [
        *(clip.file_name, clip.video_id, clip.writing.title, stickers),
        *(clip.published_at.isoformat(), clip.creator_id, clip.source_id, str(clip.views)),
        *(str(clip.labels[issue]) for issue in ISSUES),
        *(repr(clip.posteriors[column]) for column in POSTERIORS),
    ]


def factors_row(clip: Clip) -> dict[str, Any]:
    """The clip's line of factors.jsonl: shown and true levels, language, phrase numbers, description."""
    return {
        "video_id": clip.video_id,
        "shown": _levels(clip.shown),
        "true": _levels(clip.truth),
        "language": clip.writing.language,
        "phrases": dict(clip.writing.phrases),
        "description": caption(clip.shown),
    }


def descriptions_row(clip: Clip) -> dict[str, Any]:
    """The clip's line of descriptions.jsonl: short ways to say what it shows."""
    return {"video_id": clip.video_id, "descriptions": list(short_captions(clip.shown))}


def _levels(factors: Factors) -> dict[str, str]:
    return {name: getattr(factors, name).value for name in FACTOR_TYPES}


def _published_at(rng: np.random.Generator, index: int) -> datetime:
    # later indices are later in time, so a data set grows at its end
    return _START + timedelta(seconds=index * _SPACING_SECONDS + int(rng.integers(_SPACING_SECONDS)))


def _creator_id(rng: np.random.Generator, seed: int, index: int) -> str:
    zipf = 1.0 / np.arange(1, _CREATORS + 1)
    rank = int(rng.choice(_CREATORS, p=zipf / zipf.sum()))
    return f"creator-{_digest(seed, 'creator', index // _CIRCLE, rank)}"


def _source_id(seed: int, index: int, claim: Claim) -> str:
    """Videos that say they are second-hand share a source among three neighbours; all others have their own."""
    shared = claim in _SECOND_HAND
    key = ("shared", index // _RELAY) if shared else ("own", index)
    return f"source-{_digest(seed, *key)}"


def _copied_source(seed: int, index: int, copies: float) -> str | None:
    rng = np.random.default_rng([seed, index, _COPIES])
    if rng.random() >= copies or not index:
        return None
    return f"source-{_digest(seed, 'own', int(rng.integers(index)))}"


def _digest(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=6).hexdigest()
