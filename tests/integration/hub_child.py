"""``coefvq`` as one rank, which counts its training batches and may be gone after some of them.

Usage: hub_child.py COUNTS STOP ARGUMENTS...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from coefvq.__main__ import main
from coefvq.training.objective import Monitored

_watch = Monitored._watch


def counting(counts: Path, stop: int) -> None:
    """A line per batch; after ``stop`` of them the process is gone, unless it is 0."""
    done = 0

    def watched(self: Monitored, *given: Any) -> None:
        nonlocal done
        _watch(self, *given)
        done += 1
        with counts.open("a", encoding="utf-8") as stream:
            stream.write(f"{done}\n")
        if done == stop:
            os._exit(9)

    Monitored._watch = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    counting(Path(f"{sys.argv[1]}-{os.environ.get('RANK', '0')}"), int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    main()
