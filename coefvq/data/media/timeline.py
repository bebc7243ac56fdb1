"""When each frame of a clip is shown, measured from its packets, and which frames lie evenly in time.

A header's word is not taken: duration and order follow from the packets. A clock that starts again (recordings
joined end to end) or jumps (a pause, a wrapped counter) begins a new part; parts keep the order of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter

import numpy as np
import numpy.typing as npt

Ticks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PacketInfo:
    """One packet; times in the stream's time base, None if unknown, ``duration`` 0 if unknown.

    ``keyframe``: decoding may start here.
    """

    pts: int | None
    keyframe: bool
    shown: bool = True
    dts: int | None = None
    duration: int = 0


@dataclass(frozen=True)
class Timeline:
    """Frames in the order in which they are shown.

    ``order`` holds packet numbers (decoding order), ``starts`` when each is shown and ``end`` when the last one
    goes, in ticks from the first. ``parts``: how many stretches with a clock of their own; 0 where no times are known.
    """

    order: tuple[int, ...]
    starts: Ticks
    end: int
    parts: int


def timeline(packets: Sequence[PacketInfo], longest: int) -> Timeline:
    """Order and times of the shown ``packets`` (decoding order).

    A step of the clock above ``longest`` ticks is no frame's time on the screen, unless its packet says so.
    """
    parts = [shown for part in _parts(packets, longest) if (shown := [i for i in part if packets[i].shown])]
    for clock in (_by_presentation, _by_decoding):
        told = [clock(packets, part) for part in parts]
        if None not in told:
            pairs = [pair for part in told for pair in part or ()]
            order, times = [index for index, _ in pairs], [time for _, time in pairs]
            starts, end = _continuous(times, [packets[index].duration for index in order], longest)
            return Timeline(tuple(order), starts, end, len(parts))
    order = [index for part in parts for index in part]
    ends = np.cumsum([0, *(packets[index].duration for index in order)], dtype=np.int64)
    return Timeline(tuple(order), ends[:-1], int(ends[-1]), 0)


def is_break(step: int, stated: int, longest: int) -> bool:
    """Whether a clock that moves by ``step`` after a packet of duration ``stated`` is not the same clock any more."""
    return step < 0 or step > max(longest, stated)


def uniform_indices(count: int, frames: int) -> list[int]:
    """``frames`` indices spread over ``0 … count - 1``, both ends included."""
    return [int(i) for i in np.linspace(0, count - 1, frames).round()]


def uniform_in_time(starts: Ticks, end: int, frames: int) -> list[int]:
    """Numbers of the frames on the screen at ``frames`` evenly spread times; the first and the last are included.

    ``starts`` ascend from 0. Where each frame lies within half a frame of a constant rate, these are
    ``uniform_indices``, so that rounded or jittering times change nothing. Otherwise the times run from half a
    (typical) frame after the start to half a frame before the end.
    """
    lengths = np.diff(starts, append=end)
    if len(starts) < 2 or _is_constant(starts, int(lengths[-1])):
        return uniform_indices(len(starts), frames)
    typical = float(np.median(lengths[lengths > 0]))
    margins = [min(float(length), typical) / 2 for length in (lengths[0], lengths[-1])]
    times = np.linspace(margins[0], end - margins[1], frames)
    return [int(i) for i in np.searchsorted(starts, times, side="right") - 1]


def _is_constant(starts: Ticks, last: int) -> bool:
    numbers = np.arange(len(starts))
    # least squares: the two ends alone may jitter
    rate = max(float(np.polyfit(numbers, starts, 1)[0]), 0.0)
    strayed = np.ptp(starts - rate * numbers)
    # two ticks: what rounding to the time base does at very high rates
    return bool(strayed <= max(rate, 2.0) and 0.1 * rate <= last <= max(2 * rate, 2.0))


def _parts(packets: Sequence[PacketInfo], longest: int) -> list[list[int]]:
    """Numbers of the packets, cut where the decoding clock breaks."""
    parts: list[list[int]] = [[]]
    last: PacketInfo | None = None
    for index, packet in enumerate(packets):
        if packet.dts is not None:
            if last is not None and is_break(packet.dts - (last.dts or 0), last.duration, longest):
                parts.append([])
            last = packet
        parts[-1].append(index)
    return parts


def _by_presentation(packets: Sequence[PacketInfo], part: Sequence[int]) -> list[tuple[int, int]] | None:
    """(packet, time) in the order of presentation; None where the times do not tell it."""
    pairs = [(index, pts) for index in part if (pts := packets[index].pts) is not None]
    if len(pairs) < len(part):
        return None
    if len({pts for _, pts in pairs}) == len(pairs):
        return sorted(pairs, key=itemgetter(1))
    # two frames of one time: fine as long as the stored order is that of the times
    return pairs if all(before[1] <= after[1] for before, after in pairwise(pairs)) else None


def _by_decoding(packets: Sequence[PacketInfo], part: Sequence[int]) -> list[tuple[int, int]] | None:
    pairs = [(index, dts) for index in part if (dts := packets[index].dts) is not None]
    return pairs if len(pairs) == len(part) else None


def _continuous(times: Sequence[int], stated: Sequence[int], longest: int) -> tuple[Ticks, int]:
    """Times from 0 on without the clock's breaks, and the end of the last frame."""
    if not times:
        return np.zeros(0, np.int64), 0
    steps = [after - before for before, after in pairwise(times)]
    sound = [not is_break(step, length, longest) for step, length in zip(steps, stated, strict=False)]
    usual = _median([step for step, good in zip(steps, sound, strict=True) if good and step > 0])
    typical = usual or _median([length for length in stated if length > 0])
    steps = [step if good else typical for step, good in zip(steps, sound, strict=True)]
    # the stated length of the last frame counts where the stated lengths of the others were true
    honest = len(times) == 1 or abs(_median(stated[:-1]) - typical) <= typical / 2
    last = stated[-1] if honest and stated[-1] > 0 else typical
    starts = np.cumsum([0, *steps], dtype=np.int64)
    return starts, int(starts[-1]) + last


def _median(values: Sequence[int]) -> int:
    return int(np.median(values)) if len(values) else 0
