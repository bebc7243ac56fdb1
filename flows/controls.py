"""The demo's controls: base models as the recipe makes them, but without the MLLM, measured on the same videos.

A base model that is distilled has learned from the MLLM, so it does not show what labels alone are worth. One that
starts aligned has seen the words that the MLLM saw too: the control with words starts there, that without from nothing.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from coefvq.compute.pools import spawn_pool
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
from tasks.pipeline import share_of_threads

_AT_ONCE = 2
_NAMES = {False: "base, labels only", True: "base, labels and words"}
_FOLDERS = {False: "labels_only", True: "labels_and_words"}


def controls_of(params: Params) -> dict[str, list[Row]]:
    """``control_rows`` of each issue, of two issues side by side on their shares of the threads."""
    count = min(_AT_ONCE, len(params.issues), os.cpu_count() or 1)
    with spawn_pool(count) as pool:
        rows = pool.map(partial(_apart, params, int(share_of_threads(count)["OMP_NUM_THREADS"])), params.issues)
        return dict(zip(params.issues, rows, strict=True))


def _apart(params: Params, threads: int, issue: str) -> list[Row]:
    from coefvq.compute.threads import torch_threads

    with torch_threads(threads):
        return control_rows(params, issue)


def control_rows(params: Params, issue: str) -> list[Row]:
    """Rows of the table; none where the base model of the recipe learns from labels alone anyway.

    The working directory is the workspace. An evaluation is kept in ``reports/<issue>/<control>.json`` and made again
    only when the scores of the pair or the recipe changed.
    """
    asked = TrainBaseInputs.of(params, issue)
    model = asked.model
    starts = [False, True] if model.aligned and model.architecture == "attention" else [False]
    if model.distil is None:
        starts = starts[:-1]
    return [_row(params, issue, asked, aligned) for aligned in starts]


def _row(params: Params, issue: str, asked: TrainBaseInputs, aligned: bool) -> Row:
    asked = asked.model_copy(update={"model": asked.model.model_copy(update={"distil": None, "aligned": aligned})})
    scores_file = params.paths.report(issue, "scores.parquet")
    target = params.paths.report(issue, f"{_FOLDERS[aligned]}.json")
    made_from = sha256_json([sha256_file(scores_file), asked.model.model_dump(), asked.settings.seed])
    known: dict[str, Any] = read_json(target) if target.is_file() else {}
    if known.get("made_from") != made_from:
        known = {"made_from": made_from, "evaluation": _evaluation(params, issue, asked, _FOLDERS[aligned])}
        write_json(target, known)
    base = next(row for row in result_rows(known["evaluation"], {"policies": []}) if row.name == "base")
    return Row(_NAMES[aligned], base.f1, base.recalls, base.roc_auc, base.qps_ratio)


def _evaluation(params: Params, issue: str, asked: TrainBaseInputs, folder_name: str) -> dict[str, Any]:
    """Train beside the pair's own models, score val and test, and evaluate in the place of the pair's base model."""
    paths = params.paths.model_copy(
        update={name: f"{getattr(params.paths, name)}/{folder_name}" for name in ("models", "reports")}
    )
    settings = asked.settings.model_copy(update={"paths": paths})
    train_base.run(asked.model_copy(update={"settings": settings}))
    table = read_table(params.paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    table = table[table["split"].isin(("val", "test"))].reset_index(drop=True)
    manifest = split_manifest(params.paths).set_index("video_id", drop=False)
    videos = to_inputs(manifest.loc[table["video_id"]], media_root(params.paths), params.ingest.protocols)
    predict = PredictInputs.of(params, issue)
    folder = paths.model_dir("base", issue)
    scores, _ = score_videos(folder, videos, predict.predict, predict.reading, "base", issue)
    table = table.assign(base=scores)
    return evaluation_report(table[~np.isnan(scores)], issue, params.evaluate.precision_targets)
