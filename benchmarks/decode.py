"""Frames per CPU second: our decoder against torchcodec, decord, OpenCV and PyAV's decode-all.

    pip install 'coefvq[bench]'          (torchcodec 0.12 is the newest that loads beside a CPU build of torch 2.13;
                                          it needs FFmpeg's libraries, e.g. apt-get install ffmpeg)
    python benchmarks/decode.py          8 and 16 frames, 360p to 1080p, GOP 30 to 250, 5 to 60 s: 54 cases
    python benchmarks/decode.py --quick  8 of them

Everything runs on one thread and delivers the same frames as 384 x 384 RGB. A case's figure is CPU time of the
best peer divided by ours (median of interleaved repeats). The last line is JSON; exit code 1 if the geometric
mean is below 1.3, a case is below 0.95, or a frame differs from a full decode.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decode_clips import ClipSpec, ensure
from coefvq.data.frames import uniform_indices
from coefvq.data.media import decode_frames

SIDE = 384
TARGET_MEAN, TARGET_LEAST = 1.3, 0.95
Frames = npt.NDArray[np.uint8]
Decoder = Callable[[Path, int], Frames]


@dataclass(frozen=True)
class Case:
    """What one comparison decodes."""

    clip: ClipSpec
    frames: int


def ours(path: Path, frames: int) -> Frames:
    """coefvq."""
    return decode_frames(path, frames, SIDE)


def pyav_all(path: Path, frames: int) -> Frames:
    """Decode everything, scale what was wanted."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = set(uniform_indices(stream.frames, frames))
        found = {
            index: frame.reformat(SIDE, SIDE, "rgb24", interpolation="BICUBIC").to_ndarray().transpose(2, 0, 1)
            for index, frame in enumerate(container.decode(stream))
            if index in wanted
        }
    return np.stack([found[i] for i in uniform_indices(len(found) and stream.frames, frames)])


def torchcodec_of(seek_mode: str) -> Decoder:
    """torchcodec with its own resizing."""

    def decode(path: Path, frames: int) -> Frames:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        reader = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode, transforms=[Resize((SIDE, SIDE))])
        return reader.get_frames_at(uniform_indices(len(reader), frames)).data.numpy()

    return decode


def decord(path: Path, frames: int) -> Frames:
    """decord with its own resizing."""
    import decord as library

    reader = library.VideoReader(str(path), width=SIDE, height=SIDE, num_threads=1)
    return reader.get_batch(uniform_indices(len(reader), frames)).asnumpy().transpose(0, 3, 1, 2)


def opencv_seek(path: Path, frames: int) -> Frames:
    """OpenCV, one seek per frame."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path))
    found = []
    for index in uniform_indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), frames):
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        found.append(_opencv_picture(capture.read()[1]))
    return np.stack(found)


def opencv_grab(path: Path, frames: int) -> Frames:
    """OpenCV, read through, converting only what was wanted."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted, found = set(uniform_indices(count, frames)), {}
    for index in range(count):
        capture.grab()
        if index in wanted:
            found[index] = _opencv_picture(capture.retrieve()[1])
    return np.stack([found[i] for i in uniform_indices(count, frames)])


def _opencv_picture(bgr: Any) -> Frames:
    import cv2

    scaled = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(scaled[:, :, ::-1].transpose(2, 0, 1))


PEERS: dict[str, Decoder] = {
    "pyav all": pyav_all,
    "torchcodec exact": torchcodec_of("exact"),
    "torchcodec approximate": torchcodec_of("approximate"),
    "decord": decord,
    "opencv seek": opencv_seek,
    "opencv grab": opencv_grab,
}


def cpu_seconds(decode: Decoder, path: Path, frames: int) -> float:
    """CPU time of one call, all threads together."""
    start = time.process_time()
    decode(path, frames)
    return time.process_time() - start


def usable_peers(path: Path) -> dict[str, Decoder]:
    """Peers that are installed and give the asked number of frames; the others are named on stderr."""
    good = {}
    for name, decode in PEERS.items():
        try:
            if decode(path, 4).shape != (4, 3, SIDE, SIDE):
                raise ValueError("another number of frames")
        except Exception as error:  # noqa: BLE001  whatever a peer throws is its failure, not ours
            print(f"left out: {name} ({type(error).__name__}: {str(error).splitlines()[0][:80]})", file=sys.stderr)
        else:
            good[name] = decode
    return good


def measure(case: Case, path: Path, peers: dict[str, Decoder]) -> dict[str, Any]:
    """Medians of interleaved repeats, the best peer, and whether our frames are those of a full decode."""
    repeats = {5: 5, 15: 3, 60: 1}.get(case.clip.seconds, 3)
    times: dict[str, list[float]] = {name: [] for name in ("coefvq", *peers)}
    for _ in range(repeats):
        for name, decode in {"coefvq": ours, **peers}.items():
            times[name].append(cpu_seconds(decode, path, case.frames))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min(peers, key=lambda name: medians[name])
    return {
        "clip": case.clip.name,
        "frames": case.frames,
        "cpu_seconds": {name: round(value, 4) for name, value in medians.items()},
        "best_peer": best,
        "ratio": medians[best] / medians["coefvq"],
        "equal": bool(np.array_equal(ours(path, case.frames), pyav_all(path, case.frames))),
    }


def cases(quick: bool) -> list[Case]:
    """All 54 cases, or 8."""
    resolutions, gops, seconds, frames = ["360p", "720p", "1080p"], [30, 60, 250], [5, 15, 60], [8, 16]
    if quick:
        resolutions, gops, seconds = ["360p", "720p"], [30, 250], [5, 15]
        frames = [16]
    chosen = itertools.product(resolutions, gops, seconds, frames)
    return [Case(ClipSpec(r, g, s), n) for r, g, s, n in chosen]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON line."""
    ratios = [row["ratio"] for row in rows]
    return {
        "benchmark": "decode",
        "cases": len(rows),
        "geometric_mean": round(math.exp(statistics.fmean(map(math.log, ratios))), 3),
        "least": round(min(ratios), 3),
        "below_0.95": sum(ratio < TARGET_LEAST for ratio in ratios),
        "bit_equal": sum(row["equal"] for row in rows),
        "best_peers": {name: sum(row["best_peer"] == name for row in rows) for name in PEERS},
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 of the 54 cases")
    parser.add_argument("--clips", type=Path, default=Path(tempfile.gettempdir()) / "coefvq-decode-clips")
    parser.add_argument("--rows", type=Path, help="also write every case as JSON lines")
    options = parser.parse_args()
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    console = Console(stderr=True)
    todo = cases(options.quick)
    specs = list(dict.fromkeys(case.clip for case in todo))
    paths = {spec: ensure(spec, options.clips) for spec in track(specs, "encoding clips", console=console)}
    peers = usable_peers(paths[specs[0]])
    if not peers:
        print("no peer is usable; pip install 'coefvq[bench]'", file=sys.stderr)
        return 2
    rows = [measure(case, paths[case.clip], peers) for case in track(todo, "decoding", console=console)]
    table = Table("clip", "frames", "coefvq, CPU s", "best peer", "CPU s", "ratio", "equal")
    for row in rows:
        figures = row["cpu_seconds"]
        cells = [row["clip"], str(row["frames"]), f"{figures['coefvq']:.3f}", row["best_peer"]]
        cells += [f"{figures[row['best_peer']]:.3f}", f"{row['ratio']:.2f}", "yes" if row["equal"] else "NO"]
        table.add_row(*cells)
    console.print(table)
    if options.rows:
        options.rows.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = summary(rows)
    print(json.dumps(result))
    good = result["geometric_mean"] >= TARGET_MEAN and not result["below_0.95"] and result["bit_equal"] == len(rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
