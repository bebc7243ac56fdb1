"""Tensors of a .pth file from before 2020, read without running anything.

Such a file is a pickle, a list of storage keys, then the raw storages. ``torch.load`` would execute the pickle.
Here its opcodes are walked as data: a global stays a name, a call stays a pair of name and arguments, and only
calls of torch's ``_rebuild_tensor_v2`` are understood.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from coefvq.errors import ModelError

_KINDS = {"torch FloatStorage": np.float32, "torch LongStorage": np.int64, "torch HalfStorage": np.float16}
_MARK = object()
_HEADER_PICKLES = 3  # magic number, protocol, system


def read_legacy_state(data: bytes, name: str = "model.pth") -> dict[str, npt.NDArray[Any]]:
    """State dict of a legacy .pth file as numpy arrays.

    Raises:
        ModelError: the file is cut, or holds anything but tensors.
    """
    stream = io.BytesIO(data)
    try:
        for _ in range(_HEADER_PICKLES):
            _read_value(stream)
        entries, keys = _read_value(stream), _read_value(stream)
        storages = _read_storages(stream, entries, keys)
        return {key: _tensor(call, storages) for key, call in _items(entries)}
    except (KeyError, IndexError, TypeError, ValueError, struct.error) as error:
        raise ModelError(f"{name}: not a state dict of plain tensors ({error}); fetch the weights again") from error


def _items(entries: Any) -> list[tuple[str, Any]]:
    # state_dict() is an OrderedDict: a call without arguments whose items are set afterwards
    return [(key, call) for key, call in entries["items"] if isinstance(key, str) and isinstance(call, dict)]


def _storage_facts(call: dict[str, Any]) -> tuple[str, Any, int]:
    _, kind, key, _, count, *_ = call["arguments"][0]["persistent"]
    return key, np.dtype(_KINDS[kind]), count


def _read_storages(stream: io.BytesIO, entries: Any, keys: Any) -> dict[str, npt.NDArray[Any]]:
    facts = {key: (kind, count) for key, kind, count in (_storage_facts(call) for _, call in _items(entries))}
    storages = {}
    for key in keys["items"]:
        kind, count = facts[key]
        (stored,) = struct.unpack("<q", stream.read(8))
        raw = stream.read(count * kind.itemsize)
        if stored != count or len(raw) != count * kind.itemsize:
            raise ValueError(f"storage {key} is cut")
        storages[key] = np.frombuffer(raw, kind)
    return storages


def _tensor(call: dict[str, Any], storages: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if call["call"] != "torch._utils _rebuild_tensor_v2":
        raise ValueError(f"calls {call['call']}")
    _, offset, shape, stride, *_ = call["arguments"]
    key, kind, _ = _storage_facts(call)
    # numpy refuses strides that lead out of the buffer
    return np.ndarray(
        shape, kind, storages[key], offset * kind.itemsize, tuple(step * kind.itemsize for step in stride)
    )


class _Walker:
    """A stack and a memo; every opcode moves plain values, none calls anything."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def _to_mark(self) -> list[Any]:
        place = max(i for i, value in enumerate(self.stack) if value is _MARK)
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name.startswith("BININT") or name in ("BINUNICODE", "GLOBAL", "LONG1"):
            self.stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name.startswith("TUPLE"):
            self._tuple(name)
        else:
            _ACTIONS[name](self)

    def _tuple(self, name: str) -> None:
        if name == "TUPLE":
            values = self._to_mark()
        else:
            count = int(name[-1])
            values, self.stack[-count:] = self.stack[-count:], []
        self.stack.append(tuple(values))

    def call(self) -> None:
        """REDUCE: kept as a description of the call."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append({"call": function, "arguments": arguments, "items": []})

    def persistent(self) -> None:
        """BINPERSID: a reference to a storage."""
        self.stack.append({"persistent": self.stack.pop()})

    def set_items(self) -> None:
        """SETITEMS."""
        values = self._to_mark()
        self.stack[-1]["items"] += list(zip(values[::2], values[1::2], strict=True))

    def set_item(self) -> None:
        """SETITEM."""
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1]["items"].append((key, value))

    def append(self) -> None:
        """APPENDS."""
        values = self._to_mark()
        self.stack[-1]["items"] += values

    def build(self) -> None:
        """BUILD: attributes of the dict (its metadata) are of no use."""
        self.stack.pop()


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWFALSE": lambda: False,
    "NEWTRUE": lambda: True,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": lambda: {"items": []},
    "EMPTY_LIST": lambda: {"items": []},
}
_ACTIONS: dict[str, Callable[[_Walker], None]] = {
    "PROTO": lambda _: None,
    "REDUCE": _Walker.call,
    "BINPERSID": _Walker.persistent,
    "SETITEMS": _Walker.set_items,
    "SETITEM": _Walker.set_item,
    "APPENDS": _Walker.append,
    "BUILD": _Walker.build,
}


def _read_value(stream: io.BytesIO) -> Any:
    walker = _Walker()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return walker.stack[-1]
        walker.step(opcode.name, argument)
    raise ValueError("no end")
