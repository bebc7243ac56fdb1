"""Peak memory of a training from cached features, at some rows and at ten times as many.

    python benchmarks/memory.py          300 and 3,000 rows
    python benchmarks/memory.py --quick  200 and 2,000 rows

Each size is a process of its own: it fills the cache, trains one epoch of a small MLLM with frozen towers, and says
its peak resident memory (which counts the pages of memory-mapped shards). The cache of the larger run is far larger
than the allowed growth. The last line is JSON; exit code 1 where 10 times the rows take 10 % more memory or above.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LIMIT, SIDE = 1.10, 128


def child(rows: int) -> None:
    """Fill, train, and print what it took."""
    import torch

    from coefvq.models.dataset import VideoDataset
    from coefvq.training.features.build import FeatureBuilder
    from coefvq.training.features.keys import cached_model
    from coefvq.training.features.reader import feature_collator, reader
    from coefvq.training.features.store import FeatureStore
    from coefvq.training.loop import FitData, FitPlan, fit
    from tests.settings import training_settings
    from tests.unit.frozen_models import MEDIA, frozen_model, stored_clips

    torch.set_num_threads(1)
    # the projector trains, so that the larger side is kept: 66 kB per video
    model = frozen_model("projector-trains", media=MEDIA.model_copy(update={"frame_size": SIDE}))
    with tempfile.TemporaryDirectory() as folder:
        videos, clips = stored_clips(Path(folder) / "clips", rows, SIDE)
        store, cached = FeatureStore(Path(folder) / "features", 2**40), cached_model(model)
        with store.lease() as lease:
            built = FeatureBuilder(cached, store, clips, lease, workers=1).build(videos)
            lookup, _ = reader(cached, built.index, videos)
            labels = [number % 2 for number in range(rows)]
            train = VideoDataset(videos, clips, labels, lookup, cached.reads_clips)
            val = VideoDataset(videos[:32], clips, labels[:32], lookup, cached.reads_clips)
            settings = training_settings(per_device_train_batch_size=16)
            fit(model, FitData(train, val, collator=feature_collator(cached)), FitPlan(settings, 1))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"rows": rows, "peak_bytes": peak, "cache_bytes": store.size()}))


def measured(rows: int) -> dict[str, int]:
    """One size in its own process."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", str(rows)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found), flush=True)
    return found


def main() -> int:
    """Run both sizes and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="200 and 2,000 rows")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child)
        return 0
    few, many = (measured(rows * (2 if given.quick else 3)) for rows in (100, 1000))
    ratio = many["peak_bytes"] / few["peak_bytes"]
    result = {
        "name": "memory",
        "ratio": round(ratio, 4),
        "target": LIMIT,
        "pass": ratio < LIMIT,
        "rows": [few["rows"], many["rows"]],
        "peak_mb": [round(one["peak_bytes"] / 1e6) for one in (few, many)],
        "cache_mb": [round(one["cache_bytes"] / 1e6, 1) for one in (few, many)],
    }
    print(json.dumps(result))
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
