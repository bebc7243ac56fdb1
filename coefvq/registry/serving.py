"""What a logged model answers when MLflow loads it: DataFrame in, DataFrame out.

Input columns: ``path`` (text), optionally ``video_id`` (default: the path), ``title``, ``stickers`` (a JSON
list of texts) and ``views``. The pair answers with ``video_id, base_score, mllm_score, positive,
decided_by, error``; a single model with ``video_id, score``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.registry.bundle import bundle_version, read_candidate

if TYPE_CHECKING:
    import pandas as pd

Predict = Callable[["pd.DataFrame"], "pd.DataFrame"]


def open_model(artifacts: Mapping[str, Path]) -> Predict:
    """The predict function of a logged pair (artifact ``pair``) or single model (artifact ``model``).

    Raises:
        RegistryError: a model of the pair is gone or was changed.
        ModelError: a model's folder does not load.
    """
    return _open_pair(artifacts["pair"]) if "pair" in artifacts else _open_single(artifacts["model"])


def _open_pair(pair_json: Path) -> Predict:
    from coefvq.inference import PairScorer, recorded
    from coefvq.registry.pairs import verified_folders

    candidate = read_candidate(pair_json)
    folders = verified_folders(candidate)
    # the registry gives a version later than this artifact was made; 0 marks that it is not known here
    stamp = bundle_version("0", candidate.content_hash)
    how = recorded(candidate.preprocessing)
    scorer = PairScorer.from_folders(
        folders["base"], folders["mllm"], candidate.policy, candidate.issue, stamp, scoring=how
    )
    return lambda frame: pair_frame(scorer.score(videos(frame)))


def _open_single(folder: Path) -> Predict:
    from coefvq.data.clips import ClipStore, default_cache
    from coefvq.inference import score_batches
    from coefvq.models.classifier import load

    classifier = load(folder)
    store = ClipStore(default_cache(), classifier.config.media)

    def predict(frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        rows = videos(frame)
        scores = score_batches(classifier, rows, store)
        return pd.DataFrame({"video_id": [row.video_id for row in rows], "score": scores})

    return predict


def videos(frame: pd.DataFrame) -> list[VideoInput]:
    """Rows of the input frame as videos.

    Raises:
        DataError: no ``path``, ``stickers`` is not a JSON list of texts, or ``views`` no whole number.
    """
    if "path" not in frame.columns:
        raise DataError(f"input: no column 'path'; columns are {', '.join(map(str, frame.columns)) or 'none'}")
    return [_video(row, number) for number, row in enumerate(frame.to_dict("records"))]


def _video(row: Mapping[Any, Any], number: int) -> VideoInput:
    given = {str(name): value for name, value in row.items() if not _is_missing(value)}
    if "path" not in given:
        raise DataError(f"input row {number}: path is empty; give a file")
    return VideoInput(
        video_id=str(given.get("video_id", given["path"])),
        path=Path(given["path"]),
        title=str(given.get("title", "")),
        stickers=_stickers(given.get("stickers", "[]"), number),
        views=_views(given.get("views"), number),
    )


def _views(value: Any, number: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) or not float(value).is_integer():
        raise DataError(f"input row {number}: views = {value!r:.60}: expected a whole number or nothing")
    return int(value)


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _stickers(text: str, number: int) -> tuple[str, ...]:
    try:
        parsed = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, list) or not all(isinstance(item, str) for item in parsed):
        raise DataError(f'input row {number}: stickers = {text!r:.60}: expected a JSON list of texts such as ["SALE"]')
    return tuple(parsed)


def pair_frame(scored: Sequence[ScoredVideo]) -> pd.DataFrame:
    """Scored videos as the pair's output frame; a score that does not exist is NaN, a decision None."""
    import pandas as pd

    return pd.DataFrame(
        {
            "video_id": [row.video_id for row in scored],
            "base_score": pd.Series([row.base_score for row in scored], dtype="float64"),
            "mllm_score": pd.Series([row.mllm_score for row in scored], dtype="float64"),
            "positive": pd.Series([row.positive for row in scored], dtype="object"),
            "decided_by": [row.decided_by for row in scored],
            "error": pd.Series([row.error for row in scored], dtype="object"),
        }
    )
