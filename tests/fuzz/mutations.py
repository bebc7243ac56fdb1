"""Ways to damage a valid clip; each is a pure function of a seeded generator and bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from tests.fuzz.formats import boxes, patched

Mutation = Callable[[Random, bytes], bytes]
_EXTREMES = (0, 1, 7, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def bit_flips(rng: Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 4, 32, 256))):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def header_flips(rng: Random, data: bytes) -> bytes:
    """As ``bit_flips``, in the first 2 KB only, where most of what parsers believe is written."""
    return bit_flips(rng, data[:2048]) + data[2048:]


def zeroed(rng: Random, data: bytes) -> bytes:
    length = rng.randrange(1, len(data) // 2)
    return patched(data, rng.randrange(len(data) - length), bytes(length))


def random_run(rng: Random, data: bytes) -> bytes:
    length = rng.randrange(1, len(data) // 4)
    return patched(data, rng.randrange(len(data) - length), rng.randbytes(length))


def truncated(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(1, len(data))]


def header_only(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(8, 1024)]


def duplicated(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 4096)]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start:]


def swapped(rng: Random, data: bytes) -> bytes:
    cuts = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[: cuts[0]] + data[cuts[1] : cuts[2]] + data[cuts[0] : cuts[1]] + data[cuts[2] :]


def headless(rng: Random, data: bytes) -> bytes:
    return data[rng.randrange(1, len(data) // 2) :]


def extreme_word(rng: Random, data: bytes) -> bytes:
    """Four bytes somewhere in the first or last 4 KB become an extreme number."""
    places = [*range(min(4096, len(data) - 4)), *range(max(0, len(data) - 4096), len(data) - 4)]
    return patched(data, rng.choice(places), struct.pack(rng.choice("<>") + "I", rng.choice(_EXTREMES)))


def box_size(rng: Random, data: bytes) -> bytes:
    """One box claims a size that is 0, 1, tiny, huge, or reaches over its neighbours."""
    _, offset, size = rng.choice(list(boxes(data)))
    claimed = rng.choice((*_EXTREMES, size + rng.randrange(1, 4096), max(0, size - rng.randrange(1, size))))
    return patched(data, offset, struct.pack(">I", claimed))


def box_field(rng: Random, data: bytes) -> bytes:
    """A number in a table or header box becomes extreme: counts, durations, time scales, picture sizes."""
    wanted = (
        b"stts",
        b"stsz",
        b"stsc",
        b"stco",
        b"ctts",
        b"stss",
        b"tkhd",
        b"mvhd",
        b"mdhd",
        b"stsd",
        b"elst",
        b"hdlr",
    )
    found = [entry for entry in boxes(data) if entry[0] in wanted]
    _, offset, size = rng.choice(found or list(boxes(data)))
    place = offset + 8 + 4 * rng.randrange(max(1, (size - 8) // 4))
    return patched(data, place, struct.pack(">I", rng.choice(_EXTREMES)))


ANY: tuple[Mutation, ...] = (
    bit_flips,
    header_flips,
    zeroed,
    random_run,
    truncated,
    header_only,
    duplicated,
    swapped,
    headless,
    extreme_word,
)
MP4: tuple[Mutation, ...] = (box_size, box_field)
