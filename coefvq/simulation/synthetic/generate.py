"""Write a synthetic data set: clips, metadata.csv (VideoFolder layout) and the factors beside it.

The folder carries a marker of what it was made from. Clips are written one by one, each in one step,
and metadata.csv last: a run that was cut off leaves no half data set, and the next one with the same
arguments keeps the clips that are there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coefvq.compute.pools import spawn_pool
from coefvq.data.descriptions import DESCRIPTIONS
from coefvq.errors import DataError
from coefvq.files import atomic_path, read_json, write_json, write_text
from coefvq.simulation.synthetic.clips import (
    COLUMNS,
    Clip,
    describe,
    descriptions_row,
    factors_row,
    metadata_row,
    random_streams,
)
from coefvq.simulation.synthetic.odds import ISSUES
from coefvq.simulation.synthetic.world import check_prevalence

#: raise it when any clip would come out differently
WORLD_VERSION = 2
MARKER = ".synthetic.json"
_TABLES = ("metadata.csv", "factors.jsonl", DESCRIPTIONS)
_BATCH = 4  # clips per message to a worker


@dataclass(frozen=True)
class GenerateSummary:
    """What was made; ``seconds`` of footage, ``positives`` per issue."""

    videos: int
    seconds: float
    positives: Mapping[str, int]


def generate(
    out: Path,
    videos: int,
    seed: int,
    prevalence: Mapping[str, float],
    workers: int = 2,
    first_index: int = 0,
    progress: Callable[[int], None] | None = None,
    copies: float = 0.0,
) -> GenerateSummary:
    """Make the videos ``first_index … first_index + videos - 1`` of the world ``seed`` in ``out``.

    ``prevalence`` is the share of positives per issue over the factor prior, ``copies`` that of videos whose source
    is a stranger's (``clips.describe``). Afterwards the folder holds
    exactly these videos; the same arguments give the same bytes whatever ``workers``, and a video's
    bytes depend on seed and index only. ``progress`` is told how many more clips are ready.

    Raises:
        DataError: an argument does not fit, or ``out`` holds files that are not from here.
    """
    shares = check_prevalence(prevalence)
    _check_numbers(videos=(videos, 1), seed=(seed, 0), workers=(workers, 1), first_index=(first_index, 0))
    # folders that were made before there were copies have none
    asked = {"version": WORLD_VERSION, "seed": seed, "prevalence": shares, **({"copies": copies} if copies else {})}
    _claim_folder(out, asked | _libraries())
    clips = [describe(seed, index, shares, copies) for index in range(first_index, first_index + videos)]
    tell = progress or (lambda _: None)
    missing = [clip for clip in clips if not _is_written(out / clip.file_name)]
    if len(missing) < videos:
        tell(videos - len(missing))
    for _ in _write_clips(out, seed, missing, workers):
        tell(1)
    _write_tables(out, clips)
    _prune(out, keep={Path(clip.file_name).name for clip in clips})
    return _summary(clips)


def _summary(clips: Sequence[Clip]) -> GenerateSummary:
    from coefvq.simulation.synthetic.render import FPS, FRAMES

    positives = {issue: sum(clip.labels[issue] for clip in clips) for issue in ISSUES}
    return GenerateSummary(len(clips), len(clips) * FRAMES / FPS, positives)


def _check_numbers(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            raise DataError(f"{name} = {value}: expected a whole number of at least {least}; correct it")


def _libraries() -> dict[str, str]:
    # clips made by another encoder or another font are not the same bytes, so they are not kept
    return {name: version(name) for name in ("av", "matplotlib", "numpy", "pillow")}


def _claim_folder(out: Path, marker: Mapping[str, Any]) -> None:
    """Make ``out`` ours: empty, or holding only clips that ``marker`` describes."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the synthetic clips")
    path = out / MARKER
    if path.is_file():
        if read_json(path) == marker:
            return
        _remove([*(out / name for name in _TABLES), *(out / "videos").glob("*.mp4")])
    elif out.is_dir() and any(not entry.name.startswith(f".{MARKER}.") for entry in out.iterdir()):
        raise DataError(f"{out}: not empty and not made by this generator; give a new or empty folder")
    write_json(path, dict(marker))


def _prune(out: Path, keep: set[str]) -> None:
    """Remove clips of an earlier, longer run and what a killed one left half written."""
    _remove(path for path in (out / "videos").iterdir() if _is_ours(path) and path.name not in keep)
    _remove(out.glob(".*.tmp"))


def _is_ours(path: Path) -> bool:
    return path.suffix == ".mp4" or (path.name.startswith(".") and path.suffix == ".tmp")


def _is_written(path: Path) -> bool:
    # clips appear in one step, so only a crash of the machine can leave an empty one
    return path.is_file() and path.stat().st_size > 0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _write_tables(out: Path, clips: Sequence[Clip]) -> None:
    _write_lines(out / "factors.jsonl", (factors_row(clip) for clip in clips))
    _write_lines(out / DESCRIPTIONS, (descriptions_row(clip) for clip in clips))
    with (
        atomic_path(out / "metadata.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(metadata_row(clip) for clip in clips)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def _write_clips(out: Path, seed: int, clips: Sequence[Clip], workers: int) -> Iterator[None]:
    work = partial(write_clip, out, seed)
    if workers == 1 or len(clips) <= _BATCH:
        yield from map(work, clips)
        return
    with spawn_pool(workers) as pool:
        yield from pool.map(work, clips, chunksize=_BATCH)


def write_clip(out: Path, seed: int, clip: Clip) -> None:
    """Render one clip below ``out``, from what it shows; its true factors play no part."""
    # lazy: drawing and FFmpeg are needed only where clips are made
    from coefvq.simulation.synthetic.encode import write_mp4
    from coefvq.simulation.synthetic.render import FPS, FRAMES, render
    from coefvq.simulation.synthetic.sound import soundtrack
    from coefvq.simulation.synthetic.tones import SAMPLE_RATE

    _, picture, sound = random_streams(seed, clip.index)
    samples = soundtrack(sound, clip.shown.sound, FRAMES * SAMPLE_RATE // FPS)
    frames = render(picture, clip.shown, clip.writing.stickers)
    with atomic_path(out / clip.file_name) as temporary:
        write_mp4(temporary, frames, FPS, samples, SAMPLE_RATE)
