"""One output video: cut, edit, and encode, the same way for an original and for a copy.

Three encodings each: the prepared footage (``footage``), the export of whoever edited it (here), and the
platform's own at a size drawn from one distribution (``encode.write_to_size``). An original without
edits goes through all three. The picture is streamed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coefvq.simulation.reupload.edits import Edit
from coefvq.simulation.reupload.encode import (
    AUDIO_BITS,
    CRF_PER_HALVING,
    SAMPLE_RATE,
    Samples,
    read_frames,
    read_sound,
    retimed,
    write_clip,
    write_to_size,
)
from coefvq.simulation.reupload.footage import Footage
from coefvq.simulation.reupload.painting import Paint, painter
from coefvq.simulation.reupload.plan import ReuploadPlan, window
from coefvq.simulation.synthetic.sound import music

_CRF = 20.0  # of the second encoding, unless the copy is degraded
_CONTAINER_BYTES = 3_000


@dataclass(frozen=True)
class Job:
    """A plan with the prepared footage it needs: files of its own and of the original it takes from."""

    plan: ReuploadPlan
    footage: Footage
    files: Mapping[str, Path]


def render(out: Path, work: Path, fps: int, job: Job) -> str:
    """Write the video of ``job`` below ``out`` and return its id; ``work`` holds what lies between."""
    plan, clip = job.plan, job.files[job.plan.original.video_id]
    start, step, count = window(plan, job.footage.frames)
    crf = next((float(edit.params["crf"]) for edit in plan.edits if edit.kind == "degrade"), _CRF)
    between = work / Path(plan.file_name).name
    picked = _picked(clip, [start + round(number * step) for number in range(count)])
    write_clip(between, _painted(picked, job, count), fps, _sound(job, fps, start, step, count), crf)
    guess = _CRF + CRF_PER_HALVING * math.log2(1.0 / plan.bits_share)
    write_to_size(between, out / plan.file_name, fps, _wanted_bytes(job, count, fps), guess)
    between.unlink()
    return plan.video_id


def _wanted_bytes(job: Job, count: int, fps: int) -> int:
    """Bits as the footage has them per second, times the share drawn; the sound's are nominal, also of silence."""
    video = job.footage.video_bytes / job.footage.frames * count * job.plan.bits_share
    return round(video + AUDIO_BITS / 8 * count / fps) + _CONTAINER_BYTES


def _picked(path: Path, indices: list[int]) -> Iterator[NDArray[np.uint8]]:
    """The frames at ``indices`` (never falling); past the end, the last one."""
    stream = read_frames(path)
    frame, at = next(stream), 0
    for index in indices:
        while at < index and (following := next(stream, None)) is not None:
            frame, at = following, at + 1
        yield frame


def _painted(pictures: Iterator[NDArray[np.uint8]], job: Job, count: int) -> Iterator[NDArray[np.uint8]]:
    paints: list[Paint] | None = None
    for number, picture in enumerate(pictures):
        image = Image.fromarray(picture)
        paints = _paints(job, image.size) if paints is None else paints
        for paint in paints:
            image = paint(image, number / count)
        yield np.asarray(image)


def _paints(job: Job, size: tuple[int, int]) -> list[Paint]:
    edits = (*job.plan.inherited, *job.plan.edits)
    made = (painter(edit, size, _inset(job, edit)) for edit in edits)
    return [paint for paint in made if paint is not None]


def _inset(job: Job, edit: Edit) -> Iterator[Image.Image]:
    """The other clip, over and over."""
    while True:
        for picture in read_frames(job.files[edit.params["donor"]]):
            yield Image.fromarray(picture)


def _sound(job: Job, fps: int, start: int, step: float, count: int) -> Samples:
    """The footage's sound with its creator's changes, cut and sped up as the picture, then with the poster's."""
    samples = read_sound(job.files[job.plan.original.video_id])
    for edit in job.plan.inherited:
        samples = _changed(samples, edit, job.files)
    first, last = (round(frame / fps * SAMPLE_RATE) for frame in (start, start + count * step))
    samples = retimed(samples[first:last], tempo=step, pitch=1.0)
    for edit in job.plan.edits:
        samples = _changed(samples, edit, job.files)
    return samples


def _changed(samples: Samples, edit: Edit, files: Mapping[str, Path]) -> Samples:
    if edit.kind == "pitch":
        return retimed(samples, tempo=1.0, pitch=edit.params["factor"])
    if edit.kind == "other_sound":
        other: Samples = np.resize(read_sound(files[edit.params["donor"]]), samples.shape)
        return other
    if edit.kind == "music":
        tune = music(np.random.default_rng(edit.params["seed"]), len(samples))
        mixed = edit.params["gain"] * tune + (0.6 * samples if edit.params["under"] else 0.0)
        return np.asarray(np.clip(mixed, -1.0, 1.0), dtype=np.float32)
    return samples
