"""Both models of an issue -> scores.parquet over val, test and traffic, with the yardsticks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coefvq.config import Paths
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs, write_table
from coefvq.data.splits.halves import MIN_POSITIVES, kept_for_epochs, smaller_half
from coefvq.data.splits.rows import CLIP_COLUMNS, split_manifest
from coefvq.evaluation.shortcut import CONTAINER_COLUMNS, FloatArray, container_facts, shortcut_scores
from coefvq.evaluation.traffic import for_base_only
from coefvq.files import write_json
from coefvq.inference import Scores
from coefvq.records import SCORE_COLUMNS, label_column, posterior_column
from coefvq.registry.bundle import PartKind
from coefvq.stages.inputs import PredictInputs
from coefvq.terminal import say
from coefvq.training.scoring import score_videos

#: columns of the manifest that no score needs
UNREAD = frozenset({"phash", "reason", "published_at", "source_id", "creator_id"})
_SCORED = ("val", "test", "traffic")
_ONE_VALIDATION = (
    "validation chooses the epoch and the thresholds, since a half of it has {} positives or negatives and needs {}"
)
_VIEWS = {"posterior": "", "posterior_vision": "_vision", "posterior_vision_text": "_vision_text"}


@dataclass(frozen=True)
class ScoredVideos:
    """Scores per video; how many clips were skipped, and how many of val chose the epoch instead."""

    table: pd.DataFrame
    skipped: int
    val_of_epochs: int


def run(inputs: PredictInputs) -> None:
    """Score every video that thresholds, figures or traffic shares are computed on."""
    issue, manifest = inputs.issue, split_manifest(inputs.paths, UNREAD)
    scored = score_table(inputs, manifest, ("base", "mllm"))
    rows = manifest[manifest["video_id"].isin(scored.table["video_id"])].reset_index(drop=True)
    table = scored.table.assign(shortcut=_shortcut(manifest, rows, issue))
    write_table(table.loc[:, list(SCORE_COLUMNS)], inputs.paths.report(issue, "scores.parquet"))
    counts = {str(name): int(count) for name, count in scored.table["split"].value_counts().items()}
    account = {"scored": counts, "skipped": scored.skipped, "val_of_epochs": scored.val_of_epochs}
    write_json(inputs.paths.report(issue, "predict.json"), account)


def score_table(inputs: PredictInputs, manifest: pd.DataFrame, kinds: Sequence[PartKind]) -> ScoredVideos:
    """Rows of val, test and traffic, in the manifest's order, with a column of scores per kind.

    Of a large traffic the MLLM scores a part; its score is NaN elsewhere.

    Raises:
        DataError: too many clips cannot be read.
        ModelError: a model does not fit.
    """
    issue = inputs.issue
    chose_epochs = kept_for_epochs(manifest, issue)
    if not chose_epochs.any():
        say(f"[{issue}] {_ONE_VALIDATION.format(smaller_half(manifest, issue), MIN_POSITIVES)}")
    rows = _scored_rows(manifest, chose_epochs)
    videos = to_inputs(rows, media_root(inputs.paths), inputs.protocols)
    scores: dict[str, Scores] = {}
    skipped: dict[str, str] = {}
    for kind in kinds:
        mask = ~for_base_only(rows) if kind == "mllm" else np.ones(len(rows), dtype=bool)
        folder, chosen = inputs.paths.model_dir(kind, issue), [videos[at] for at in np.flatnonzero(mask)]
        answers, unread = score_videos(folder, chosen, inputs.predict, inputs.reading, kind, issue)
        scores[kind] = np.full(len(rows), np.nan)
        scores[kind][mask] = answers
        skipped |= unread
    table = _table(rows, issue).assign(**scores)
    table = table[~table["video_id"].isin(skipped)].reset_index(drop=True)
    return ScoredVideos(table, len(skipped), int(chose_epochs.sum()))


def score_facts(paths: Paths, issue: str) -> pd.DataFrame:
    """The same table without models: id, split, label, weight, views, posteriors, and the metadata shortcut."""
    manifest = split_manifest(paths, CLIP_COLUMNS)
    rows = _scored_rows(manifest, kept_for_epochs(manifest, issue))
    return _table(rows, issue).assign(shortcut=_shortcut(manifest, rows, issue))


def _scored_rows(manifest: pd.DataFrame, chose_epochs: pd.Series[bool]) -> pd.DataFrame:
    return manifest[manifest["split"].isin(_SCORED) & ~chose_epochs].reset_index(drop=True)


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
