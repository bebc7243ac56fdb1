"""One clip looked at, in a limited worker: hash, container facts, does it decode."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from coefvq.config import MediaLimits
from coefvq.data import remote
from coefvq.data.locations import file_stamp
from coefvq.data.media.decode import decode_audio, decode_frames, stream_info
from coefvq.data.media.probe_cache import Facts, peek
from coefvq.data.media.video_hash import video_hash
from coefvq.errors import MediaError
from coefvq.files import sha256_file, sha256_json

#: raise it when the same bytes and limits would give another Probe
PROBE_VERSION = 2


# uniform frames include the first and the last, so a clip that breaks off is noticed; 128 px is what PDQ wants
_PROBE_FRAMES, _PROBE_SIZE = 4, 128


# longer sound cannot fail later: what does not decode is left out
_PROBE_AUDIO_SECONDS = 5.0


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
class Task:
    """A clip that has to be looked at; ``known`` is what a URL's earlier version gave."""

    place: str
    stamp: str
    known: tuple[str, Probe] | None = None


@dataclass(frozen=True)
class Answer:
    """What a worker found, and the stamp of what it looked at (empty: nothing to remember it by)."""

    probe: Probe
    stamp: str


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know; ``key`` stands for everything that results depend on."""

    limits: MediaLimits
    cache: Path | None
    key: str


def rejected(reason: str, *, sha256: str = "", size: int | None = None) -> Probe:
    """The probe of a clip that is no use."""
    return Probe(sha256, False, reason, size)


def probe_settings(limits: MediaLimits, cache: Path | None) -> Settings:
    """What a worker is told, with the key under which its answers are remembered."""
    return Settings(limits, cache, sha256_json([PROBE_VERSION, version("av"), limits.model_dump()]))


def remembered_probe(facts: Facts) -> Probe | None:
    """Facts of the cache as they were put there; None if they are damaged, and the clip is looked at again."""
    try:
        known = facts.keys() == {field.name for field in fields(Probe)}
        return _probes().validate_python(facts) if known else None
    except (ValidationError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _probes() -> TypeAdapter[Probe]:
    return TypeAdapter(Probe)


def content_key(place: str, sha256: str) -> str:
    """Place in the cache of a clip's content."""
    # FFmpeg looks at the name's suffix too
    return f"sha256:{sha256}{remote.suffix(place)}"


def inspect(task: Task, settings: Settings) -> Answer:
    """Runs in a worker: fetch if need be, hash, decode."""
    if remote.is_url(task.place):
        return _inspect_remote(task, settings)
    path = Path(task.place)
    try:
        probe = _look(path, task.place, settings)
        # written to meanwhile: the answer holds, but for which state of the file nobody knows
        unchanged = file_stamp(path.stat()) == task.stamp
    except OSError:
        return Answer(rejected("missing"), "")  # gone meanwhile, or not readable
    return Answer(probe, task.stamp if unchanged else "")


def _inspect_remote(task: Task, settings: Settings) -> Answer:
    present = ""
    try:
        if settings.cache is None:
            raise MediaError("unreachable", "no cache folder to fetch into")
        present = remote.version(task.place, settings.limits)
        if present and task.known is not None and task.known[0] == present:
            return Answer(task.known[1], present)
        path = remote.fetch(task.place, settings.cache, settings.limits)
    except MediaError as error:
        return Answer(rejected(error.reason), present)
    return Answer(_look(path, task.place, settings), present)


def _look(path: Path, place: str, settings: Settings) -> Probe:
    digest, size = sha256_file(path), path.stat().st_size
    known = None if settings.cache is None else peek(settings.cache, settings.key, content_key(place, digest))
    if known is not None and (probe := remembered_probe(known)) is not None:
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
