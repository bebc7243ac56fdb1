"""Make glibc's malloc keep freed memory, for processes that allocate large tensors over and over."""

from __future__ import annotations

import ctypes
import os

# of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 2**30  # bytes of one block; larger ones still go back to the kernel
_NEVER = 2**31 - 1  # bytes at the heap's end above which it would be cut: a C int's largest


def keep_freed_memory() -> bool:
    """Keep freed blocks of up to 1 GiB in the process. Returns False if the setting is not supported.

    By default a block above 32 MiB, such as a batch's activations, is given back to the kernel at once, which clears
    every page anew at the next one: docs/performance.md has what that costs. The peak stays the same; between peaks
    the process holds on to it. Left alone where the environment tunes malloc itself, and where there is no glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
