"""Both models of an issue -> scores.parquet over val, test and traffic, with the yardsticks beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs, write_table
from coefvq.data.splits.rows import split_manifest
from coefvq.evaluation.shortcut import CONTAINER_COLUMNS, FloatArray, container_facts, shortcut_scores
from coefvq.files import write_json
from coefvq.inference import NOTHING, Scores, load_for_scoring, ready_for_scoring, score_dataset
from coefvq.inference.bulk import score_on_ray
from coefvq.models.classifier import load
from coefvq.records import SCORE_COLUMNS, VideoInput, label_column, posterior_column
from coefvq.stages.inputs import PredictInputs
from coefvq.terminal import Advance, progress
from coefvq.training.loading import checked, decoded, opened

_SCORED = ("val", "test", "traffic")
_VIEWS = {"posterior": "", "posterior_vision": "_vision", "posterior_vision_text": "_vision_text"}


def run(inputs: PredictInputs) -> None:
    """Score every video that thresholds, figures or traffic shares are computed on."""
    issue, manifest = inputs.issue, split_manifest(inputs.paths)
    rows = manifest[manifest["split"].isin(_SCORED)].reset_index(drop=True)
    videos = to_inputs(rows, media_root(inputs.paths), inputs.protocols)
    scores: dict[str, Scores] = {}
    skipped: dict[str, str] = {}
    for kind in ("base", "mllm"):
        with progress(f"scoring with {kind} [{issue}]", len(videos)) as advance:
            scores[kind], bad = _score(inputs, inputs.paths.model_dir(kind, issue), videos, f"{issue} {kind}", advance)
        skipped |= bad
    table = _table(rows, issue).assign(**scores, shortcut=_shortcut(manifest, rows, issue))
    table = table[~table["video_id"].isin(skipped)].reset_index(drop=True)
    write_table(table.loc[:, list(SCORE_COLUMNS)], inputs.paths.report(issue, "scores.parquet"))
    counts = {str(name): int(count) for name, count in table["split"].value_counts().items()}
    write_json(inputs.paths.report(issue, "predict.json"), {"scored": counts, "skipped": len(skipped)})


def _score(
    inputs: PredictInputs, folder: Path, videos: list[VideoInput], title: str, advance: Advance
) -> tuple[Scores, dict[str, str]]:
    """Scores [n], NaN where a clip could not be read, and why it could not, by video."""
    predict, reading = inputs.predict, inputs.reading
    scores = np.full(len(videos), np.nan)
    if reading.runtime.engine == "ray":
        scores, failed = score_on_ray(folder, videos, predict, reading.limits, reading.runtime.workers, advance)
        named = {videos[index].video_id: error for index, error in failed.items()}
        return scores, checked(named, len(videos), reading.loading.max_bad_share, title)
    if predict.approximate != NOTHING:
        # what an approximation sees is not what the cache was filled for
        ready = load_for_scoring(folder, predict)
        source = decoded(reading, ready, videos, title)
        kept = source.kept(videos)
        scores[kept] = score_dataset(ready, source.dataset(videos), source.collator, predict.batch_size, advance)
        return scores, dict(source.skipped)
    classifier = load(folder)
    # features are those of the trained towers, so that training and scoring share them
    with opened(reading, classifier, videos, 1, title) as source:
        ready = ready_for_scoring(classifier, predict)
        kept = source.kept(videos)
        scores[kept] = score_dataset(ready, source.dataset(videos), source.collator, predict.batch_size, advance)
    return scores, dict(source.skipped)


def _table(rows: pd.DataFrame, issue: str) -> pd.DataFrame:
    known = {name: posterior_column(issue) + view for name, view in _VIEWS.items()}
    posteriors = {name: rows[column] if column in rows else float("nan") for name, column in known.items()}
    return rows.loc[:, ["video_id", "split", "weight", "views"]].assign(label=rows[label_column(issue)], **posteriors)


def _shortcut(manifest: pd.DataFrame, rows: pd.DataFrame, issue: str) -> pd.Series[float]:
    """What the container facts alone say of ``rows``, fitted on train; null where train is too small."""
    train = manifest[(manifest["split"] == "train") & manifest[label_column(issue)].notna()]
    labels = train[label_column(issue)].to_numpy(dtype="int64")
    scores = shortcut_scores(_facts(train), labels, train["weight"].to_numpy(), _facts(rows))
    return pd.Series(float("nan") if scores is None else scores, index=rows.index, dtype="float64")


def _facts(rows: pd.DataFrame) -> FloatArray:
    nan = float("nan")
    return container_facts({name: rows[name].to_numpy(dtype="float64", na_value=nan) for name in CONTAINER_COLUMNS})
