"""Near-duplicate search and splitting of a million videos, and how many copies the search finds.

    python benchmarks/near_duplicates.py                  100,000 videos
    python benchmarks/near_duplicates.py --rows 1000000   about four minutes on two cores

The last line is JSON: seconds and peak memory of a fresh process that reads a manifest with random hashes (2 % of
them copies, a tenth with one common first frame) and splits it; recall on 5,000 copies at 16, 24 and 31 bits of mean
distance, all of which comparing every pair would find; groups that hold strangers.
Exit code 1 where the splitting takes more than 60 s of CPU time or 2 GiB per million rows, or a recall is below 0.95.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from coefvq.data.splits.near_duplicates import near_duplicate_codes

ROOT = Path(__file__).resolve().parents[1]
Bytes = npt.NDArray[np.uint8]
_HASH_BYTES = 4 * 32

_CHILD = """
import json, resource, sys, time
from pathlib import Path
from coefvq.config import load_params
from coefvq.data.manifest import read_table
from coefvq.data.splits.assign import assign_splits, check_splits, enrichment_weights, summarize, with_look_alikes
params = load_params(Path(sys.argv[2])).split
manifest = read_table(Path(sys.argv[1]))
issues = ["icd", "ucc"]
def peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
read_mib, start, cpu = peak(), time.perf_counter(), time.process_time()
manifest = with_look_alikes(manifest, params)
searched, search_mib = time.process_time() - cpu, peak()
splits = assign_splits(manifest, issues, params, 7)
assigned = time.process_time() - cpu
check_splits(manifest, splits, issues, params)
weights = enrichment_weights(manifest, splits, issues, params, 7)
facts = summarize(manifest, splits, issues, params, weights)
print(json.dumps({
    "read_mib": read_mib, "search_cpu_seconds": round(searched, 1), "search_mib": search_mib,
    "assign_cpu_seconds": round(assigned - searched, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
    "seconds": round(time.perf_counter() - start, 1), "peak_mib": peak(), "near_duplicates": facts["near_duplicates"],
}))
"""


def copies(originals: Bytes, bits: int, random: np.random.Generator) -> Bytes:
    """Hashes [n, 128] with ``bits`` of every frame's 256 changed."""
    frames = np.unpackbits(originals.reshape(-1, 32), axis=1)
    places = (
        random.random(frames.shape).argpartition(bits, axis=1)[:, :bits] if bits else np.zeros((len(frames), 0), int)
    )
    np.put_along_axis(frames, places, 1 - np.take_along_axis(frames, places, axis=1), axis=1)
    return np.packbits(frames, axis=1).reshape(-1, _HASH_BYTES)


def texts(hashes: Bytes) -> list[str]:
    """As ``video_hash`` writes them."""
    digits = hashes.tobytes().hex()
    return [digits[start : start + 2 * _HASH_BYTES] for start in range(0, len(digits), 2 * _HASH_BYTES)]


def recall(bits: int, count: int, seed: int) -> tuple[float, int]:
    """Share of ``count`` copies found among as many originals, and copies grouped with a stranger."""
    random = np.random.default_rng(seed)
    originals = random.integers(0, 256, (count, _HASH_BYTES), np.uint8)
    codes = near_duplicate_codes(texts(np.concatenate([originals, copies(originals, bits, random)])), 31)
    found = (codes[:count] >= 0) & (codes[:count] == codes[count:])
    sizes = np.bincount(codes[codes >= 0])
    return float(found.mean()), int((sizes > 2).sum())


def make(path: Path, count: int) -> None:
    """A manifest of ``count`` videos; its columns are those that splitting reads."""
    random = np.random.default_rng(7)
    hashes = random.integers(0, 256, (count, _HASH_BYTES), np.uint8)
    hashes[: count // 10, :32] = hashes[0, :32]
    some = count // 50
    hashes[count - some :] = copies(hashes[:some], 16, random)
    labels = {f"label_{issue}": (random.random(count) < share) for issue, share in (("icd", 0.05), ("ucc", 0.09))}
    pd.DataFrame(
        {
            "video_id": [f"v{row:07d}" for row in range(count)],
            "sha256": [f"{row:064x}" for row in range(count)],
            # a long tail of creators, the largest with a third of a percent
            "creator_id": [f"c{int(value)}" for value in random.pareto(1.2, count) * 300 % (count / 3)],
            "source_id": pd.array([None] * count, dtype="str"),
            "phash": texts(hashes),
            "decode_ok": True,
        }
    ).assign(**{name: pd.array(values.astype(int), dtype="Int8") for name, values in labels.items()}).to_parquet(path)


def split_in_a_fresh_process(count: int) -> dict[str, object]:
    """What the child measured."""
    with tempfile.TemporaryDirectory(prefix="coefvq-near-") as folder:
        manifest = Path(folder) / "manifest.parquet"
        make(manifest, count)
        command = [sys.executable, "-c", _CHILD, str(manifest), str(ROOT / "params.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    facts: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return facts


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    recalls = {bits: recall(bits, 5000, seed=bits) for bits in (16, 24, 31)}
    facts = split_in_a_fresh_process(options.rows)
    millions = max(options.rows / 1e6, 0.1)
    good = (
        float(str(facts["cpu_seconds"])) <= 60 * millions
        and float(str(facts["peak_mib"])) <= 2048 * max(millions, 1.0)
        and min(share for share, _ in recalls.values()) >= 0.95
    )
    shares = {f"recall_at_{bits}": round(share, 4) for bits, (share, _) in recalls.items()}
    strangers = sum(count for _, count in recalls.values())
    print(json.dumps({"benchmark": "near_duplicates", "rows": options.rows, **facts, **shares, "strangers": strangers}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
