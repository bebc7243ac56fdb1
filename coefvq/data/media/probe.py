"""Look at each clip once, in limited worker processes: hash, container facts, does it decode.

A bad clip gives a row with its reason, never an exception. What a clip's bytes say is remembered
(``probe_cache``), so the next run probes new and changed clips only; what may be otherwise in a minute
(unreachable, missing, timeout, …) is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from coefvq.compute.engines import limited_map
from coefvq.config import MediaLimits
from coefvq.data import remote
from coefvq.data.locations import Root, file_stamp, locate
from coefvq.data.media.probe_cache import ProbeCache, open_cache
from coefvq.data.media.probe_worker import (
    Answer,
    Probe,
    Settings,
    Task,
    content_key,
    inspect,
    probe_settings,
    rejected,
    remembered_probe,
)
from coefvq.errors import MediaError

#: reasons that follow from the bytes and the limits, and from nothing else
_LASTING = frozenset(
    {"ok", "empty", "no_video", "undecodable", "unsupported", "truncated", "too_large", "too_long"}
    | {"too_many_pixels", "too_many_streams", "too_many_frames"}
)
# a pool of workers lives for one window; a window ends when it has this many clips to probe, or rows
_WINDOW_PROBES, _WINDOW_ROWS = 4096, 16_384

Engine = Literal["local", "ray"]


_ANSWER = TypeAdapter(Answer)


def expect(probe: Probe, sha256: str | None) -> Probe:
    """Reject a clip whose bytes are not those the user's table promises."""
    if sha256 is None or not probe.sha256 or probe.sha256 == sha256:
        return probe
    return rejected("changed", sha256=probe.sha256, size=probe.size_bytes)


def probe_all(
    uris: Iterable[str],
    root: Path,
    *,
    limits: MediaLimits,
    workers: int,
    engine: Engine = "local",
    protocols: tuple[str, ...] = (),
    cache: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Probe]:
    """Probe clips in order, ``workers`` at a time, in memory that does not grow with their number.

    ``uris`` are paths below ``root``, or URLs whose scheme is one of ``protocols``. ``cache`` is the
    folder that holds results and copies of remote clips; without it remote clips are unreachable.
    """
    base, settings = root.resolve(), probe_settings(limits, cache)
    if cache is None:
        yield from _stream(uris, base, settings, protocols, workers, engine, None, progress)
        return
    with open_cache(cache, settings.key) as known:
        yield from _stream(uris, base, settings, protocols, workers, engine, known, progress)


def _stream(
    uris: Iterable[str],
    base: Path,
    settings: Settings,
    protocols: tuple[str, ...],
    workers: int,
    engine: Engine,
    cache: ProbeCache | None,
    progress: Callable[[int], None],
) -> Iterator[Probe]:
    work = partial(inspect, settings=settings)
    plans = (_plan(uri, base, settings.limits, protocols, cache) for uri in uris)
    for window in _windows(plans):
        tasks = [plan for plan in window if isinstance(plan, Task)]
        answers: Iterator[Answer] = iter(())
        if tasks:
            answers = limited_map(
                work, tasks, answer=_ANSWER, failed=_failed, limits=settings.limits, workers=workers, engine=engine
            )
        for plan in window:
            probe = plan if isinstance(plan, Probe) else _remembered(plan, next(answers), cache)
            progress(1)
            yield probe


def _windows(plans: Iterator[Probe | Task]) -> Iterator[list[Probe | Task]]:
    window: list[Probe | Task] = []
    tasks = 0
    for plan in plans:
        window.append(plan)
        tasks += isinstance(plan, Task)
        if tasks == _WINDOW_PROBES or len(window) == _WINDOW_ROWS:
            yield window
            window, tasks = [], 0
    if window:
        yield window


def _plan(
    uri: str, base: Path, limits: MediaLimits, protocols: tuple[str, ...], cache: ProbeCache | None
) -> Probe | Task:
    """What can be said at once, or what has to be looked at."""
    if not remote.is_url(uri) and not remote.is_below(uri):
        return rejected("outside_root")  # even where it comes back in: a manifest's paths are plain
    try:
        found = locate(uri, Root(base, protocols))
    except MediaError as error:
        return rejected(error.reason)
    if found.path is None or found.facts is None:
        return Task(uri, "", _recall(cache, uri))
    place, facts = str(found.path), found.facts
    if facts.st_size > limits.megabytes * 2**20:
        return rejected("too_large", size=facts.st_size)
    stamp = file_stamp(facts)
    known = _recall(cache, place)
    return known[1] if known is not None and known[0] == stamp else Task(place, stamp)


def _recall(cache: ProbeCache | None, place: str) -> tuple[str, Probe] | None:
    found = None if cache is None else cache.get(place)
    probe = None if found is None else remembered_probe(found[1])
    return None if found is None or probe is None else (found[0], probe)


def _remembered(task: Task, answer: Answer, cache: ProbeCache | None) -> Probe:
    probe = answer.probe
    if cache is not None and answer.stamp and probe.reason in _LASTING:
        cache.put(task.place, answer.stamp, asdict(probe))
        if probe.sha256:
            cache.put(content_key(task.place, probe.sha256), "", asdict(probe))
    return probe


def _failed(_: Task, reason: str) -> Answer:
    return Answer(rejected(reason), "")
