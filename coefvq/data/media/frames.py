"""Exactly the frames a full decode would give, for less work.

All packets are read first (cheap), which shows where each wanted frame lies. Then, per wanted frame in
decoding order:

- start at the last keyframe shown no later than it, if that lies ahead of the decoder; else decode on;
- packets in between are sent with ``skip_frame=NONREF``: frames nobody refers to are not decoded;
- only wanted frames are scaled.

Whatever the container claims, a wrong picture must not come out silently: packets without times or with
equal ones, a wanted frame that is missing, a corrupt one, and a picture format that changes on the way make
the whole clip fall back to a full decode. ``bitstream`` looks at what would not be noticed here.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from coefvq.data.media.pictures import Picture
from coefvq.data.media.timeline import PacketInfo, timeline, uniform_in_time

if TYPE_CHECKING:
    from av import Packet


@dataclass(frozen=True)
class Step:
    """Send packets ``start … target`` (decoding order); ``jump``: the decoder is emptied before ``start``."""

    start: int
    target: int
    jump: bool


@dataclass(frozen=True)
class FramePlan:
    """``wanted`` is the pts of each frame asked for, in order (repeats where a clip has too few)."""

    wanted: tuple[int, ...]
    steps: tuple[Step, ...]


def plan(packets: Sequence[PacketInfo], frames: int, longest: int = sys.maxsize) -> FramePlan | None:
    """Which packets to send for ``frames`` frames spread evenly in time; None where the times do not tell.

    ``packets`` are in decoding order; ``longest`` as in ``timeline``.
    """
    times = [packet.pts for packet in packets if packet.pts is not None]
    place = {packet.pts: index for index, packet in enumerate(packets) if packet.shown and packet.pts is not None}
    if not place or len(times) < len(packets) or len(place) < sum(packet.shown for packet in packets):
        return None
    keys = [index for index, packet in enumerate(packets) if packet.keyframe]
    key_times = [times[index] for index in keys]
    shown = timeline(packets, longest)
    if not keys or key_times != sorted(key_times) or shown.parts != 1:
        return None
    wanted = tuple(times[shown.order[i]] for i in uniform_in_time(shown.starts, shown.end, frames))
    targets = sorted(place[pts] for pts in set(wanted))
    return FramePlan(wanted, tuple(_steps(targets, times, keys, key_times)))


def _steps(targets: list[int], times: list[int], keys: list[int], key_times: list[int]) -> list[Step]:
    def entry(target: int) -> int:
        # stored after the keyframe and shown after it; one that is only stored after it leans on earlier frames
        group = min(bisect_right(keys, target), bisect_right(key_times, times[target])) - 1
        return keys[group] if group >= 0 else 0

    # a jump for one frame must not leave behind what a later one needs: hence the least of all entries to come
    entries = list(accumulate((entry(target) for target in reversed(targets)), min))[::-1]
    steps: list[Step] = []
    position = 0  # the next packet that the decoder has not seen
    for target, first in zip(targets, entries, strict=True):
        start = max(first, position)
        steps.append(Step(start, target, jump=start > position))
        position = target + 1
    return steps


def decode_planned(
    codec: Any,
    packets: Sequence[Packet],
    steps: Sequence[Step],
    wanted: frozenset[int],
    scale: Callable[[Any], Picture],
) -> dict[int, Picture] | None:
    """Pictures by pts, or None where a wanted frame is missing, any is corrupt, or the picture format changes.

    ``codec`` is a fresh codec context of the stream the packets come from.
    """
    found: dict[int, Picture] = {}
    formats: set[tuple[int, int, str]] = set()

    def keep(frames: Sequence[Any]) -> bool:
        for frame in frames:
            formats.add((frame.width, frame.height, frame.format.name))
            # one that nobody asked for counts too: wanted ones may be predicted from it
            if frame.is_corrupt or len(formats) > 1:
                return False
            if frame.pts in wanted and frame.pts not in found:
                found[frame.pts] = scale(frame)
        return True

    for step in steps:
        if step.jump:
            if not keep(codec.decode(None)):
                return None
            codec.flush_buffers()
        codec.skip_frame = "NONREF"
        for packet in packets[step.start : step.target]:
            if not keep(codec.decode(packet)):
                return None
        codec.skip_frame = "DEFAULT"
        if not keep(codec.decode(packets[step.target])):
            return None
    return found if keep(codec.decode(None)) and wanted <= found.keys() else None
