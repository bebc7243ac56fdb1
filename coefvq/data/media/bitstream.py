"""Facts read from the packets: may a decoder start here, does it show a frame, may it be skipped?

A container's keyframe flag is a claim. Files flag the starts of intra refresh and plain I frames too, after
which a decoder that was just emptied shows pictures that are almost right. So the flag counts only where
the coded data bear it out. A stream in which packets and frames may not pair up, or in which other frames
may depend on those that ``skip_frame=NONREF`` drops, gets no description at all.

Sources: ITU-T H.264 7.4.1 and D.2.8; H.265 7.4.2.2 (table 7-1); VP9 bitstream specification 6.2, annex B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from coefvq.data.media.timeline import PacketInfo

# in other codecs of old files a packet may hold two frames or none
_ONE_FRAME_PER_PACKET = frozenset(["h264", "hevc", "vp9", "av1"])

_H264_SLICES, _H264_IDR, _H264_SEI, _SEI_RECOVERY_POINT = range(1, 6), 5, 6, 6
_HEVC_PICTURES, _HEVC_IRAP, _HEVC_BLA, _HEVC_END_OF_SEQUENCE = range(32), range(16, 24), range(16, 19), 36
_HEVC_SUBLAYER_NON_REFERENCE = range(0, 16, 2)


def describe(codec: str, extradata: bytes | None, packets: Sequence[Any]) -> list[PacketInfo] | None:
    """One description per packet, or None where only a full decode is safe.

    ``codec`` is FFmpeg's canonical name, ``extradata`` the stream's configuration record, ``packets`` are
    ``av.Packet`` in decoding order.
    """
    if codec not in _ONE_FRAME_PER_PACKET or any(packet.is_corrupt for packet in packets):
        return None
    length = _length_size(codec, extradata or b"")
    if codec == "hevc" and not _hevc_is_plain(packets, length):
        return None
    if codec == "vp9" and any(_vp9_is_hidden(bytes(packet)) for packet in packets):
        return None
    return [packet_info(packet, entry=packet.is_keyframe and _is_entry(codec, packet, length)) for packet in packets]


def packet_info(packet: Any, *, entry: bool = False) -> PacketInfo:
    """Times of a packet; ``entry``: decoding may start here."""
    return PacketInfo(packet.pts, entry, not packet.is_discard, packet.dts, packet.duration or 0)


def _is_entry(codec: str, packet: Any, length: int) -> bool:
    """Whether a decoder that starts here shows this frame and all later ones exactly."""
    if codec == "h264":
        return _h264_is_entry(_nal_units(bytes(packet), length))
    if codec == "hevc":
        types = (unit[0] >> 1 & 63 for unit in _nal_units(bytes(packet), length))
        return next((kind in _HEVC_IRAP for kind in types if kind in _HEVC_PICTURES), False)
    return True  # VP9 and AV1 decoders refuse to start anywhere but at a real keyframe


def _h264_is_entry(units: Iterator[bytes]) -> bool:
    recovers = False
    for unit in units:
        kind = unit[0] & 31
        if kind == _H264_SEI:
            recovers = recovers or _recovers_at_once(unit)
        elif kind in _H264_SLICES:
            return kind == _H264_IDR or recovers
    return False


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an SEI unit has a recovery point with recovery_frame_cnt 0 and exact_match_flag 1."""
    data, at = unit.replace(b"\0\0\3", b"\0\0"), 1
    while at + 2 < len(data):  # the last byte is the trailing bit
        kind, at = _sei_number(data, at)
        size, at = _sei_number(data, at)
        if kind == _SEI_RECOVERY_POINT:
            # ue(v) 0 is the bit 1, the flag follows it
            return at < len(data) and data[at] >> 6 == 3
        at += size
    return False


def _sei_number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while at < len(data) and data[at] == 255:
        value, at = value + 255, at + 1
    return (value + data[at] if at < len(data) else value), at + 1


def _hevc_is_plain(packets: Sequence[Any], length: int) -> bool:
    """Whether no frame depends on a sub-layer non-reference picture and no spliced-in part loses frames."""
    top, lowest_skipped = 0, 7
    for packet in packets:
        for unit in _nal_units(bytes(packet), length):
            kind, layer = unit[0] >> 1 & 63, (unit[1] & 7) - 1
            if kind in _HEVC_BLA or kind == _HEVC_END_OF_SEQUENCE:
                return False
            if kind in _HEVC_PICTURES:
                top = max(top, layer)
                if kind in _HEVC_SUBLAYER_NON_REFERENCE:
                    lowest_skipped = min(lowest_skipped, layer)
    # "non-reference" holds within a temporal sub-layer; higher ones may still refer to it
    return lowest_skipped >= top


def _vp9_is_hidden(data: bytes) -> bool:
    """Whether a packet is a lone frame that is not shown; FFmpeg's own muxers put those into superframes."""
    superframe = data[-1] & 0xE0 == 0xC0
    return not superframe and data[0] & 0x30 != 0x30 and data[0] & 0x0A == 0


def _length_size(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each NAL unit; 0 where units begin with start codes."""
    at = {"h264": 4, "hevc": 21}.get(codec, 0)
    return (extradata[at] & 3) + 1 if at and len(extradata) > at and extradata[0] == 1 else 0


def _nal_units(data: bytes, length: int) -> Iterator[bytes]:
    """The NAL units of a packet that are long enough to have a header."""
    units = _split_by_length(data, length) if length else _split_by_start_code(data)
    return (unit for unit in units if len(unit) >= 2)


def _split_by_length(data: bytes, length: int) -> Iterator[bytes]:
    at = 0
    while at + length <= len(data):
        size = int.from_bytes(data[at : at + length], "big")
        yield data[at + length : at + length + size]
        at += length + size


def _split_by_start_code(data: bytes) -> Iterator[bytes]:
    at = data.find(b"\0\0\1")
    while at >= 0:
        end = data.find(b"\0\0\1", at + 3)
        yield data[at + 3 : end if end >= 0 else len(data)]
        at = end
