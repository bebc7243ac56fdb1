"""What the cascade saves: its throughput against the ideal and against the MLLM on every video; cost of one score.

    python benchmarks/cascade.py --workspace .demo
    python benchmarks/cascade.py --workspace .demo --issue ucc --clips 128 --share 13 --rounds 5

Needs a workspace whose pairs are served (``make demo`` leaves one). Its champion's models score test clips in turns:
the base model alone, the MLLM alone, and the cascade with the base threshold that shows ``--share`` percent of these
clips to the MLLM. Clips are decoded anew in each turn; nothing that was scored before is used. ``ideal`` is
1 / (c_base + q c_mllm), c in seconds per video of the models alone and q the share that was shown. Towers that both
models have run once, so the cascade may be faster than that. Then `coefvq score` for one clip and all issues, in
processes of its own: CPU seconds and peak memory. One JSON line each. Exit code 1: a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from coefvq.cli.workspace import connect_registry, open_workspace
from coefvq.data.manifest import read_table
from coefvq.inference import PairScorer
from coefvq.records import VideoInput
from coefvq.registry.champions import load_scorer

OF_IDEAL = 0.9
CPU_SECONDS, GIB = 8.0, 1.2


def test_clips(folder: Path, count: int) -> list[VideoInput]:
    """The first test videos of a workspace."""
    settings = open_workspace(folder / "params.yaml")
    rows = read_table(folder / settings.paths.splits).merge(read_table(folder / settings.paths.manifest), on="video_id")
    chosen = rows[rows["split_x" if "split_x" in rows else "split"] == "test"].head(count)
    columns = (chosen[name].astype(str).tolist() for name in ("video_id", "uri", "title", "sha256"))
    return [
        VideoInput(video_id, folder / settings.paths.raw / uri, title=title, sha256=sha256)
        for video_id, uri, title, sha256 in zip(*columns, strict=True)
    ]


def seconds_per_video(score: Callable[[PairScorer], Any], scorer: PairScorer, count: int) -> float:
    """Wall seconds, from files to scores, with a cache that is empty."""
    with tempfile.TemporaryDirectory() as cache:
        fresh = replace(scorer, cache=Path(cache), known=None)
        start = time.perf_counter()
        score(fresh)
        return (time.perf_counter() - start) / count


def throughput(scorer: PairScorer, videos: Sequence[VideoInput], share: float, rounds: int) -> dict[str, Any]:
    """Base model, MLLM and cascade in turns."""
    silent = scorer.policy.base_alone(scorer.issue, 0.5)
    alone = replace(scorer, policy=silent)
    with tempfile.TemporaryDirectory() as cache:
        rows = replace(alone, cache=Path(cache), known=None).score(videos)
    base = np.array([row.base_score for row in rows], np.float64)
    threshold = float(np.quantile(base, 1.0 - share / 100.0))
    policy = {**silent.model_dump(), "base_threshold": threshold, "accept_threshold": None, "filtered": "negative"}
    cascade = replace(scorer, policy=type(silent).from_dict(policy))
    ways: dict[str, tuple[PairScorer, Callable[[PairScorer], Any]]] = {
        "base": (alone, lambda pair: pair.score(videos)),
        "mllm": (scorer, lambda pair: pair.ask(videos)),
        "cascade": (cascade, lambda pair: pair.score(videos)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (pair, score) in ways.items():
            found[name].append(seconds_per_video(score, pair, len(videos)))
    shown = float((base >= threshold).mean())
    ideal = [b + shown * m for b, m in zip(found["base"], found["mllm"], strict=True)]
    of_ideal = median(best / ours for best, ours in zip(ideal, found["cascade"], strict=True))
    return {
        "part": "throughput", "issue": scorer.issue, "videos": len(videos), "rounds": rounds,
        "calls_percent": round(100 * shown, 1),
        **{f"{name}_videos_per_s": round(1 / median(values), 3) for name, values in found.items()},
        "of_ideal": round(of_ideal, 3),
        "of_mllm_alone": round(median(m / c for m, c in zip(found["mllm"], found["cascade"], strict=True)), 2),
        "target": OF_IDEAL, "met": of_ideal >= OF_IDEAL,
    }  # fmt: skip


def one_score(folder: Path, video: VideoInput, rounds: int) -> dict[str, Any]:
    """`coefvq score` for one clip, every issue that is served; the clip and its scores are new to each process.

    The first process of a round asks the registry, the second finds that it has not changed. The targets are the
    second's.
    """
    usage: dict[str, list[tuple[float, float]]] = {"first": [], "again": []}
    for _ in range(rounds):
        (folder / "mlflow.db.pairs").unlink(missing_ok=True)
        for values in usage.values():
            values.append(_used_by_score(folder, video))
    (first_cpu, first_gib), (cpu, gib) = (tuple(map(median, zip(*rows, strict=True))) for rows in usage.values())
    return {
        "part": "one score", "rounds": rounds, "first_cpu_seconds": round(first_cpu, 2),
        "first_peak_gib": round(first_gib, 3), "cpu_seconds": round(cpu, 2), "peak_gib": round(gib, 3),
        "target": {"cpu_seconds": CPU_SECONDS, "peak_gib": GIB}, "met": cpu <= CPU_SECONDS and gib <= GIB,
    }  # fmt: skip


def _used_by_score(folder: Path, video: VideoInput) -> tuple[float, float]:
    """CPU seconds and peak GiB of one process."""
    with tempfile.TemporaryDirectory() as cache:
        child = subprocess.Popen(
            [sys.executable, "-m", "coefvq", "score", str(video.path), "--json"],
            cwd=folder, env={**os.environ, "COEFVQ_CACHE": cache}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"coefvq score {video.path}: exit code {child.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--issue", action="append", help="default: all that are served")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--share", type=float, default=13.0, help="percent of the clips that the MLLM sees")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = options.workspace.resolve()
    videos = test_clips(folder, options.clips)
    found = [one_score(folder, videos[0], options.rounds)]
    print(json.dumps(found[0]), flush=True)
    connect_registry(folder / "params.yaml", create=False)
    for pair in load_scorer(options.issue).pairs:
        found.append(throughput(pair, videos, options.share, options.rounds))
        print(json.dumps(found[-1]), flush=True)
    return 0 if all(row["met"] for row in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
