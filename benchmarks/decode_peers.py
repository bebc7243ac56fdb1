"""The decoders that benchmarks/decode.py compares with, each on one thread and as its own manual would use it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coefvq.data.media.timeline import uniform_indices

SIDE = 384
Frames = npt.NDArray[np.uint8]
Decoder = Callable[[Path, int], Frames]


def pyav_all(path: Path, frames: int) -> Frames:
    """Decode everything, scale what was wanted."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter, found = VideoReformatter(), {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        indices = uniform_indices(stream.frames, frames)
        for index, frame in enumerate(container.decode(stream)):
            if index in indices:
                scaled = reformatter.reformat(frame, SIDE, SIDE, "rgb24", interpolation="BICUBIC", threads=1)
                found[index] = scaled.to_ndarray().transpose(2, 0, 1)
    return np.stack([found[i] for i in indices])


def _torchcodec(seek_mode: str) -> Decoder:
    def decode(path: Path, frames: int) -> Frames:
        import torch
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        torch.set_num_threads(1)
        reader = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode, transforms=[Resize((SIDE, SIDE))])
        return reader.get_frames_at(uniform_indices(len(reader), frames)).data.numpy()

    return decode


def decord(path: Path, frames: int) -> Frames:
    """decord with its own resizing."""
    import decord as library

    reader = library.VideoReader(str(path), width=SIDE, height=SIDE, num_threads=1)
    return reader.get_batch(uniform_indices(len(reader), frames)).asnumpy().transpose(0, 3, 1, 2)


def opencv_seek(path: Path, frames: int) -> Frames:
    """One seek per frame."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path))
    found = []
    for index in uniform_indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), frames):
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        found.append(_from_opencv(capture.read()[1]))
    return np.stack(found)


def opencv_grab(path: Path, frames: int) -> Frames:
    """Read through, convert only what was wanted."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path))
    indices = uniform_indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), frames)
    found = {}
    for index in range(indices[-1] + 1):
        capture.grab()
        if index in indices:
            found[index] = _from_opencv(capture.retrieve()[1])
    return np.stack([found[i] for i in indices])


def _from_opencv(bgr: Any) -> Frames:
    import cv2

    scaled = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(scaled[:, :, ::-1].transpose(2, 0, 1))


#: name → decoder and the package it comes from
PEERS: dict[str, tuple[Decoder, str]] = {
    "pyav all": (pyav_all, "av"),
    "torchcodec exact": (_torchcodec("exact"), "torchcodec"),
    "torchcodec approximate": (_torchcodec("approximate"), "torchcodec"),
    "decord": (decord, "decord"),
    "opencv seek": (opencv_seek, "opencv-python-headless"),
    "opencv grab": (opencv_grab, "opencv-python-headless"),
}


def installed(path: Path) -> tuple[dict[str, Decoder], dict[str, str]]:
    """Peers that can open a clip, and why the others cannot."""
    good, missing = {}, {}
    for name, (decode, package) in PEERS.items():
        try:
            decode(path, 2)
        except Exception as error:  # noqa: BLE001  whatever a peer throws is its failure, not ours
            missing[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}"
            print(f"left out: {name} (package {package}): {missing[name]}", file=sys.stderr)
        else:
            good[name] = decode
    return good, missing


def versions(names: list[str]) -> dict[str, str]:
    """Package versions behind the peers."""
    return {package: version(package) for package in sorted({PEERS[name][1] for name in names})}
