"""Make Python's garbage collector run less often while a command starts and ends."""

from __future__ import annotations

import atexit
import gc

#: container objects made between two collections of the youngest; Python's own is 700
_YOUNGEST = 20_000


def collect_rarely() -> None:
    """Fewer collections while a command imports its libraries, none of what lives when the process ends.

    torch and transformers make hundreds of thousands of objects that stay: a collector that starts after every 700
    walks them for nothing, and walks them all once more at the interpreter's end (docs/performance.md). Cycles are
    still found, some thousand objects later. Exit handlers run as ever; a text file that only a cycle
    holds at the end is not flushed, with this or without.
    """
    gc.set_threshold(_YOUNGEST, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
