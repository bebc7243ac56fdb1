"""Readers of the two binary formats that no library here reads: CTranslate2 models and packed 4-bit e5.

Both are plain tables of named arrays. Sizes are checked before anything is read, so a cut or forged file
ends in an error, not in a wild allocation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coefvq.errors import ModelError

# CTranslate2's data types in the order of its enumeration (ctranslate2/types.h)
_CT2_TYPES: tuple[type[np.generic] | None, ...] = (np.float32, np.int8, np.int16, np.int32, np.float16, None)
_CT2_VERSION = 6
_BLOCK = 32


class Cursor:
    """Reads little-endian values from bytes and refuses to run past their end."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._data = data
        self._name = name
        self.offset = 0

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes.

        Raises:
            ModelError: fewer are left.
        """
        end = self.offset + size
        if size < 0 or end > len(self._data):
            raise ModelError(f"{self._name}: ends in the middle of its data; fetch the weights again")
        piece = self._data[self.offset : end]
        self.offset = end
        return piece

    def unpack(self, layout: str) -> Any:
        """One value of a ``struct`` layout."""
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0]

    def array(self, kind: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` values as an array that shares the file's bytes."""
        return np.frombuffer(self.take(np.dtype(kind).itemsize * count), dtype=kind)


def read_ctranslate2(data: bytes, name: str = "model.bin") -> dict[str, npt.NDArray[Any]]:
    """All variables of a CTranslate2 model file, by name (format: ctranslate2/specs/model_spec.py).

    Raises:
        ModelError: another version, an unknown type, or a cut file.
    """
    cursor = Cursor(memoryview(data), name)
    if (version := cursor.unpack("I")) != _CT2_VERSION:
        raise ModelError(f"{name}: CTranslate2 format {version}, expected {_CT2_VERSION}; fetch the weights again")
    _text(cursor)  # name of the specification
    cursor.unpack("I")  # its revision
    tensors = {}
    for _ in range(cursor.unpack("I")):
        key = _text(cursor)
        shape = tuple(cursor.unpack("I") for _ in range(cursor.unpack("B")))
        code, size = cursor.unpack("B"), cursor.unpack("I")
        kind = _CT2_TYPES[code] if code < len(_CT2_TYPES) else None
        if kind is None or int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize != size:
            raise ModelError(f"{name}: variable {key!r} has an unknown type or a wrong size; fetch the weights again")
        tensors[key] = cursor.array(kind, size // np.dtype(kind).itemsize).reshape(shape)
    return tensors


def _text(cursor: Cursor) -> str:
    return bytes(cursor.take(cursor.unpack("H"))).rstrip(b"\0").decode("utf-8")


@dataclass(frozen=True)
class PackedE5:
    """An e5 text encoder: sizes, tensors as float32, and its unigram vocabulary as (piece, score)."""

    sizes: dict[str, int]
    tensors: dict[str, npt.NDArray[np.float32]]
    pieces: list[tuple[str, float]]
    special: dict[str, int]
    normalisation: dict[str, str]


def read_e5(data: bytes, name: str = "e5-small-q4.bin") -> PackedE5:
    """An e5 model in the "E5S1" container; 4-bit rows (Q4_0: fp16 scale, 32 nibbles) are dequantised.

    Raises:
        ModelError: another format or a cut file.
    """
    cursor = Cursor(memoryview(data), name)
    if bytes(cursor.take(4)) != b"E5S1":
        raise ModelError(f"{name}: not an E5S1 file; fetch the weights again")
    cursor.unpack("I")  # version
    keys = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types")
    sizes = {key: cursor.unpack("i") for key in keys}
    cursor.unpack("f")  # layer norm epsilon
    cursor.unpack("i")  # block size
    count = cursor.unpack("i")
    special = {key: cursor.unpack("i") for key in ("bos", "eos", "pad", "unk")}
    pieces = _pieces(cursor, count)
    normalisation = _normalisation(cursor)
    return PackedE5(sizes, _e5_tensors(cursor, data, name), pieces, special, normalisation)


def _pieces(cursor: Cursor, count: int) -> list[tuple[str, float]]:
    length = cursor.unpack("Q")
    ends = cursor.array(np.uint32, count + 1)
    scores = cursor.array(np.float32, count)
    blob = bytes(cursor.take(length))
    texts = [blob[a:b].decode("utf-8") for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
    return list(zip(texts, scores.tolist(), strict=True))


def _normalisation(cursor: Cursor) -> dict[str, str]:
    count = cursor.unpack("i")
    cursor.unpack("I")  # bytes that follow
    table = {}
    for _ in range(count):
        source = chr(cursor.unpack("I"))
        table[source] = "".join(map(chr, cursor.array(np.uint32, cursor.unpack("B")).tolist()))
    return table


def _e5_tensors(cursor: Cursor, data: bytes, name: str) -> dict[str, npt.NDArray[np.float32]]:
    tensors = {}
    for _ in range(cursor.unpack("i")):
        key = bytes(cursor.take(cursor.unpack("H"))).decode("ascii")
        code, count = cursor.unpack("B"), cursor.unpack("I")
        offset, size = cursor.unpack("Q"), cursor.unpack("Q")
        raw = Cursor(memoryview(data)[offset:], name).take(size)
        tensors[key] = dequantise_q4(raw, count) if code else np.frombuffer(raw, np.float32)
    return tensors


def dequantise_q4(raw: memoryview, count: int) -> npt.NDArray[np.float32]:
    """Q4_0 blocks (18 bytes: fp16 scale, 16 bytes of two nibbles) -> float32 [count]."""
    blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))]))[: count // _BLOCK]
    low = (blocks["nibbles"] & 0x0F).astype(np.int8) - 8
    high = (blocks["nibbles"] >> 4).astype(np.int8) - 8
    values = np.concatenate([low, high], axis=1).astype(np.float32)
    scaled: npt.NDArray[np.float32] = (values * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return scaled
