"""One cell of the paper's tables, by the product's own stages, in its overlay.

An MLLM: the stage train-mllm, unless another issue's cell trains it. A base model: teach, with its teacher's folder
in place, then train-base. Then its scores on val, test and traffic. The result is written last; what a killed process
left is gone on with.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coefvq.config import PARAMS_FILE, Params, load_params
from coefvq.data.manifest import read_table, write_table
from coefvq.data.splits.rows import split_manifest
from coefvq.experiments.scores import CELL_COLUMNS
from coefvq.files import read_json, sha256_file, write_json
from coefvq.records import label_column
from coefvq.registry.bundle import PartKind
from coefvq.stages import STAGES
from coefvq.terminal import say
from coefvq.training.launch import launch
from tasks.cell_files import COST, RESULT, SCORES
from tasks.cells import nested_share


def run_cell(folder: Path) -> None:
    """Run the cell of a folder, which becomes the current one.

    Raises:
        CoefVQError: a stage failed.
    """
    os.chdir(folder)
    with _cost():
        run(read_json(Path("cell.json")), load_params())


def run(cell: dict[str, Any], params: Params) -> None:
    """Splits, stages, scores, result."""
    issue, kind = cell["issue"], cell["kind"]
    if cell["train_share"] < 1.0:
        splits = read_table(Path(cell["all_splits"]), ["video_id", "split", "weight"])
        manifest = read_table(Path(params.paths.manifest), ["video_id", label_column(issue)])
        write_table(nested_share(splits, manifest, issue, cell["train_share"]), Path(params.paths.splits))
    if not cell["trains"]:
        _link_mllm(cell["source"], params, params.issues[0], issue)
    elif not (Path(params.paths.models) / issue / f"{kind}_run.json").is_file():
        if kind == "base":
            _link_mllm(cell["source"], params, issue, issue)
            _stage("teach", params, issue)
        _stage(f"train-{kind}", params, issue)
    write_table(_scores(params, issue, kind), Path(SCORES))
    counts = _counts(read_json(params.paths.report(issue, f"{kind}.json"))) if cell["trains"] else {}
    write_json(
        Path(RESULT), {"key": cell["key"], "name": cell["name"], "scores_sha256": sha256_file(Path(SCORES)), **counts}
    )


def _counts(facts: dict[str, Any]) -> dict[str, Any]:
    found = {key: facts[key] for key in ("train_videos", "val_videos", "skipped_videos", "epochs")}
    return {**found, "unlabelled_videos": facts.get("unlabelled_videos", 0)}


def _stage(name: str, params: Params, issue: str) -> None:
    say(f"[{name}] {issue}")
    if name != "teach":
        training = (params.mllm if name == "train-mllm" else params.base)[issue].training
        if training.nproc_per_node > 1 or training.deepspeed:
            arguments = [name, "--issue", issue, "--params", PARAMS_FILE.name]
            launch(training.nproc_per_node, arguments, training.deepspeed)
            return
    stage = next(stage for stage in STAGES if stage.name == name)
    stage.run(stage.inputs.of(params, issue))


def _link_mllm(cell: str | None, params: Params, trained: str, issue: str) -> None:
    """The MLLM that ``cell`` made for the issue ``trained``, where the stages of ``issue`` look for theirs."""
    if cell is None:
        return
    link = params.paths.model_dir("mllm", issue)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path("../../../") / cell / params.paths.models / trained / "mllm", target_is_directory=True)


def _scores(params: Params, issue: str, kind: PartKind) -> Any:
    from coefvq.stages.inputs import PredictInputs
    from coefvq.stages.predict import UNREAD, score_table

    table = score_table(PredictInputs.of(params, issue), split_manifest(params.paths, UNREAD), (kind,)).table
    return table.rename(columns={kind: "score"})[list(CELL_COLUMNS)]


@contextmanager
def _cost() -> Iterator[None]:
    """What the last process of a cell took; kept apart from the result, which is the same on every run."""
    began = time.perf_counter()
    yield
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(part.ru_utime + part.ru_stime for part in used)
    memory = max(part.ru_maxrss for part in used) / 1024.0
    facts = {"wall_s": time.perf_counter() - began, "cpu_s": cpu, "peak_mib": memory, "machine": _machine()}
    write_json(Path(COST), facts)


def _machine() -> str:
    """Name of the processor, number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
