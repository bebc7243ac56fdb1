"""What a logged model answers when MLflow loads it: DataFrame in, DataFrame out.

Input columns: ``path`` (text), optionally ``video_id`` (default: the path), ``title``, ``stickers`` (a JSON
list of texts) and ``views``. A path is the caller's own: any regular file of this machine; a URL is refused, since a
served model has no settings that allow one. The pair answers with ``video_id, base_score, mllm_score, positive,
decided_by, error``; a single model with ``video_id, score, error``, where it has several issues with a
``score_<issue>`` for each. A clip that cannot be scored has an error and no score. Clips are decoded under the
limits that the pair's preprocessing, or the model's config.json, carries.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.data.locations import person_file
from coefvq.data.remote import is_url
from coefvq.errors import CoefVQError, DataError, MediaError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.redaction import redact
from coefvq.registry.bundle import bundle_version, read_candidate, score_columns

if TYPE_CHECKING:
    import pandas as pd

    from coefvq.inference import Scores

Predict = Callable[["pd.DataFrame"], "pd.DataFrame"]


def open_model(artifacts: Mapping[str, Path]) -> Predict:
    """The predict function of a logged pair (artifact ``pair``) or single model (artifact ``model``).

    Raises:
        RegistryError: a model of the pair is gone or was changed, or the alias champion was moved to it by hand.
        ModelError: a model's folder does not load.
    """
    return _open_pair(artifacts["pair"]) if "pair" in artifacts else _open_single(artifacts["model"])


def _open_pair(pair_json: Path) -> Predict:
    from coefvq.inference import PairScorer, recorded
    from coefvq.registry import tracking
    from coefvq.registry.pair_files import check_alias, verified_folders

    candidate = read_candidate(pair_json)
    tracking.adopt()
    check_alias(candidate)
    folders = verified_folders(candidate)
    # the registry gives a version later than this artifact was made; 0 marks that it is not known here
    stamp = bundle_version("0", candidate.content_hash)
    how = recorded(candidate.preprocessing)
    scorer = PairScorer.from_folders(folders["base"], folders["mllm"], candidate.policy, candidate.issue, stamp, how)
    return lambda frame: pair_frame(scorer.score(videos(frame)))


def _open_single(folder: Path) -> Predict:
    from coefvq.data.media.clips import ClipStore, default_cache
    from coefvq.inference import head_scores
    from coefvq.models.classifier import load

    classifier = load(folder)
    store = ClipStore(default_cache(), classifier.config.media, classifier.limits)

    def predict(frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        rows = [store.hashed(video) for video in videos(frame)]
        errors: dict[int, CoefVQError] = {}
        scores = head_scores(classifier, rows, store, errors.__setitem__)
        told = [str(errors[at]) if at in errors else None for at in range(len(rows))]
        return pd.DataFrame(
            {
                "video_id": [row.video_id for row in rows],
                **dict(zip(score_columns(classifier.config.issues), map(_objects, scores.T), strict=True)),
                "error": pd.Series(told, dtype="object"),
            }
        )

    return predict


def _objects(scores: Scores) -> pd.Series[Any]:
    """Scores with None where there is none: JSON has no NaN."""
    import pandas as pd

    return pd.Series([None if math.isnan(score) else float(score) for score in scores], dtype="object")


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
    path, refusal = _local(str(given["path"]))
    return VideoInput(
        video_id=str(given.get("video_id", given["path"])),
        file=path,
        refusal=refusal,
        title=str(given.get("title", "")),
        stickers=_stickers(given.get("stickers", "[]"), number),
        views=_views(given.get("views"), number),
    )


def _local(path: str) -> tuple[Path, str | None]:
    """The file, or why it is not opened."""
    if is_url(path):
        return Path(os.devnull), f"{redact(path)}: expected a local file; download it and give the copy's path"
    try:
        return person_file(Path(path)), None
    except MediaError:
        return Path(path), None  # the reader says what is wrong with it


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
    """Scored videos as the pair's output frame; what does not exist is None: null in JSON, which has no NaN."""
    import pandas as pd

    return pd.DataFrame(
        {
            "video_id": [row.video_id for row in scored],
            "base_score": pd.Series([row.base_score for row in scored], dtype="object"),
            "mllm_score": pd.Series([row.mllm_score for row in scored], dtype="object"),
            "positive": pd.Series([row.positive for row in scored], dtype="object"),
            "decided_by": [row.decided_by for row in scored],
            "error": pd.Series([row.error for row in scored], dtype="object"),
        }
    )
