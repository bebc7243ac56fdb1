"""Which streams of a file count: the picture and the sound that a player would choose.

Everything that reads a clip asks here, so that its facts, its frames and its sound are those of the same streams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from coefvq.errors import MediaError

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoStream
    from av.container import InputContainer
    from av.stream import Stream

VIDEO_CODECS = "h264,hevc,av1,vp8,vp9,mpeg4,mpeg1video,mpeg2video,h263,mjpeg,theora,flv1,msmpeg4v3"
AUDIO_CODECS = (
    "aac,aac_latm,mp3,mp2,mp1,opus,vorbis,flac,alac,ac3,eac3,amr_nb,amr_wb,speex,wmav2,nellymoser,pcm_s16le,"
    "pcm_s16be,pcm_s24le,pcm_s32le,pcm_f32le,pcm_u8,pcm_mulaw,pcm_alaw,adpcm_ima_wav,adpcm_ms"
)
# Hz; resampling a stream that claims less would make memory out of nothing
_SAMPLE_RATES = range(4_000, 384_001)
# a decoder with B-frames or a lead-in needs some packets before it shows anything
_TRIAL_PACKETS = 64

Opener = Callable[[], AbstractContextManager["InputContainer"]]
_AnyStream = TypeVar("_AnyStream", bound="Stream")


def video_stream(container: InputContainer, path: Path, reopen: Opener) -> VideoStream:
    """The stream that shows the clip.

    Attached pictures (cover art, thumbnails) never count. Of the streams with an accepted codec, one that decodes
    and holds more than one frame goes first, then one with the default flag, then the order in the file.
    ``reopen`` opens the file anew; it is called only where there are several candidates.

    Raises:
        MediaError: no video stream (``no_video``), or none with an accepted codec (``unsupported``).
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not moving:
        found = "only cover art (an attached picture)" if container.streams.video else "no video stream"
        raise MediaError("no_video", f"{path}: holds {found}; delete the row")
    accepted = _accepted(_ranked(moving), VIDEO_CODECS)
    if not accepted:
        name = codec_name(_ranked(moving)[0])
        raise MediaError("unsupported", f"{path}: codec {name} is not accepted; re-encode it as H.264 + AAC")
    return _best(accepted, reopen)


def audio_stream(container: InputContainer, reopen: Opener) -> AudioStream | None:
    """The stream that is heard: chosen as ``video_stream`` does, None where none can be read."""
    accepted = _accepted(_ranked(container.streams.audio), AUDIO_CODECS)
    return _best([s for s in accepted if is_sane_rate(s.rate)], reopen) if accepted else None


def is_sane_rate(rate: int) -> bool:
    """Whether a sample rate (Hz) is one that sound is recorded at."""
    return rate in _SAMPLE_RATES


def codec_name(stream: Any) -> str:
    """FFmpeg's canonical name of a stream's codec."""
    return "unknown" if stream.codec_context is None else str(stream.codec_context.codec.canonical_name)


def decode_or_none(codec: Any, packet: Packet | None) -> list[Any] | None:
    """Frames that a packet completes (None: the last ones); None where FFmpeg cannot decode it.

    Players leave such a packet out and go on, and so do we: one bad packet in a file does not make it useless.
    """
    from av.error import FFmpegError

    try:
        return list(codec.decode(packet))
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return None


def _accepted(streams: Sequence[_AnyStream], known: str) -> list[_AnyStream]:
    return [stream for stream in streams if codec_name(stream) in known.split(",")]


def _ranked(streams: Sequence[_AnyStream]) -> list[_AnyStream]:
    """Default streams first; comments and tracks for people who do not see or hear after the others."""
    from av.stream import Disposition

    aside = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.descriptions

    def rank(stream: _AnyStream) -> tuple[bool, bool]:
        return not stream.disposition & Disposition.default, bool(stream.disposition & aside)

    return sorted(streams, key=rank)


def _best(ranked: Sequence[_AnyStream], reopen: Opener) -> Any:
    if len(ranked) < 2:
        return ranked[0] if ranked else None
    with reopen() as container:
        packets, frames = _trial(container, [stream.index for stream in ranked])
    # a single packet is a poster, whatever its flags say
    return min(ranked, key=lambda stream: (not frames[stream.index], packets[stream.index] < 2))


def _trial(container: InputContainer, ranked: Sequence[int]) -> tuple[Counter[int], Counter[int]]:
    """Packets and decoded frames by stream index; ends as soon as the first of ``ranked`` has shown itself."""
    packets: Counter[int] = Counter()
    frames: Counter[int] = Counter()
    for packet in container.demux([container.streams[index] for index in ranked]):
        index = packet.stream_index
        packets[index] += packet.size > 0
        if not frames[index] and packets[index] <= _TRIAL_PACKETS:
            frames[index] += len(decode_or_none(packet.stream.codec_context, packet) or [])
        if frames[ranked[0]] and packets[ranked[0]] > 1:
            break
    return packets, frames
