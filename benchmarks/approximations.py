"""What each saving of ``predict`` costs: R@P of a trained MLLM on its test split, against the plain path.

    python benchmarks/approximations.py --workspace demo --issue ucc

Needs a workspace whose MLLM is trained (``coefvq demo`` makes one); nothing in it is changed. Every row is a JSON
line: time ratio (CPU time of scoring decoded clips on one thread, median of interleaved rounds), R@P and average
precision in percent with their change against the plain float32 path, a bootstrap interval of the change in average
precision (videos drawn 1,000 times), and the largest change of a score. Rows that do not fit the model say why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import yaml

from coefvq.config import Approximate, Params, Scoring, load_recipe, parse_params
from coefvq.data.locations import media_root
from coefvq.data.manifest import to_inputs
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.splits.rows import labelled, split_manifest
from coefvq.errors import ModelError
from coefvq.evaluation.metrics import average_precision, classification_summary
from coefvq.inference import Scores, load_for_scoring, score_batches
from coefvq.models.classifier import Classifier
from coefvq.records import VideoInput, label_column

TARGETS = (60.0, 70.0, 80.0)
_OFF = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)


@dataclass
class Way:
    """One way to score, what it gave and how long it took."""

    name: str
    classifier: Classifier
    store: ClipStore
    seconds: list[float] = field(default_factory=list)
    scores: Scores = field(default_factory=lambda: np.zeros(0))


def ways(params: Params, issue: str) -> dict[str, Scoring]:
    """Plain, exact, and one approximation at a time."""
    media = params.media[issue]

    def approximate(**changes: Any) -> Scoring:
        return Scoring(dtype="float32", savings="exact", approximate=_OFF.model_copy(update=changes))

    return {
        "plain": Scoring(dtype="float32", savings="none", approximate=_OFF),
        "exact": approximate(),
        "bfloat16": Scoring(dtype="bfloat16", savings="exact", approximate=_OFF),
        "int8": approximate(int8=True),
        f"frames={media.frames // 2}": approximate(frames=media.frames // 2),
        "pool_tokens=2": approximate(pool_tokens=2),
        f"audio_seconds={media.audio_seconds / 2:g}": approximate(audio_seconds=media.audio_seconds / 2),
    }


def load_ways(params: Params, issue: str, cache: Path) -> tuple[list[Way], list[dict[str, Any]]]:
    """Prepared models, and a row for each way that does not fit this model."""
    found, refused = [], []
    for name, scoring in ways(params, issue).items():
        try:
            classifier = load_for_scoring(params.paths.model_dir("mllm", issue), scoring)
        except ModelError as error:
            refused.append({"name": f"approximations/{name}", "ratio": None, "refused": str(error)})
            continue
        found.append(Way(name, classifier, ClipStore(cache, classifier.config.media, DEFAULT_LIMITS)))
    return found, refused


def run(found: list[Way], videos: list[VideoInput], rounds: int, issue: str) -> None:
    """Score with each, decoding left out of the time."""
    for way in found:
        way.scores = score_batches(way.classifier, videos, way.store, issue=issue)  # decodes and warms up
    for _ in range(rounds):
        for way in found:
            start = time.process_time()
            score_batches(way.classifier, videos, way.store, issue=issue)
            way.seconds.append(time.process_time() - start)


def row(way: Way, plain: Way, labels: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """The JSON line of one way."""

    def figures(scores: Scores) -> dict[str, float | None]:
        found = classification_summary(labels, scores, weights, 0.5, TARGETS)
        wanted = [*(f"r_at_p{target:g}" for target in TARGETS), "average_precision"]
        return {name: None if (value := found[name]) is None else round(100 * value, 1) for name in wanted}

    here, there = figures(way.scores), figures(plain.scores)
    change = {
        name: None if value is None or (other := there[name]) is None else round(value - other, 1)
        for name, value in here.items()
    }
    random = np.random.default_rng(7)
    drawn: list[float] = []
    while len(drawn) < 1000:
        rows = random.integers(0, len(labels), len(labels))
        if 0 < labels[rows].sum() < len(rows):
            both = [average_precision(labels[rows], s[rows], weights[rows]) for s in (way.scores, plain.scores)]
            drawn.append(100 * (both[0] - both[1]))
    return {
        "name": f"approximations/{way.name}",
        "ratio": round(statistics.median(p / w for p, w in zip(plain.seconds, way.seconds, strict=True)), 3),
        **here,
        "change": change,
        "average_precision_interval": [round(float(v), 2) for v in np.percentile(drawn, [2.5, 97.5])],
        "largest_score_change": float(f"{np.abs(way.scores - plain.scores).max():.2g}"),
    }


def main() -> int:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--issue", default="ucc")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(options.workspace)
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    own = {"batch_size": 32, "dtype": "float32", "savings": "exact", "approximate": _OFF.model_dump()}
    params = parse_params({**raw, "predict": own}, load_recipe())
    rows = labelled(split_manifest(params.paths), options.issue, "test")
    videos = to_inputs(rows, media_root(params.paths), params.ingest.protocols)
    labels = rows[label_column(options.issue)].astype(int).tolist()
    with tempfile.TemporaryDirectory() as cache:
        found, refused = load_ways(params, options.issue, Path(cache))
        run(found, videos, options.rounds, options.issue)
    for line in refused:
        print(json.dumps(line))
    weights = rows["weight"].to_numpy(dtype="float64")
    for way in found:
        print(json.dumps(row(way, found[0], np.asarray(labels), weights)), flush=True)
    print(json.dumps({"name": "approximations", "videos": len(videos), "positives": int(sum(labels))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
