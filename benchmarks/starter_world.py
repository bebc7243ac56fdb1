"""`starter` on the synthetic world: baselines, the fair control and the MLLM on cached tower features.

    python benchmarks/starter_world.py --folder DIR --stage features    render, decode, extract; resumable
    python benchmarks/starter_world.py --folder DIR --stage baselines   tuned on validation, then each seed
    python benchmarks/starter_world.py --folder DIR --stage mllm --seeds 1
    python benchmarks/starter_world.py --folder DIR --stage mllm --name "labels only" \\
        --recipe '{"projector_epochs": 0, "warmup_epochs": 0, "epochs": 4, "description_weight": 0}'
    python benchmarks/starter_world.py --folder DIR --stage mllm --share 0.25              row "MLLM, 25 %"
    python benchmarks/starter_world.py --folder DIR --stage baselines --share 0.25 --kinds control
    python benchmarks/starter_world.py --folder DIR --stage table                   Markdown table, plot, last line JSON

A result (settings, curves, CPU seconds, scores of validation and test) is DIR/results/<row>-<seed>.json and is not made
again while it is there. Every choice is made on validation; test labels are replaced by the known posterior.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import starter_world_baselines as baselines
import starter_world_mllm as mllm
import torch
from starter_world_data import World, extract, facts, load
from starter_world_table import print_table

from coefvq.files import write_json

CONTROLS = ("vision only", "multi-tower", "control")


def row_name(options: argparse.Namespace, model: str) -> str:
    """A model on a part of the training clips is a row of its own."""
    return model if options.share == 1.0 else f"{model}, {100 * options.share:g} %"


def result_path(options: argparse.Namespace, row: str, seed: int) -> Path:
    """Where a row's result for one seed is kept."""
    name = re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")
    return Path(options.folder) / "results" / f"{name}-{seed}.json"


def run_features(options: argparse.Namespace, world: World) -> None:
    """Extract what is missing."""
    start = time.process_time()
    for line in extract(world, options.folder / "features", tuple(options.part)):
        say(f"{line}, {time.process_time() - start:.0f} CPU s")


def run_baselines(options: argparse.Namespace, world: World) -> None:
    """Tune each baseline on validation, then train it with every seed."""
    folder = options.folder / "features"
    splits = {"train": load(world, folder, "train", options.share)}
    splits |= {name: load(world, folder, name) for name in ("val", "test")}
    for kind in options.kinds:
        row = row_name(options, kind)
        if all(result_path(options, row, seed).is_file() for seed in options.seeds):
            continue
        tuned = baselines.tune(kind, splits["train"], splits["val"], say)
        settings = baselines.Settings(**tuned["best"]["settings"])
        for seed in options.seeds:
            start = time.process_time()
            score = baselines.fit(settings, splits["train"], seed)
            scores = {name: score(splits[name]).tolist() for name in ("val", "test")}
            facts_ = {"settings": tuned["best"], "tried": tuned["tried"], "cpu_s": time.process_time() - start}
            save(options, world, row, seed, scores, {**facts_, "clips": len(splits["train"])})


def run_mllm(options: argparse.Namespace, world: World) -> None:
    """Train one MLLM per seed."""
    recipe = replace(mllm.Recipe(), **json.loads(options.recipe))
    features, row = options.folder / "features", row_name(options, options.name)
    for seed in options.seeds:
        if result_path(options, row, seed).is_file():
            say(f"{row}, seed {seed}: there already")
            continue
        splits = {name: load(world, features, name) for name in ("val", "test")}
        train = load(world, features, "train", options.share)
        classifier, run = mllm.train(recipe, train, splits["val"], seed, say)
        start = time.process_time()
        scores = {name: mllm.score(classifier, split, recipe).tolist() for name, split in splits.items()}
        save(options, world, row, seed, scores, {**run, "scoring_cpu_s": time.process_time() - start})


def save(
    options: argparse.Namespace, world: World, row: str, seed: int, scores: dict[str, Any], run: dict[str, Any]
) -> None:
    """One result file, written in one step."""
    record = {"row": row, "seed": seed, "world": facts(world), "share": options.share, **run, "scores": scores}
    write_json(result_path(options, row, seed), record)
    say(f"{row}, seed {seed}: saved")


def say(line: str) -> None:
    """Progress on stderr; stdout is for the table."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="features and results are kept here")
    parser.add_argument("--stage", choices=("features", "baselines", "mllm", "table"), required=True)
    parser.add_argument(
        "--shards", type=int, nargs=3, default=list(World.shards), help="120 clips each: of train, val and test"
    )
    parser.add_argument("--part", type=int, nargs=2, default=[0, 1], help="i n: features of every n-th shard only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=CONTROLS, default=list(CONTROLS), help="baselines to train")
    parser.add_argument("--name", default="MLLM", help="row of the MLLM's result")
    parser.add_argument("--recipe", default="{}", help="JSON that changes fields of starter_world_mllm.Recipe")
    parser.add_argument("--share", type=float, default=1.0, help="share of the training shards")
    parser.add_argument("--plot", type=Path, help="where to draw the curve over training size")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    world = World(shards=tuple(options.shards))
    if options.stage == "table":
        return print_table(world, options.folder, options.plot)
    {"features": run_features, "baselines": run_baselines, "mllm": run_mllm}[options.stage](options, world)
    return 0


if __name__ == "__main__":
    sys.exit(main())
