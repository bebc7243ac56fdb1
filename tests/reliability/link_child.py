"""A worker of a state that waits for leave before each batch, and before each transaction begins and ends.

Usage: python -m tests.reliability.link_child STATE
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coefvq.vmp import loop
from coefvq.vmp.database import Connection, Parameters, Result
from coefvq.vmp.state import open_state
from tests.reliability.vmp_child import frozen, scorer, step
from tests.vmp_world import fixed

BATCH_SIZE = 8


@dataclass
class Stepped:
    """A connection that reports where a transaction begins and ends."""

    inner: Connection

    def execute(self, sql: str, parameters: Parameters = ()) -> Result:
        if sql in ("BEGIN", "COMMIT"):
            step(sql)
        return self.inner.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def main(state: Path) -> None:
    with loop.stop_on_signals() as stop, open_state(state) as (log, index):
        index = replace(index, database=replace(index.database, connection=Stepped(index.database.connection)))
        loop.run(log, fixed(scorer), index, stop=stop, on_batch=lambda report: None, batch_size=BATCH_SIZE, once=True,
                 clock=frozen)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
