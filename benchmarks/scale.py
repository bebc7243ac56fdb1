"""Steps of a data set of 10 K, 100 K and 1 M videos: seconds, memory, and how they grow.

    python benchmarks/scale.py [--rows 10000 100000 1000000] [--steps split validate ...] [--folder DIR]

A made-up manifest in the product's form (hashes, titles, heavy-tailed creators, 9 % copies of anybody's videos) with
empty files, and scores drawn from the labels. Each step is a command in a process of its own. One JSON line per step:
wall and CPU seconds, peak MiB, and the exponent of the CPU seconds above the smallest size (start-up taken off).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coefvq.data.manifest import normalise, read_table, write_table
from coefvq.records import SCORE_COLUMNS

_ROOT = Path(__file__).resolve().parents[1]
_ISSUES = ("icd", "ucc")
_PER_FOLDER = 1000
_COPIES = 0.09
STEPS: dict[str, tuple[str, ...]] = {
    "validate": ("validate",),
    "split": ("split",),
    "evaluate": ("evaluate", "--issue", "ucc"),
    "thresholds": ("thresholds", "--issue", "ucc"),
    "publish": ("vmp", "publish", "data/manifest.parquet", "--root", "data/raw"),
    "publish again": ("vmp", "publish", "data/manifest.parquet", "--root", "data/raw"),
}


def make(workspace: Path, rows: int) -> None:
    """A workspace with settings, manifest and empty files."""
    for name in ("params.yaml", "recipe.yaml"):
        (workspace / name).write_text((_ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (workspace / "data").mkdir()
    (workspace / "data" / "reference.json").write_text("{}", encoding="utf-8")
    manifest = world(rows)
    write_table(manifest, workspace / "data" / "manifest.parquet")
    for number, uri in enumerate(manifest["uri"]):
        place = workspace / "data" / "raw" / uri
        if number % _PER_FOLDER == 0:
            place.parent.mkdir(parents=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))


def world(rows: int) -> pd.DataFrame:
    """Manifest rows; copies come from anybody and are mostly positive for ucc."""
    rng = np.random.default_rng(7)
    creators = max(rows // 5, 10)
    chance = np.minimum(rng.pareto(1.6, creators) + 0.2, 0.0005 * rows + 20)
    copy = rng.random(rows) < _COPIES
    source = np.where(copy, rng.integers(0, rows, rows), np.arange(rows))
    hashes = _hashes(rng, source, copy)
    labels = {"icd": rng.random(rows) < 0.05, "ucc": np.where(copy, rng.random(rows) < 0.9, rng.random(rows) < 0.01)}
    words = np.array(["my dinner", "a day at the sea", "мой ужин", "what happened next", "日本の料理"], dtype=object)
    return normalise(
        pd.DataFrame(
            {
                "video_id": [f"v{row:08d}" for row in range(rows)],
                "uri": [f"{row // _PER_FOLDER:05d}/v{row:08d}.mp4" for row in range(rows)],
                "sha256": [f"{row:064x}" for row in range(rows)],
                "title": words[rng.integers(0, len(words), rows)] + np.array([f" {n}" for n in range(rows)], object),
                "stickers": [["SALE"] if row % 5 == 0 else [] for row in range(rows)],
                "published_at": "2026-01-02T03:04:05+00:00",
                "creator_id": [f"c{number}" for number in rng.choice(creators, rows, p=chance / chance.sum())],
                "source_id": [f"s{number}" for number in source],
                "views": pd.array(np.minimum(rng.lognormal(6, 2.2, rows), 5e8).astype(np.int64), "Int64"),
                "weight": 1.0,
                "split": None,
                "decode_ok": True,
                "reason": "ok",
                "size_bytes": pd.array(rng.integers(10**5, 10**7, rows), "Int64"),
                "phash": hashes,
                "duration_s": rng.lognormal(3, 0.7, rows).clip(1, 600),
                "fps": 30.0,
                "width": pd.array([360] * rows, "Int64"),
                "height": pd.array([640] * rows, "Int64"),
                "has_audio": rng.random(rows) < 0.93,
                **{f"label_{issue}": pd.array(label.astype(int), "Int8") for issue, label in labels.items()},
            }
        ),
        _ISSUES,
    )


def _hashes(rng: np.random.Generator, source: np.ndarray[Any, Any], copy: np.ndarray[Any, Any]) -> list[str]:
    """Four frames of 256 bits by source; copies differ from it in about ten bits a frame."""
    bits = rng.integers(0, 256, (len(source), 4, 32), dtype=np.uint8)[source]
    changed = np.flatnonzero(copy)
    bits[changed] ^= np.packbits(rng.random((len(changed), 4, 256)) < 10 / 256, axis=2)
    text = bits.tobytes().hex()
    return [text[start : start + 256] for start in range(0, len(text), 256)]


def make_scores(workspace: Path) -> None:
    """What ``predict`` would write for ucc: scores that follow the label, of val, test and traffic."""
    rng = np.random.default_rng(11)
    manifest = read_table(workspace / "data" / "manifest.parquet", skip={"phash", "stickers", "title"})
    splits = read_table(workspace / "data" / "splits.parquet")[["video_id", "split"]]
    rows = manifest.drop(columns="split").merge(splits, on="video_id")
    rows = rows[rows["split"].isin(("val", "test", "traffic"))]
    label = rows["label_ucc"].to_numpy(dtype=np.float64)
    drawn = {
        name: 1 / (1 + np.exp(-rng.normal(gap * (label - 0.6), 1))) for name, gap in {"base": 2, "mllm": 4}.items()
    }
    table = rows[["video_id", "split", "weight", "views"]].assign(label=rows["label_ucc"], **drawn)
    for name in SCORE_COLUMNS:
        if name not in table:
            table[name] = np.nan
    write_table(table.loc[:, list(SCORE_COLUMNS)], workspace / "reports" / "ucc" / "scores.parquet")


def measured(command: tuple[str, ...], workspace: Path) -> dict[str, float]:
    """Run a command of coefvq; its wall and CPU seconds and its peak in MiB.

    Raises:
        SystemExit: it failed; its last line is shown.
    """
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "COEFVQ_CACHE": str(workspace / "cache")}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "coefvq", *command], cwd=workspace, env=environment, stdout=errors, stderr=errors
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: {errors.read().decode()[-600:]}")
    cpu = used.ru_utime + used.ru_stime
    return {"wall_s": time.perf_counter() - start, "cpu_s": cpu, "peak_mib": used.ru_maxrss / 1024}


def main() -> int:
    """Every step at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--folder", type=Path, help="Where the workspaces are made; they are deleted afterwards.")
    options = parser.parse_args()
    earlier: dict[str, tuple[int, float]] = {}
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory(prefix=f"coefvq-scale-{rows}-", dir=options.folder) as folder:
            workspace = Path(folder)
            make(workspace, rows)
            start_up = measured(("clips", "stats"), workspace)["cpu_s"]
            for step in options.steps:
                if step == "evaluate":
                    make_scores(workspace)
                found = measured(STEPS[step], workspace)
                line = {"step": step, "rows": rows, **{name: round(value, 2) for name, value in found.items()}}
                work = max(found["cpu_s"] - start_up, 0.01)
                if step in earlier:
                    before, least = earlier[step]
                    line["exponent"] = round(math.log(work / least) / math.log(rows / before), 3)
                earlier[step] = rows, work
                print(json.dumps({**line, "load": round(os.getloadavg()[0], 1)}), flush=True)
            shutil.rmtree(workspace / "data", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
