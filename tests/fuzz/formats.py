"""Just enough of MP4 and Matroska to write what no encoder would."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf", b"moof", b"traf", b"mvex"}


def box(kind: bytes, payload: bytes = b"", size: int | None = None) -> bytes:
    """An MP4 box; ``size`` is what it claims, if not the truth."""
    return struct.pack(">I", len(payload) + 8 if size is None else size) + kind + payload


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset, length) of each box of an honest MP4 file, parents before children."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        if size < 8 or start + size > end:
            return
        yield kind, start, size
        if kind in _PARENTS:
            yield from boxes(data, start + 8, start + size)
        start += size


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def replaced(data: bytes, old: tuple[bytes, int, int], new: bytes) -> bytes:
    """The file with one box (an entry of ``boxes``) exchanged and the sizes of those around it made right."""
    _, at, size = old
    for kind, offset, length in list(boxes(data)):
        if kind in _PARENTS and offset < at and at + size <= offset + length:
            data = patched(data, offset, struct.pack(">I", length + len(new) - size))
    return data[:at] + new + data[at + size :]


def nested_boxes(depth: int, kind: bytes = b"moov") -> bytes:
    """A box in a box in a box."""
    return box(b"ftyp", b"isom\0\0\0\0isom") + b"".join(
        struct.pack(">I", 8 * (depth - level)) + kind for level in range(depth)
    )


def compressed_moov(data: bytes, claimed: int, inflated: int) -> bytes:
    """The clip's moov replaced by zlib of zeros (``inflated`` bytes) that claims to hold ``claimed``."""
    squeezed = zlib.compress(bytes(inflated), 9)
    moov = box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", claimed) + squeezed)))
    return data[: next(offset for kind, offset, _ in boxes(data) if kind == b"moov")] + moov


def element(code: int, payload: bytes, size: int | None = None) -> bytes:
    """An EBML element with an eight-byte length; ``size`` is what it claims, if not the truth."""
    length = len(payload) if size is None else size
    return code.to_bytes((code.bit_length() + 7) // 8, "big") + struct.pack(">Q", length | 1 << 56) + payload


def number(code: int, value: int) -> bytes:
    return element(code, value.to_bytes(8, "big"))


def matroska(tracks: bytes, blocks: bytes, extra: bytes = b"") -> bytes:
    """A Matroska file: ``tracks`` are TrackEntry elements, ``blocks`` SimpleBlock elements."""
    head = element(0x1A45DFA3, element(0x4282, b"matroska") + number(0x4287, 4) + number(0x4285, 2))
    info = element(0x1549A966, number(0x2AD7B1, 1_000_000))
    cluster = element(0x1F43B675, number(0xE7, 0) + blocks)
    return head + element(0x18538067, info + extra + element(0x1654AE6B, tracks) + cluster)


def track(index: int, kind: int, codec: bytes, extra: bytes = b"") -> bytes:
    """A TrackEntry; ``kind`` 1 video, 2 audio, 17 subtitles."""
    return element(
        0xAE, number(0xD7, index) + number(0x73C5, index) + number(0x83, kind) + element(0x86, codec) + extra
    )


def video_settings(width: int, height: int) -> bytes:
    return element(0xE0, number(0xB0, width) + number(0xBA, height))


def zlib_settings() -> bytes:
    """Says that a track's blocks are compressed with zlib."""
    return element(0x6D80, element(0x6240, number(0x5033, 0) + element(0x5034, number(0x4254, 0))))


def block(index: int, time: int, payload: bytes) -> bytes:
    return element(0xA3, bytes([0x80 | index]) + struct.pack(">hB", time % 32768, 0x80) + payload)


def sps(width: int, height: int) -> bytes:
    """H.264 sequence parameters (baseline profile) that announce a picture size."""
    bits = "01000010" + "00000000" + "00011110"  # profile, constraints, level
    fields = [0, 0, 0, 0, 1]  # id, log2 max frame number, order type and its bits, reference frames
    bits += "".join(_golomb(value) for value in fields) + "0"
    bits += _golomb(width // 16 - 1) + _golomb(height // 16 - 1) + "1" + "1" + "0" + "0" + "1"
    bits += "0" * (-len(bits) % 8)
    return b"\x67" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def _golomb(value: int) -> str:
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits
