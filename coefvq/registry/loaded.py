"""A registered pair in Python: files and their texts in, decisions out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coefvq.config import Tracking
from coefvq.data.media.clips import default_cache
from coefvq.errors import DataError
from coefvq.inference import PairScorer
from coefvq.records import ScoredVideo, VideoInput
from coefvq.registry.champions import served_scorer


@dataclass(frozen=True)
class LoadedPair:
    """Base model, MLLM and thresholds of one issue; load it once, score many times."""

    issue: str
    scorer: PairScorer

    @property
    def bundle_version(self) -> str:
        """What every score is stamped with."""
        return self.scorer.bundle_version

    def score(
        self,
        paths: Sequence[str | Path],
        titles: Sequence[str] | None = None,
        stickers: Sequence[Sequence[str]] | None = None,
        views: Sequence[int | None] | None = None,
    ) -> list[ScoredVideo]:
        """One answer per path, in their order; ``video_id`` is the path as given.

        A clip that cannot be scored has an ``error`` and no scores.

        Raises:
            DataError: the lists differ in length.
        """
        columns = {"titles": titles, "stickers": stickers, "views": views}
        for name, column in columns.items():
            if column is not None and len(column) != len(paths):
                raise DataError(f"{len(paths)} paths, {len(column)} {name}: give one for each path, or none")
        videos = [
            VideoInput(
                video_id=str(path),
                file=path,
                title=titles[at] if titles is not None else "",
                stickers=tuple(stickers[at]) if stickers is not None else (),
                views=views[at] if views is not None else None,
            )
            for at, path in enumerate(paths)
        ]
        return self.scorer.score(videos)


def loaded_pair(settings: Tracking, issue: str, version: str, root: Path) -> LoadedPair:
    """The pair; what it decodes and scores is kept in the workspace ``root`` wherever the script was started.

    Raises:
        RegistryError: no pair stands behind the version, or its files were changed.
    """
    cache = None if os.environ.get("COEFVQ_CACHE") else root / default_cache()
    (scorer,) = served_scorer(settings, [issue], version, root, cache).pairs
    return LoadedPair(issue, scorer)
