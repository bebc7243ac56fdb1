"""malloc's setting, counted in page faults: the kernel clears no page twice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# 4 times 64 MiB, above the 32 MiB from which malloc always maps: 16,384 pages of 4 KiB each
COUNT = """
import ctypes, resource, sys
from coefvq.compute.freed_memory import keep_freed_memory
set_ = keep_freed_memory() if sys.argv[1] == "kept" else None
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def fill():
    block = libc.malloc(ctypes.c_size_t(2**26))
    ctypes.memset(block, 1, 2**26)
    libc.free(ctypes.c_void_p(block))
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill()
print(set_, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[str, int]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], env=plain | environment, capture_output=True, text=True, check=True
    )
    told, count = done.stdout.split()
    return told, int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_blocks_are_used_again() -> None:
    told, kept = faults("kept")
    _, given_back = faults("plain")
    assert told == "True"
    # huge pages of 2 MiB, where the kernel gives them, are 32 faults a block
    assert given_back >= 4 * 32
    assert kept < 32


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_the_users_own_tuning_stays() -> None:
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
