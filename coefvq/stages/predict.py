"""Both models of an issue -> scores.parquet over val, test and traffic."""

from __future__ import annotations

import pandas as pd

from coefvq.config import Params
from coefvq.data.clips import ClipStore, default_cache
from coefvq.data.manifest import to_inputs, write_table
from coefvq.files import write_json
from coefvq.inference import score_batches
from coefvq.models.classifier import load
from coefvq.records import SCORE_COLUMNS, label_column, posterior_column
from coefvq.stages.common import media_root, progress, split_manifest


def run(params: Params, issue: str) -> None:
    """Score every video that thresholds, figures or traffic shares are computed on."""
    rows = split_manifest(params)
    rows = rows[rows["split"].isin(["val", "test", "traffic"])].reset_index(drop=True)
    videos = to_inputs(rows, media_root(params))
    store = ClipStore(default_cache(), params.media[issue])
    scores = {}
    for kind in ("base", "mllm"):
        classifier = load(params.paths.model_dir(kind, issue))
        with progress(f"scoring with {kind} [{issue}]", len(videos)) as advance:
            scores[kind] = score_batches(classifier, videos, store, params.predict.batch_size, advance)
    table = _table(rows, issue).assign(**scores)
    write_table(table.loc[:, list(SCORE_COLUMNS)], params.paths.report(issue, "scores.parquet"))
    counts = {str(name): int(count) for name, count in table["split"].value_counts().items()}
    write_json(params.paths.report(issue, "predict.json"), {"scored": counts})


def _table(rows: pd.DataFrame, issue: str) -> pd.DataFrame:
    posterior = posterior_column(issue)
    return rows.loc[:, ["video_id", "split", "weight", "views"]].assign(
        label=rows[label_column(issue)],
        posterior=rows[posterior] if posterior in rows.columns else float("nan"),
    )
