"""What a stream gives: messages of partitions, as events with their places, and those that are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from coefvq.vmp.records import Event

#: an event's ``offset`` is one number: the partition above, the offset in it below
_OFFSET_BITS = 48


def place(partition: int, offset: int) -> int:
    """Partition and offset as one number, which is in the order of offsets within a partition.

    Raises:
        ValueError: the number would not fit into 63 bits.
    """
    if not (0 <= partition < 1 << 15 and 0 <= offset < 1 << _OFFSET_BITS):
        raise ValueError(f"partition {partition}, offset {offset}: out of range")
    return partition << _OFFSET_BITS | offset


def partition_and_offset(number: int) -> tuple[int, int]:
    """What ``place`` was made of."""
    return number >> _OFFSET_BITS, number & ((1 << _OFFSET_BITS) - 1)


@dataclass(frozen=True)
class Poison:
    """A message that makes no event, byte for byte as it came; ``produced_at`` is unix time."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    produced_at: float | None = None


@dataclass(frozen=True)
class Span:
    """A piece of a partition: after the batch its next offset is ``end``; it goes on from ``start`` (None: unknown).

    A table's rows have no numbers of their own: they are counted as they come, so two workers number them otherwise.
    ``mark`` is then where the table was read to; a piece that does not go on from where the index stands is void.
    """

    start: int | None
    end: int
    mark: str | None = None

    def first_new(self, reached: int) -> int:
        """The first offset that took no effect yet, where the index has read up to ``reached``."""
        if self.mark is None:
            return reached
        return reached if reached == self.start else self.end


@dataclass(frozen=True)
class Batch:
    """Up to so many messages of one stream, with the piece of each partition that they make up."""

    events: tuple[Event, ...]
    poison: tuple[Poison, ...]
    spans: Mapping[int, Span]


class Stream(Protocol):
    """A source of partitions; where a reader stands is stored with what it has read (``stores/positions.py``)."""

    @property
    def name(self) -> str:
        """What positions and dead events are kept under, such as the topic."""

    def take(self, limit: int) -> Batch | None:
        """The next batch, without waiting for long; the same one again until ``settle`` was called."""

    def settle(self) -> None:
        """The batch that was taken has taken effect."""
