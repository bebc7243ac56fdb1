"""Validation of a million rows: manifest suite, drift and split suite, with the files on disk.

    python benchmarks/validate.py [--rows 1000000] [--folder DIR]

The last line is JSON; exit code 1 above 10 s or 1.5 GB for the manifest suite (read, files, drift, reports included).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

_CHILD = """
import json, sys, time, resource
from pathlib import Path
folder = Path(sys.argv[1])
start = time.perf_counter()
from coefvq.config import load_params
from coefvq.data.validation.expectations import validate_manifest, validate_splits
from coefvq.data.manifest import read_table
from coefvq.data.validation.report import to_html, to_json
from coefvq.files import read_json
params = load_params(Path(sys.argv[2]))
imported = time.perf_counter()
manifest = read_table(folder / "manifest.parquet")
reference = read_json(folder / "reference.json")
result = validate_manifest(manifest, folder, params.validate_, params.issues, None, reference)
to_html(result), to_json(result)
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rows = manifest.assign(split=read_table(folder / "splits.parquet")["split"])
splits = validate_splits(rows, params.validate_, params.issues, ["source_id", "creator_id", "sha256"])
import great_expectations
print(json.dumps({
    "success": result.success, "failures": [check.name for check in result.failures],
    "expectations": len(result.checks), "import_seconds": round(imported - start, 2),
    "seconds": round(done - imported, 2), "peak_mib": round(peak), "great_expectations": great_expectations.__version__,
    "split_success": splits.success, "split_seconds": round(time.perf_counter() - done, 2),
}))
"""


def make(folder: Path, count: int) -> None:
    """A manifest of ``count`` videos with hard links to one file, spread over folders of a thousand."""
    from coefvq.data.validation.profile import profile

    random = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one").write_bytes(b"x")
    names = [f"{row // 1000:04d}/{row:07d}.mp4" for row in range(count)]
    for row, name in enumerate(names):
        if row % 1000 == 0:
            (folder / name).parent.mkdir(exist_ok=True)
        # file systems bound the links of one file
        if row % 30_000 == 0:
            source = folder / f"one{row}"
            source.write_bytes(b"x")
        (folder / name).hardlink_to(source)
    manifest = pd.DataFrame(
        {
            "video_id": [f"v{row:07d}" for row in range(count)],
            "uri": names,
            "sha256": [f"{row:064x}" for row in range(count)],
            "title": random.choice(["a short title", "another, somewhat longer title #tag", ""], count),
            "stickers": [["SALE"] if row % 5 == 0 else [] for row in range(count)],
            "published_at": "2026-01-02T03:04:05Z",
            "creator_id": [f"c{row // 3}" for row in range(count)],
            "source_id": pd.array([None] * count, dtype="str"),
            "views": pd.array(random.integers(0, 10**6, count), dtype="Int64"),
            "weight": 1.0,
            "split": pd.array([None] * count, dtype="str"),
            "decode_ok": True,
            "reason": "ok",
            "size_bytes": pd.array(random.integers(10**4, 10**7, count), dtype="Int64"),
            "phash": "",
            "duration_s": random.uniform(2, 60, count),
            "fps": 30.0,
            "width": pd.array([360] * count, dtype="Int64"),
            "height": pd.array([640] * count, dtype="Int64"),
            "has_audio": random.random(count) < 0.9,
            "label_icd": pd.array((random.random(count) < 0.05).astype(int), dtype="Int8"),
            "label_ucc": pd.array((random.random(count) < 0.09).astype(int), dtype="Int8"),
        }
    )
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    split = np.array(["train", "val", "test", "traffic"])[(np.arange(count) // 3) % 4]
    pd.DataFrame({"video_id": manifest["video_id"], "split": split}).to_parquet(folder / "splits.parquet")
    reference = profile(manifest.sample(min(count, 100_000), random_state=1), ["icd"])
    (folder / "reference.json").write_text(json.dumps(reference))


def main() -> int:
    """Make the data if it is not there, validate in a fresh process, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.gettempdir()) / f"coefvq-validate-{options.rows}"
    if not (folder / "reference.json").is_file():
        start = time.perf_counter()
        make(folder, options.rows)
        print(f"data made in {time.perf_counter() - start:.0f} s, {peak_mib():.0f} MiB", file=sys.stderr)
    params = Path(__file__).resolve().parents[1] / "params.yaml"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), str(params)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return 2
    facts = {"benchmark": "validate", "rows": options.rows, **json.loads(done.stdout.splitlines()[-1])}
    print(json.dumps(facts))
    return 0 if facts["success"] and facts["seconds"] <= 10 and facts["peak_mib"] <= 1500 else 1


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
