"""Write a data set of originals and simulated re-uploads in VideoFolder layout.

Habits as in ``coefvq.simulation.synthetic.generate``: a marker says what the folder was made from, each clip
appears in one step, metadata.csv comes last. An interrupted run is finished by the next one with the
same arguments; other arguments or another input start afresh. originals.json names every input clip, and
why those that were left out are of no use.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from coefvq.compute.engines import limited_map
from coefvq.compute.pools import spawn_pool
from coefvq.config import MediaLimits
from coefvq.data.importers import import_table
from coefvq.errors import DataError
from coefvq.simulation.reupload.folder import (
    ORIGINALS,
    WORK,
    check_folders,
    claim,
    input_digest,
    is_written,
    known_footage,
    prune,
    remember,
    write_table,
)
from coefvq.simulation.reupload.footage import FOOTAGE, Footage, Frames, failed, prepare
from coefvq.simulation.reupload.plan import ReuploadPlan, footage_name, originals, plans, settled

_CHUNK = 48  # originals whose footage lies on disk at one time; a copy takes sound and insets from these

Apply = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Settings:
    """What to make. ``copies`` per original on average, ``own_edits`` the share of originals with edits.

    ``size`` is the short side in pixels, at most; ``seconds`` how much of an original is used, at most.
    """

    seed: int = 7
    copies: float = 1.0
    own_edits: float = 0.3
    size: int = 360
    fps: int = 25
    seconds: float = 60.0


@dataclass(frozen=True)
class Summary:
    """What was made: numbers of videos, kinds of edits over copies, input clips of no use."""

    originals: int
    copies: int
    own_edited: int
    edits: Mapping[str, int]
    skipped: Sequence[Footage]


@dataclass(frozen=True)
class _Run:
    """What all chunks share; ``known`` grows with each."""

    root: Path
    out: Path
    frames: Frames
    limits: MediaLimits
    workers: int
    known: dict[str, Footage]


def reupload(
    source: Path,
    out: Path,
    settings: Settings,
    *,
    workers: int = 2,
    limits: MediaLimits,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Make originals and copies of the clips of ``source`` (any layout of ``importers.import_table``).

    The same input and settings give the same bytes whatever ``workers``. A clip that is missing, hostile or
    broken is left out and named in the summary. ``progress`` is told how many more videos are done.

    Raises:
        DataError: an argument does not fit, ``out`` holds other files, or no clip is usable.
    """
    planned = _planned(source, settings)
    check_folders(source, out, workers)
    table = import_table(source)
    claim(out, {**asdict(settings), "input": input_digest(table, limits)})
    run = _Run(
        table.root, out, Frames(settings.size, settings.fps, settings.seconds), limits, workers, known_footage(out)
    )
    made: list[ReuploadPlan] = []
    with ExitStack() as stack:
        # rendering works on footage of our own, so it needs no limits
        apply: Apply = map if workers == 1 else stack.enter_context(spawn_pool(workers)).map
        for first in range(0, len(planned), _CHUNK):
            made += _make_chunk(run, planned[first : first + _CHUNK], apply, progress or (lambda _: None))
    shutil.rmtree(out / WORK, ignore_errors=True)
    skipped = [footage for footage in run.known.values() if not footage.ok]
    if not made:
        raise DataError(f"{source}: no usable clip, e.g. {skipped[0].message}; all reasons: {out / ORIGINALS}")
    write_table(out, settings.fps, made, run.known)
    prune(out, made)
    return _summary(made, skipped)


def count_videos(source: Path, settings: Settings) -> int:
    """How many videos :func:`reupload` would make if every clip is usable."""
    return sum(map(len, _planned(source, settings)))


def _planned(source: Path, settings: Settings) -> list[list[ReuploadPlan]]:
    _check(settings)
    every = originals(import_table(source).frame, settings.seed)
    return plans(every, settings.seed, settings.copies, settings.own_edits)


def _check(settings: Settings) -> None:
    # name: (value, least, most); a list of bounds reads better here than five ifs
    bounds = {
        "seed": (settings.seed, 0, 2**63),
        "copies": (settings.copies, 0.0, 8.0),
        "own_edits": (settings.own_edits, 0.0, 1.0),
        "size": (settings.size, 32, 1080),
        "fps": (settings.fps, 5, 60),
        "seconds": (settings.seconds, 1.0, 600.0),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise DataError(f"{name} = {value}: expected {least:g} to {most:g}; correct it")


def _make_chunk(
    run: _Run, chunk: Sequence[list[ReuploadPlan]], apply: Apply, tell: Callable[[int], None]
) -> list[ReuploadPlan]:
    """Footage, then the videos of a chunk that are not there yet; the plans that could be carried out."""
    firsts = [group[0] for group in chunk]
    everything = [plan for group in chunk for plan in group]
    if any(not _is_done(run, plan) for plan in everything):
        _prepare(run, firsts)
    usable = [plan for plan in everything if run.known[plan.original.video_id].ok]
    ready = {plan.video_id: run.known[plan.video_id] for plan in firsts if run.known[plan.video_id].ok}
    final = _settled(usable, ready)
    missing = [plan for plan in final if not is_written(run.out / plan.file_name)]
    tell(len(everything) - len(missing))
    for _ in _render(run, missing, ready, apply):
        tell(1)
    shutil.rmtree(run.out / WORK, ignore_errors=True)
    return final


def _is_done(run: _Run, plan: ReuploadPlan) -> bool:
    footage = run.known.get(plan.original.video_id)
    return footage is not None and (not footage.ok or is_written(run.out / plan.file_name))


def _prepare(run: _Run, firsts: Sequence[ReuploadPlan]) -> None:
    """Decode the chunk's originals in limited workers; what is known to be of no use is not tried again."""
    (run.out / WORK).mkdir(parents=True, exist_ok=True)
    known = {video for video, footage in run.known.items() if not footage.ok}
    items = [
        (plan.video_id, plan.original.uri, footage_name(plan.video_id)) for plan in firsts if plan.video_id not in known
    ]
    work = partial(prepare, run.root, run.out / WORK, run.frames, run.limits)
    found = limited_map(work, items, answer=FOOTAGE, failed=failed, limits=run.limits, workers=run.workers)
    for (video_id, uri, _), footage in zip(items, found, strict=True):
        # which clip it is about is for us to say, not for the worker
        run.known[video_id] = replace(footage, video_id=video_id, uri=uri)
    remember(run.out, run.known)


def _settled(usable: Sequence[ReuploadPlan], ready: Mapping[str, Footage]) -> list[ReuploadPlan]:
    sound = {video: footage.has_sound for video, footage in ready.items()}
    creators = {plan.original.video_id: plan.original.creator_id for plan in usable}
    return [settled(plan, sound, creators) for plan in usable]


def _render(run: _Run, missing: Sequence[ReuploadPlan], ready: Mapping[str, Footage], apply: Apply) -> Iterator[str]:
    # lazy: drawing and FFmpeg are needed only where clips are made
    from coefvq.simulation.reupload.render import Job, render

    files = {video: run.out / WORK / footage_name(video) for video in ready}
    jobs = [Job(plan, ready[plan.original.video_id], files) for plan in missing]
    yield from apply(partial(render, run.out, run.out / WORK, run.frames.fps), jobs)


def _summary(made: Sequence[ReuploadPlan], skipped: Sequence[Footage]) -> Summary:
    copies = [plan for plan in made if plan.label]
    own = [plan for plan in made if not plan.label]
    kinds = Counter(edit.kind for plan in copies for edit in plan.edits)
    return Summary(len(own), len(copies), sum(bool(plan.edits) for plan in own), dict(sorted(kinds.items())), skipped)
