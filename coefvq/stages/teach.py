"""The MLLM's scores of train and of unlabelled videos -> teacher.parquet, which a distilled base model learns from."""

from __future__ import annotations

from dataclasses import asdict

from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs
from coefvq.data.splits.rows import data_hashes, split_manifest
from coefvq.errors import DataError
from coefvq.files import sha256_json, sha256_tree
from coefvq.records import UNLABELLED
from coefvq.stages.inputs import TeachInputs
from coefvq.terminal import say
from coefvq.training.teacher import logged_rows, read_teacher, teacher_rows, write_no_teacher, write_teacher


def run(inputs: TeachInputs) -> None:
    """Score once; scores of the same MLLM and data stay, and where no base model is distilled nothing is loaded."""
    issue, target, distil = inputs.issue, inputs.paths.teacher(inputs.issue), inputs.model.distil
    if distil is None:
        write_no_teacher(target)
        return
    # torch and the models take seconds, and without distillation nothing asks for them
    from coefvq.training.scoring import score_videos

    rows = teacher_rows(split_manifest(inputs.paths), issue, distil, inputs.near_duplicates)
    folder = inputs.paths.model_dir("mllm", issue)
    teacher = sha256_tree(folder)
    predict = inputs.predict.model_dump(exclude={"batch_size"})
    settings = distil.model_dump(exclude={"weight"}) | {"predict": predict}
    made_from = sha256_json([teacher, asdict(data_hashes(inputs.paths)), settings])
    if _is_there(inputs, made_from):
        say(f"{target}: scores of the same MLLM and data are there")
        return
    logged = None if distil.logged is None else logged_rows(rows, distil.logged, issue)
    asked = rows if logged is None else rows[rows["split"] != UNLABELLED]
    videos = to_inputs(asked, media_root(inputs.paths), inputs.protocols)
    scores, _ = score_videos(folder, videos, inputs.predict, inputs.reading, "mllm", issue)
    write_teacher(target, asked.assign(score=scores), teacher, made_from, logged)


def _is_there(inputs: TeachInputs, made_from: str) -> bool:
    try:
        return read_teacher(inputs.paths.teacher(inputs.issue)).made_from == made_from
    except DataError:
        return False  # none yet, or damaged: the stage makes it anew
