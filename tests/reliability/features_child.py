"""Run as a process: fill a feature store, optionally slowed down or with a bounded file size; prints what it did.

python features_child.py ROOT CLIPS COUNT [--file-bytes N]
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from coefvq.errors import StorageError
from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.features.store import FeatureStore
from tests.unit.frozen_models import frozen_model, stored_clips


def main() -> int:
    """Build and say so."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--file-bytes", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = frozen_model("mllm")
    videos, clips = stored_clips(given.clips, given.count)
    store = FeatureStore(given.root, 2**30)
    print("ready", flush=True)
    if given.file_bytes is not None:
        # a file that may not grow fails as a full disk does; the signal would end the process instead
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.file_bytes, given.file_bytes))
    try:
        with store.lease() as lease:
            built = FeatureBuilder(cached_model(model), store, clips, lease, workers=1, flush_seconds=0.0).build(videos)
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"computed": built.computed, "found": built.found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
