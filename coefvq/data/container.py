"""Open a file from a stranger: known formats and codecs only, nothing beyond the limits, no other file or host.

What a header claims is checked before a decoder sees a byte; what it conceals is checked while packets are
walked. What may still crash or hang runs in a limited process (``workers``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.config import MediaLimits
from coefvq.errors import MediaError

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

# container formats a short-video platform receives; "file" is the only protocol, so playlists that
# point at other files or hosts are refused by the demuxer list and the protocol list alike
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"
_VIDEO_CODECS = "h264,hevc,av1,vp8,vp9,mpeg4,mpeg1video,mpeg2video,h263,mjpeg,theora,flv1,msmpeg4v3"
_AUDIO_CODECS = (
    "aac,aac_latm,mp3,mp2,mp1,opus,vorbis,flac,alac,ac3,eac3,amr_nb,amr_wb,speex,wmav2,nellymoser,pcm_s16le,"
    "pcm_s16be,pcm_s24le,pcm_s32le,pcm_f32le,pcm_u8,pcm_mulaw,pcm_alaw,adpcm_ima_wav,adpcm_ms"
)
# decoders whose name is not their codec's; FFmpeg opens decoders already to find out what a stream is
_DECODERS = "libdav1d,flv,msmpeg4,mp3float,mp2float,mp1float,amrnb,amrwb"
# Hz; resampling a stream that claims less would make memory out of nothing
_SAMPLE_RATES = range(4_000, 384_001)


@contextmanager
def opened(path: Path, limits: MediaLimits) -> Iterator[InputContainer]:
    """The file as a container that holds an accepted video stream and stays within what headers can tell.

    Raises:
        MediaError: it does not, or FFmpeg gives up on it within the ``with`` block.
    """
    import av

    _check_file(path, limits)
    try:
        with av.open(str(path), options=_options(limits)) as container:
            _check_header(container, path, limits)
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError, ValueError, OSError, OverflowError, ZeroDivisionError) as error:
        if isinstance(error, MemoryError):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0].replace(f": {str(path)!r}", "")
        raise MediaError(
            "undecodable", f"{path}: cannot be decoded ({first}); re-encode it or delete the row"
        ) from error


def above(reason: str, path: Path, found: str, key: str) -> MediaError:
    """The error of a clip that exceeds ``ingest.limits.<key>``."""
    return MediaError(reason, f"{path}: {found} is above ingest.limits.{key}; raise the limit or delete the row")


def check_pixels(width: int, height: int, path: Path, limits: MediaLimits) -> None:
    """Refuse a frame that is too large."""
    if width * height > limits.megapixels * 1e6:
        raise above("too_many_pixels", path, f"{width} x {height} pixels", "megapixels")


def duration(container: InputContainer) -> float:
    """Seconds of the video stream, or of the file where the stream does not say; 0 where neither does."""
    stream = container.streams.video[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def video_decoder(container: InputContainer, limits: MediaLimits) -> Any:
    """Codec context of the video stream, on one thread; frames far above the limit are an error to it."""
    codec = container.streams.video[0].codec_context
    codec.thread_count = 1
    codec.options = {"max_pixels": _max_pixels(limits)}
    return codec


def packets(container: InputContainer, stream: Any, path: Path, limits: MediaLimits) -> Iterator[Packet]:
    """Packets of a stream that carry data, as long as their number and the span of their times are within limits."""
    longest = limits.seconds / float(stream.time_base) if stream.time_base else float("inf")
    first, last = float("inf"), float("-inf")
    for number, packet in enumerate(container.demux(stream)):
        if number >= limits.frames:
            raise above("too_many_frames", path, f"more than {limits.frames} packets of {stream.type}", "frames")
        if packet.pts is not None:
            first, last = min(first, packet.pts), max(last, packet.pts)
            if last - first > longest:
                raise above("too_long", path, f"the span of its {stream.type} packets", "seconds")
        if packet.size:
            yield packet


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
        "codec_whitelist": ",".join([_VIDEO_CODECS, _AUDIO_CODECS, _DECODERS]),
        # FFmpeg reports a stream too many as a lack of memory, so its own bound lies above ours
        "max_streams": str(max(1000, limits.streams + 1)),
        "max_pixels": _max_pixels(limits),
    }


def _max_pixels(limits: MediaLimits) -> str:
    # twice the limit: a frame in between gets its proper reason from check_pixels, beyond it the decoder gives up
    return str(round(2e6 * limits.megapixels))


def _check_header(container: InputContainer, path: Path, limits: MediaLimits) -> None:
    if len(container.streams) > limits.streams:
        raise above("too_many_streams", path, f"more than {limits.streams} streams", "streams")
    if not container.streams.video:
        raise MediaError("no_video", f"{path}: holds no video stream; delete the row")
    video = container.streams.video[0]
    _check_codec(video, _VIDEO_CODECS, path)
    check_pixels(video.width, video.height, path, limits)
    for audio in container.streams.audio[:1]:
        _check_codec(audio, _AUDIO_CODECS, path)
        if audio.rate not in _SAMPLE_RATES:
            raise MediaError("unsupported", f"{path}: sound at {audio.rate} Hz is not accepted; re-encode it")
    if duration(container) > limits.seconds:
        raise above("too_long", path, f"{duration(container):.0f} s", "seconds")


def _check_codec(stream: Any, known: str, path: Path) -> None:
    name = "unknown" if stream.codec_context is None else stream.codec_context.codec.canonical_name
    if name not in known.split(","):
        raise MediaError("unsupported", f"{path}: codec {name} is not accepted; re-encode it as H.264 + AAC")
