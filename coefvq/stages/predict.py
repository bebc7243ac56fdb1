"""Both models of an issue -> scores.parquet over val, test and traffic, with the yardsticks beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from coefvq.config import Paths
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs, write_table
from coefvq.data.splits.rows import split_manifest
from coefvq.evaluation.shortcut import CONTAINER_COLUMNS, FloatArray, container_facts, shortcut_scores
from coefvq.files import write_json
from coefvq.inference import Scores
from coefvq.records import SCORE_COLUMNS, label_column, posterior_column
from coefvq.registry.bundle import PartKind
from coefvq.stages.inputs import PredictInputs
from coefvq.training.scoring import score_videos

_SCORED = ("val", "test", "traffic")
_VIEWS = {"posterior": "", "posterior_vision": "_vision", "posterior_vision_text": "_vision_text"}


def run(inputs: PredictInputs) -> None:
    """Score every video that thresholds, figures or traffic shares are computed on."""
    issue = inputs.issue
    table, skipped = score_table(inputs, ("base", "mllm"))
    write_table(table.loc[:, list(SCORE_COLUMNS)], inputs.paths.report(issue, "scores.parquet"))
    counts = {str(name): int(count) for name, count in table["split"].value_counts().items()}
    write_json(inputs.paths.report(issue, "predict.json"), {"scored": counts, "skipped": skipped})


def score_table(inputs: PredictInputs, kinds: Sequence[PartKind]) -> tuple[pd.DataFrame, int]:
    """Rows of val, test and traffic with the yardsticks and a column of scores per kind; how many clips were skipped.

    Raises:
        DataError: too many clips cannot be read.
        ModelError: a model does not fit.
    """
    issue, manifest = inputs.issue, split_manifest(inputs.paths)
    rows = manifest[manifest["split"].isin(_SCORED)].reset_index(drop=True)
    videos = to_inputs(rows, media_root(inputs.paths), inputs.protocols)
    scores: dict[str, Scores] = {}
    skipped: dict[str, str] = {}
    for kind in kinds:
        folder = inputs.paths.model_dir(kind, issue)
        scores[kind], bad = score_videos(folder, videos, inputs.predict, inputs.reading, kind, issue)
        skipped |= bad
    table = _table(rows, issue).assign(**scores, shortcut=_shortcut(manifest, rows, issue))
    return table[~table["video_id"].isin(skipped)].reset_index(drop=True), len(skipped)


def score_facts(paths: Paths, issue: str) -> pd.DataFrame:
    """The same table without models: id, split, label, weight, views, posteriors, and the metadata shortcut."""
    manifest = split_manifest(paths)
    rows = manifest[manifest["split"].isin(_SCORED)].reset_index(drop=True)
    return _table(rows, issue).assign(shortcut=_shortcut(manifest, rows, issue))


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
