"""The demo's control: a base model as the recipe makes it, but from labels alone, measured on the same videos.

A base model that is distilled has learned from the MLLM, so it does not show what labels alone are worth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coefvq.config import Params
from coefvq.data.locations import media_root
from coefvq.data.manifest import read_table, to_inputs
from coefvq.data.splits.rows import split_manifest
from coefvq.evaluation.report import evaluation_report
from coefvq.evaluation.table import Row, result_rows
from coefvq.files import read_json, sha256_file, sha256_json, write_json
from coefvq.records import REQUIRED_SCORE_COLUMNS
from coefvq.stages import train_base
from coefvq.stages.inputs import PredictInputs, TrainBaseInputs
from coefvq.training.scoring import score_videos

NAME = "base, labels only"
_FOLDER = "labels_only"


def labels_only_row(params: Params, issue: str) -> Row | None:
    """Its row of the table; None where the base model of the recipe learns from labels alone anyway.

    The working directory is the workspace. The evaluation is kept in ``reports/<issue>/labels_only.json`` and made
    again only when the scores of the pair or the recipe changed.
    """
    asked = TrainBaseInputs.of(params, issue)
    if asked.model.distil is None:
        return None
    scores_file, target = params.paths.report(issue, "scores.parquet"), params.paths.report(issue, f"{_FOLDER}.json")
    made_from = sha256_json([sha256_file(scores_file), asked.model.model_dump(), asked.settings.seed])
    known: dict[str, Any] = read_json(target) if target.is_file() else {}
    if known.get("made_from") != made_from:
        known = {"made_from": made_from, "evaluation": _evaluation(params, issue, asked)}
        write_json(target, known)
    base = next(row for row in result_rows(known["evaluation"], {"policies": []}) if row.name == "base")
    return Row(NAME, base.f1, base.recalls, base.roc_auc, base.qps_ratio)


def _evaluation(params: Params, issue: str, asked: TrainBaseInputs) -> dict[str, Any]:
    """Train beside the pair's own models, score val and test, and evaluate in the place of the pair's base model."""
    paths = params.paths.model_copy(
        update={name: f"{getattr(params.paths, name)}/{_FOLDER}" for name in ("models", "reports")}
    )
    settings = asked.settings.model_copy(update={"paths": paths})
    model = asked.model.model_copy(update={"distil": None})
    train_base.run(asked.model_copy(update={"settings": settings, "model": model}))
    table = read_table(params.paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    table = table[table["split"].isin(("val", "test"))].reset_index(drop=True)
    manifest = split_manifest(params.paths).set_index("video_id", drop=False)
    videos = to_inputs(manifest.loc[table["video_id"]], media_root(params.paths), params.ingest.protocols)
    predict = PredictInputs.of(params, issue)
    folder = paths.model_dir("base", issue)
    scores, _ = score_videos(folder, videos, predict.predict, predict.reading, "base", issue)
    table = table.assign(base=scores)
    return evaluation_report(table[~np.isnan(scores)], issue, params.evaluate.precision_targets)
