"""Look at each clip once, in limited worker processes: hash, container facts, does it decode.

A bad clip gives a row with its reason, never an exception. What a clip's bytes say is remembered
(``probe_cache``), so the next run probes new and changed clips only; what may be otherwise in a minute
(unreachable, missing, timeout, …) is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from coefvq.compute.engines import limited_map
from coefvq.config import MediaLimits
from coefvq.data import remote
from coefvq.data.locations import Root, file_stamp, locate
from coefvq.data.media.decode import decode_audio, decode_frames, stream_info
from coefvq.data.media.probe_cache import Facts, ProbeCache, open_cache, peek
from coefvq.data.splits.near_duplicates import video_hash
from coefvq.errors import MediaError
from coefvq.files import sha256_file, sha256_json

#: raise it when the same bytes and limits would give another Probe
PROBE_VERSION = 2
# uniform frames include the first and the last, so a clip that breaks off is noticed; 128 px is what PDQ wants
_PROBE_FRAMES, _PROBE_SIZE = 4, 128
# longer sound cannot fail later: what does not decode is left out
_PROBE_AUDIO_SECONDS = 5.0
#: reasons that follow from the bytes and the limits, and from nothing else
_LASTING = frozenset(
    {"ok", "empty", "no_video", "undecodable", "unsupported", "truncated", "too_large", "too_long"}
    | {"too_many_pixels", "too_many_streams", "too_many_frames"}
)
# a pool of workers lives for one window; a window ends when it has this many clips to probe, or rows
_WINDOW_PROBES, _WINDOW_ROWS = 4096, 16_384

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Probe:
    """One clip's facts; ``reason`` is from records.REASONS.

    ``audio_ok``: whether its sound can be read; None without sound. ``hdr``: "pq", "hlg" or None.
    """

    sha256: str
    decode_ok: bool
    reason: str
    size_bytes: int | None = None
    phash: str = ""
    duration_s: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    has_audio: bool = False
    audio_ok: bool | None = None
    hdr: str | None = None


@dataclass(frozen=True)
class _Task:
    """A clip that has to be looked at; ``known`` is what a URL's earlier version gave."""

    place: str
    stamp: str
    known: tuple[str, Probe] | None = None


@dataclass(frozen=True)
class _Answer:
    """What a worker found, and the stamp of what it looked at (empty: nothing to remember it by)."""

    probe: Probe
    stamp: str


_ANSWER = TypeAdapter(_Answer)


@dataclass(frozen=True)
class _Settings:
    """What a worker needs to know; ``key`` stands for everything that results depend on."""

    limits: MediaLimits
    cache: Path | None
    key: str


def rejected(reason: str, *, sha256: str = "", size: int | None = None) -> Probe:
    """The probe of a clip that is no use."""
    return Probe(sha256, False, reason, size)


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
    base, settings = root.resolve(), _settings(limits, cache)
    if cache is None:
        yield from _stream(uris, base, settings, protocols, workers, engine, None, progress)
        return
    with open_cache(cache, settings.key) as known:
        yield from _stream(uris, base, settings, protocols, workers, engine, known, progress)


def _settings(limits: MediaLimits, cache: Path | None) -> _Settings:
    return _Settings(limits, cache, sha256_json([PROBE_VERSION, version("av"), limits.model_dump()]))


def _stream(
    uris: Iterable[str],
    base: Path,
    settings: _Settings,
    protocols: tuple[str, ...],
    workers: int,
    engine: Engine,
    cache: ProbeCache | None,
    progress: Callable[[int], None],
) -> Iterator[Probe]:
    work = partial(_inspect, settings=settings)
    plans = (_plan(uri, base, settings.limits, protocols, cache) for uri in uris)
    for window in _windows(plans):
        tasks = [plan for plan in window if isinstance(plan, _Task)]
        answers: Iterator[_Answer] = iter(())
        if tasks:
            answers = limited_map(
                work, tasks, answer=_ANSWER, failed=_failed, limits=settings.limits, workers=workers, engine=engine
            )
        for plan in window:
            probe = plan if isinstance(plan, Probe) else _remembered(plan, next(answers), cache)
            progress(1)
            yield probe


def _windows(plans: Iterator[Probe | _Task]) -> Iterator[list[Probe | _Task]]:
    window: list[Probe | _Task] = []
    tasks = 0
    for plan in plans:
        window.append(plan)
        tasks += isinstance(plan, _Task)
        if tasks == _WINDOW_PROBES or len(window) == _WINDOW_ROWS:
            yield window
            window, tasks = [], 0
    if window:
        yield window


def _plan(
    uri: str, base: Path, limits: MediaLimits, protocols: tuple[str, ...], cache: ProbeCache | None
) -> Probe | _Task:
    """What can be said at once, or what has to be looked at."""
    if not remote.is_url(uri) and not remote.is_below(uri):
        return rejected("outside_root")  # even where it comes back in: a manifest's paths are plain
    try:
        found = locate(uri, Root(base, protocols))
    except MediaError as error:
        return rejected(error.reason)
    if found.path is None or found.facts is None:
        return _Task(uri, "", _recall(cache, uri))
    place, facts = str(found.path), found.facts
    if facts.st_size > limits.megabytes * 2**20:
        return rejected("too_large", size=facts.st_size)
    stamp = file_stamp(facts)
    known = _recall(cache, place)
    return known[1] if known is not None and known[0] == stamp else _Task(place, stamp)


def _recall(cache: ProbeCache | None, place: str) -> tuple[str, Probe] | None:
    found = None if cache is None else cache.get(place)
    probe = None if found is None else _as_probe(found[1])
    return None if found is None or probe is None else (found[0], probe)


def _as_probe(facts: Facts) -> Probe | None:
    """Facts of the cache as they were put there; None if they are damaged, and the clip is looked at again."""
    try:
        known = facts.keys() == {field.name for field in fields(Probe)}
        return _probes().validate_python(facts) if known else None
    except (ValidationError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _probes() -> TypeAdapter[Probe]:
    return TypeAdapter(Probe)


def _remembered(task: _Task, answer: _Answer, cache: ProbeCache | None) -> Probe:
    probe = answer.probe
    if cache is not None and answer.stamp and probe.reason in _LASTING:
        cache.put(task.place, answer.stamp, asdict(probe))
        if probe.sha256:
            cache.put(_content(task.place, probe.sha256), "", asdict(probe))
    return probe


def _content(place: str, sha256: str) -> str:
    # FFmpeg looks at the name's suffix too
    return f"sha256:{sha256}{remote.suffix(place)}"


def _failed(_: _Task, reason: str) -> _Answer:
    return _Answer(rejected(reason), "")


def _inspect(task: _Task, settings: _Settings) -> _Answer:
    """Runs in a worker: fetch if need be, hash, decode."""
    if remote.is_url(task.place):
        return _inspect_remote(task, settings)
    path = Path(task.place)
    try:
        probe = _look(path, task.place, settings)
        # written to meanwhile: the answer holds, but for which state of the file nobody knows
        unchanged = file_stamp(path.stat()) == task.stamp
    except OSError:
        return _Answer(rejected("missing"), "")  # gone meanwhile, or not readable
    return _Answer(probe, task.stamp if unchanged else "")


def _inspect_remote(task: _Task, settings: _Settings) -> _Answer:
    present = ""
    try:
        if settings.cache is None:
            raise MediaError("unreachable", "no cache folder to fetch into")
        present = remote.version(task.place, settings.limits)
        if present and task.known is not None and task.known[0] == present:
            return _Answer(task.known[1], present)
        path = remote.fetch(task.place, settings.cache, settings.limits)
    except MediaError as error:
        return _Answer(rejected(error.reason), present)
    return _Answer(_look(path, task.place, settings), present)


def _look(path: Path, place: str, settings: _Settings) -> Probe:
    digest, size = sha256_file(path), path.stat().st_size
    known = None if settings.cache is None else peek(settings.cache, settings.key, _content(place, digest))
    if known is not None and (probe := _as_probe(known)) is not None:
        return probe
    try:
        return replace(_decoded(path, settings.limits), sha256=digest, size_bytes=size)
    except MediaError as error:
        return rejected(error.reason, sha256=digest, size=size)


def _decoded(path: Path, limits: MediaLimits) -> Probe:
    info = stream_info(path, limits)
    facts = Probe("", True, "ok", **asdict(info))
    if info.duration_s > limits.seconds:
        return replace(facts, decode_ok=False, reason="too_long")
    frames = decode_frames(path, _PROBE_FRAMES, _PROBE_SIZE, limits)
    heard = decode_audio(path, _PROBE_AUDIO_SECONDS, limits).size > 0 if info.has_audio else None
    return replace(facts, phash=video_hash(frames), audio_ok=heard)
