"""A clip store that writes down each clip it decodes, and a process that fills one when it is told to.

Usage: python -m tests.unit.counting_store CACHE LOG TOGETHER CLIP...
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from coefvq.config import MediaLimits, MediaSpec
from coefvq.data.media import claims, clips
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.records import VideoInput

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)
LOG = "COEFVQ_TEST_DECODED"
_decode = clips._decoded


def _logged(path: Path, spec: MediaSpec, limits: MediaLimits) -> Clip:
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(f"{path.name}\n")  # shorter than a page: lines of several processes do not mix
    return _decode(path, spec, limits)


if __name__ == "tests.unit.counting_store":  # in the limited workers too: they import it with the store's class
    clips._decoded = _logged


@dataclass(frozen=True)
class CountingStore(ClipStore):
    """As its class, but for the log."""


def counting_store(cache: Path) -> CountingStore:
    """A store of small clips."""
    return CountingStore(cache, MEDIA, DEFAULT_LIMITS)


def main(cache: str, log: str, together: str, *paths: str) -> None:
    """Fill the store when a line comes on the standard input, and say how many clips do not decode."""
    os.environ[LOG] = log
    store = counting_store(Path(cache))
    videos = [store.hashed(VideoInput(Path(path).stem, Path(path))) for path in paths]
    print("ready", flush=True)
    sys.stdin.readline()
    failed = claims.fill_together(store, videos, 1) if together == "yes" else store.try_fill(videos, 1)
    print(len(failed), flush=True)


if __name__ == "__main__":
    from tests.unit import counting_store as named  # what pickles must have a name that a worker can import

    named.main(*sys.argv[1:])
