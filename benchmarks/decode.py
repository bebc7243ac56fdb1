"""Frames per CPU second: our decoder against torchcodec, decord, OpenCV and PyAV's decode-all.

    python benchmarks/decode.py          8 and 16 frames, 360p to 1080p, GOP 30 to 250, 5 to 60 s: 54 cases
    python benchmarks/decode.py --quick  8 of them

Everything runs on one thread and delivers the same frames as 384 x 384 RGB. A case's figure is the CPU time of
its best peer divided by ours (median of interleaved rounds). Frames carry their number; a peer that fails or
returns another frame counts as failed in that case. The last line is JSON. Exit code 1: the geometric mean is
below 1.3, a case is below 0.95, or one of our frames differs from a full decode's; 2: no peer is installed.

Peers: pip install 'coefvq[bench]' (decord, opencv-python-headless, torchcodec). torchcodec needs FFmpeg's shared
libraries (apt-get install ffmpeg) and a release that loads beside your torch: with a CPU build of torch 2.13 that
is 0.12; later ones ask for CUDA's libraries. Peers that are missing are named and left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# read when OpenCV opens a file; its own default is one decoding thread per core
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.decode_clips import FPS, ClipSpec, ensure, numbers
from benchmarks.decode_peers import PEERS, SIDE, Decoder, Frames, installed, pyav_all, versions
from coefvq.data.media.decode import decode_frames
from coefvq.data.media.timeline import uniform_indices

TARGET_MEAN, TARGET_LEAST = 1.3, 0.95
_ROUNDS = {5: 5, 15: 3, 60: 3}
# a peer this many times slower than the best one does not get its further rounds
_HOPELESS = 2.5


@dataclass(frozen=True)
class Case:
    """What one comparison decodes."""

    clip: ClipSpec
    frames: int


@dataclass
class Result:
    """CPU seconds by decoder (median), who failed and why, and whether our frames are exact."""

    case: Case
    equal: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        """The fastest peer that returned the right frames."""
        return min((name for name in self.seconds if name != "coefvq"), key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """Best peer's CPU time over ours."""
        return self.seconds[self.best_peer] / self.seconds["coefvq"]

    def as_dict(self) -> dict[str, Any]:
        """For the file of rows."""
        return {
            "clip": self.case.clip.name,
            "frames": self.case.frames,
            "cpu_seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "best_peer": self.best_peer,
            "ratio": round(self.ratio, 3),
            "equal": self.equal,
            "failed": self.failed,
        }


def ours(path: Path, frames: int) -> Frames:
    """coefvq."""
    return decode_frames(path, frames, SIDE)


def timed(decode: Decoder, path: Path, frames: int) -> tuple[float, Frames]:
    """CPU time of one call, all threads together, and its frames."""
    start = time.process_time()
    found = decode(path, frames)
    return time.process_time() - start, found


def measure(case: Case, path: Path, peers: dict[str, Decoder]) -> Result:
    """Compare on one clip: a first round in which answers are checked, then rounds for the time."""
    result = Result(case)
    expected = uniform_indices(case.clip.seconds * FPS, case.frames)
    first, answer = timed(ours, path, case.frames)
    result.equal = numbers(answer) == expected and bool(np.array_equal(answer, pyav_all(path, case.frames)))
    times: dict[str, list[float]] = {"coefvq": [first]}
    for name, decode in peers.items():
        try:
            seconds, found = timed(decode, path, case.frames)
        except Exception as error:  # noqa: BLE001  whatever a peer throws is its failure, not ours
            result.failed[name] = type(error).__name__
            continue
        if numbers(found) == expected:
            times[name] = [seconds]
        else:
            result.failed[name] = "other frames"
    best = min(values[0] for name, values in times.items() if name != "coefvq")
    for _ in range(_ROUNDS[case.clip.seconds] - 1):
        for name, values in times.items():
            if name == "coefvq" or values[0] <= _HOPELESS * best:
                values.append(timed(ours if name == "coefvq" else peers[name], path, case.frames)[0])
    result.seconds = {name: statistics.median(values) for name, values in times.items()}
    return result


def cases(quick: bool) -> list[Case]:
    """All 54 cases, or 8."""
    resolutions, gops, seconds, frames = ["360p", "720p", "1080p"], [30, 60, 250], [5, 15, 60], [8, 16]
    if quick:
        resolutions, gops, seconds, frames = ["360p", "720p"], [30, 250], [5, 15], [16]
    return [Case(ClipSpec(r, g, s), n) for r, g, s, n in itertools.product(resolutions, gops, seconds, frames)]


def summary(results: list[Result], missing: dict[str, str]) -> dict[str, Any]:
    """The JSON line."""
    ratios = [result.ratio for result in results]
    names = [name for name in PEERS if name not in missing]
    return {
        "benchmark": "decode",
        "cases": len(results),
        "geometric_mean": round(math.exp(statistics.fmean(map(math.log, ratios))), 3),
        "least": round(min(ratios), 3),
        "below_0.95": sum(ratio < TARGET_LEAST for ratio in ratios),
        "bit_equal": sum(result.equal for result in results),
        "best_peers": {name: sum(result.best_peer == name for result in results) for name in names},
        "failed": {name: sum(name in result.failed for result in results) for name in names},
        "missing": missing,
        "versions": versions(names),
    }


def table(results: list[Result]) -> Any:
    """One row per case."""
    from rich.table import Table

    shown = Table("clip", "frames", "coefvq, CPU s", "best peer", "CPU s", "ratio", "equal", "failed")
    for result in results:
        ours_, best = result.seconds["coefvq"], result.seconds[result.best_peer]
        cells = [result.case.clip.name.removesuffix(".mp4"), str(result.case.frames), f"{ours_:.3f}"]
        cells += [result.best_peer, f"{best:.3f}", f"{result.ratio:.2f}", "yes" if result.equal else "NO"]
        shown.add_row(*cells, ", ".join(f"{name}: {why}" for name, why in result.failed.items()))
    return shown


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 of the 54 cases")
    parser.add_argument("--json", action="store_true", help="no table, only the JSON line")
    parser.add_argument("--clips", type=Path, default=Path(tempfile.gettempdir()) / "coefvq-numbered-clips")
    parser.add_argument("--rows", type=Path, help="also write every case as JSON lines")
    options = parser.parse_args()
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    todo = cases(options.quick)
    specs = list(dict.fromkeys(case.clip for case in todo))
    paths = {spec: ensure(spec, options.clips) for spec in track(specs, "encoding clips", console=console)}
    peers, missing = installed(paths[specs[0]])
    if not peers:
        print("no peer is usable; pip install 'coefvq[bench]'", file=sys.stderr)
        return 2
    results = [measure(case, paths[case.clip], peers) for case in track(todo, "decoding", console=console)]
    if not options.json:
        Console(width=None if sys.stdout.isatty() else 140).print(table(results))
    if options.rows:
        lines = (json.dumps(result.as_dict()) + "\n" for result in results)
        options.rows.write_text("".join(lines), encoding="utf-8")
    outcome = summary(results, missing)
    print(json.dumps(outcome))
    fast = outcome["geometric_mean"] >= TARGET_MEAN and not outcome["below_0.95"]
    return 0 if fast and outcome["bit_equal"] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
