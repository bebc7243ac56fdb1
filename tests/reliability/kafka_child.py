"""A worker on a topic as a child process: it says ``taken`` and ``stored`` for each batch and waits for leave.

Usage: python -m tests.reliability.kafka_child CONFIG (effect|commit): what comes first. ``commit`` is the control:
it writes down where it stands before the batch has taken effect, and starts from there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from coefvq.vmp import loop
from coefvq.vmp.configuration import Configuration, KafkaSource, load_configuration
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.loop import Stop
from coefvq.vmp.sources.batches import Batch, Span, Stream
from coefvq.vmp.sources.engines import open_source, place_store, reading_of
from coefvq.vmp.sources.inbox import Inbox
from coefvq.vmp.sources.kafka import KafkaStream
from coefvq.vmp.state import open_state
from coefvq.vmp.stores.tables import make_tables
from tests.reliability.vmp_child import frozen, scorer, step
from tests.vmp_world import fixed

BATCH_SIZE = 64


@dataclass
class Reported:
    """A stream that reports each batch before anything is done with it; with ``committed`` it is the control."""

    stream: Stream
    committed: Path | None = None

    @property
    def name(self) -> str:
        return self.stream.name

    def take(self, limit: int) -> Batch | None:
        batch = self.stream.take(limit)
        if batch is not None and self.committed is not None:
            with self.committed.open("a") as out:
                out.writelines(f"{number} {span.end}\n" for number, span in batch.spans.items())
            # the inbox would see the gap
            spans = {number: Span(None, span.end) for number, span in batch.spans.items()}
            batch = replace(batch, spans=spans)
        if batch is not None:
            step("taken")
        return batch

    def settle(self) -> None:
        self.stream.settle()


def read_positions(path: Path, numbers: Sequence[int]) -> dict[int, int]:
    rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    return {int(number): int(end) for number, end in rows if int(number) in numbers}


@contextmanager
def opened(
    settings: Configuration, log: EventLog, index: IndexStore, stop: Stop, control: Path | None
) -> Iterator[Inbox]:
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if control is None:
        with open_source(settings, log, index, stop=stop, once=True, say=say, on_poison=say_stored) as (inbox, _):
            assert isinstance(inbox, Inbox)
            inbox.stream = Reported(inbox.stream)
            yield inbox
        return
    source = settings.source
    assert isinstance(source, KafkaSource)
    make_tables(index.database)
    with KafkaStream(source, reading_of(source), lambda numbers: read_positions(control, numbers), stop=stop, once=True,
                     say=say) as stream:  # fmt: skip
        yield Inbox(Reported(stream, control), index, source.group, frozen, on_poison=say_stored)


def say_stored(report: object) -> None:
    step("stored")


def main(config: Path, first: str) -> None:
    settings = load_configuration(config)
    place_store(settings.store)
    control = config.with_name("positions.txt") if first == "commit" else None
    with (
        loop.stop_on_signals() as stop,
        open_state(settings.store.state) as (log, index),
        opened(settings, log, index, stop, control) as inbox,
    ):
        loop.run(inbox, fixed(scorer), inbox, stop=stop, on_batch=say_stored, batch_size=BATCH_SIZE, once=True,
                 clock=frozen)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
