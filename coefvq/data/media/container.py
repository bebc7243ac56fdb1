"""Open a file from a stranger: known formats and codecs only, nothing beyond the limits, no other file or host.

What a header claims is checked before a decoder sees a byte; what it conceals is checked while packets are
walked. What may still crash or hang runs in a limited process (``workers``).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coefvq.config import MediaLimits
from coefvq.data.media.colour import Colours
from coefvq.data.media.streams import AUDIO_CODECS, VIDEO_CODECS, audio_stream, video_stream
from coefvq.data.media.timeline import is_break
from coefvq.errors import MediaError

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoStream
    from av.container import InputContainer
    from av.stream import Stream

# container formats a short-video platform receives; "file" is the only protocol, so playlists that
# point at other files or hosts are refused by the demuxer list and the protocol list alike
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"
# decoders whose name is not their codec's; FFmpeg opens decoders already to find out what a stream is
_DECODERS = "libdav1d,flv,msmpeg4,mp3float,mp2float,mp1float,amrnb,amrwb"
# seconds; a longer step of the clock is a break of it, unless the packet says that its frame lasts so long.
# MPEG allows breaks in the middle of a stream (ISO/IEC 13818-1, 2.7); a still screen may last a minute elsewhere
_LONGEST_STEP, _LONGEST_STEP_MPEG = 60, 10
_MPEG = ("mpegts", "mpeg")
# formats whose header states a duration that FFmpeg reads
_STATED = ("mov", "matroska")
# bytes: as broadcast, with a time stamp (M2TS), with error correction
_TS_PACKETS = (188, 192, 204)
# how much a file may be shorter than its header says: seconds, share
_SLACK_SECONDS, _SLACK = 0.5, 0.05


@dataclass(frozen=True)
class OpenClip:
    """An open file and the stream in it that shows the clip."""

    path: Path
    limits: MediaLimits
    container: InputContainer
    video: VideoStream
    colours: Colours

    def choose_sound(self) -> AudioStream | None:
        """The stream that is heard; None where there is none, or none that can be read."""
        return audio_stream(self.container, partial(_open, self.path, self.limits))

    def longest_step(self, stream: Stream) -> int:
        """Ticks of a stream after which a step of its clock is a break."""
        seconds = _LONGEST_STEP_MPEG if self.container.format.name in _MPEG else _LONGEST_STEP
        return round(seconds / stream.time_base) if stream.time_base else sys.maxsize


@contextmanager
def opened(path: Path, limits: MediaLimits) -> Iterator[OpenClip]:
    """The file as a container that holds an accepted video stream and stays within what headers can tell.

    Raises:
        MediaError: it does not, or FFmpeg gives up on it within the ``with`` block.
    """
    import av

    _check_file(path, limits)
    try:
        with _open(path, limits) as container:
            if len(container.streams) > limits.streams:
                raise above("too_many_streams", path, f"more than {limits.streams} streams", "streams")
            video = video_stream(container, path, partial(_open, path, limits))
            check_pixels(video.width, video.height, path, limits)
            yield OpenClip(path, limits, container, video, _colours(video))
    except (av.error.FFmpegError, UnicodeDecodeError, ValueError, OSError, OverflowError, ZeroDivisionError) as error:
        if isinstance(error, MemoryError):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0].replace(f": {_address(path)!r}", "")
        raise MediaError(
            "undecodable", f"{path}: cannot be decoded ({first}); re-encode it or delete the row"
        ) from error


def _colours(stream: VideoStream) -> Colours:
    codec = stream.codec_context
    return Colours(codec.color_trc, codec.color_primaries, codec.colorspace)


def _open(path: Path, limits: MediaLimits) -> InputContainer:
    import av

    container: InputContainer = av.open(_address(path), options=_options(limits))
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1
            # frames far above the limit are an error to the decoder
            stream.codec_context.options = {"max_pixels": _max_pixels(limits)}
    return container


def _address(path: Path) -> str:
    # a name may look like a URL (12:30.mp4, http:x.mp4); what follows "file:" is a path, to the letter
    return f"file:{path.absolute()}"


def above(reason: str, path: Path, found: str, key: str) -> MediaError:
    """The error of a clip that exceeds ``ingest.limits.<key>``."""
    return MediaError(reason, f"{path}: {found} is above ingest.limits.{key}; raise the limit or delete the row")


def check_pixels(width: int, height: int, path: Path, limits: MediaLimits) -> None:
    """Refuse a frame that is too large."""
    if width * height > limits.megapixels * 1e6:
        raise above("too_many_pixels", path, f"{width} x {height} pixels", "megapixels")


def video_packets(clip: OpenClip) -> Iterator[Packet]:
    """Packets of the video stream that carry data; their number and their time are held to the limits.

    Raises:
        MediaError: above a limit, or, after the last packet, ``truncated``: the file breaks off.
    """
    stated, streams = _stated(clip)
    times = {stream.index: array("q") for stream in streams}
    packets = clip.container.demux(list(streams))
    yield from _within_limits(clip, clip.video, _noted(packets, times) if stated else packets)
    _check_end(clip, stated, times)


def sound_packets(clip: OpenClip, stream: AudioStream) -> Iterator[Packet]:
    """Packets of a sound stream that carry data; their number and their time are held to the limits."""
    yield from _within_limits(clip, stream, clip.container.demux(stream))


def _within_limits(clip: OpenClip, stream: Stream, packets: Iterable[Packet]) -> Iterator[Packet]:
    limits, step, index = clip.limits, clip.longest_step(stream), stream.index
    longest = limits.seconds / float(stream.time_base) if stream.time_base else float("inf")
    number, lasted, clock, stated = 0, 0, None, 0
    for packet in packets:
        if packet.stream_index != index:
            continue
        number += 1
        if number > limits.frames:
            raise above("too_many_frames", clip.path, f"more than {limits.frames} packets of {stream.type}", "frames")
        now = packet.pts if packet.dts is None else packet.dts
        if now is not None:
            if clock is not None and not is_break(now - clock, stated, step):
                lasted += now - clock
            clock, stated = now, packet.duration or 0
            if lasted > longest:
                raise above("too_long", clip.path, f"the time of its {stream.type} packets", "seconds")
        if packet.size:
            yield packet


def _noted(packets: Iterable[Packet], times: Mapping[int, array[int]]) -> Iterator[Packet]:
    """Pass packets on, and note their times and durations by stream, one after the other."""
    for packet in packets:
        pts = packet.pts
        if pts is not None:
            times[packet.stream_index].extend((pts, packet.duration or 0))
        yield packet


def _check_end(clip: OpenClip, stated: float, times: Mapping[int, array[int]]) -> None:
    """Raise ``truncated`` where the file ends long before its header says."""
    path, name = clip.path, clip.container.format.name
    if name == "mpegts" and all(path.stat().st_size % size for size in _TS_PACKETS):
        raise _truncated(path, "the file ends within a transport packet")
    if name == "avi" and path.stat().st_size < _riff_size(path):
        raise _truncated(path, "the header says that the file is larger")
    reached, slack = _reached(clip, times)
    if stated - reached > max(_SLACK_SECONDS, _SLACK * stated, slack):
        raise _truncated(path, f"the header says {stated:.1f} s, the data end after {reached:.1f} s")


def _reached(clip: OpenClip, times: Mapping[int, array[int]]) -> tuple[float, float]:
    """Seconds up to the last packet's end, and how long a last packet may last that does not say so."""
    first, last, slack = float("inf"), 0.0, 0.0
    for stream in clip.container.streams:
        noted = np.array(times.get(stream.index, ()), np.float64).reshape(-1, 2) * float(stream.time_base or 0)
        if not len(noted):
            continue
        first, last = min(first, noted[:, 0].min()), max(last, noted.sum(axis=1).max())
        if stream is clip.video or stream.type == "audio":
            # as long as any before it; a single one that does not say may last for ever
            alone = noted[0, 1] or float("inf")
            slack = max(slack, float(np.abs(np.diff(noted[:, 0])).max(initial=0)) if len(noted) > 1 else alone)
    return max(last, last - first), slack


def _stated(clip: OpenClip) -> tuple[float, Sequence[Stream]]:
    """Seconds that the header states, and of which streams; 0 where it does not.

    FFmpeg's own estimates say nothing.
    """
    name, video, every = clip.container.format.name, clip.video, list(clip.container.streams)
    if name == "flv":
        return _flv_duration(clip.path), every
    if not any(word in name for word in _STATED):
        return 0.0, [video]
    if video.duration is not None and video.time_base is not None:
        return float(video.duration * video.time_base), [video]
    return (clip.container.duration or 0) / 1_000_000, every


def _flv_duration(path: Path) -> float:
    """The number called "duration" in the first tag of an FLV file, or 0."""
    with path.open("rb") as file:
        _, name, rest = file.read(4096).partition(b"\0\x08duration\0")
    value = float(struct.unpack(">d", rest[:8])[0]) if name and len(rest) >= 8 else 0.0
    return value if isfinite(value) else 0.0


def _riff_size(path: Path) -> int:
    """Bytes that the outermost chunk of an AVI file claims, itself included."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8)[4:], "little") + 8


def _truncated(path: Path, found: str) -> MediaError:
    return MediaError("truncated", f"{path}: breaks off ({found}); copy the clip again or delete the row")


def _check_file(path: Path, limits: MediaLimits) -> None:
    if not path.is_file():
        raise MediaError("missing", f"{path}: no such file; correct the path or delete the row")
    size = path.stat().st_size
    if size == 0:
        raise MediaError("empty", f"{path}: empty file; copy the clip again or delete the row")
    if size > limits.megabytes * 1024**2:
        raise above("too_large", path, f"{size / 1024**2:.0f} MB", "megabytes")


def _options(limits: MediaLimits) -> dict[str, str]:
    return {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        "codec_whitelist": ",".join([VIDEO_CODECS, AUDIO_CODECS, _DECODERS]),
        # FFmpeg reports a stream too many as a lack of memory, so its own bound lies above ours
        "max_streams": str(max(1000, limits.streams + 1)),
        "max_pixels": _max_pixels(limits),
    }


def _max_pixels(limits: MediaLimits) -> str:
    # twice the limit: a frame in between gets its proper reason from check_pixels, beyond it the decoder gives up
    return str(round(2e6 * limits.megapixels))
