"""Decode for several processes at once: each takes chunks of clips that no other is at.

Ranks of a training, or trainings that start together, share one clip store. Without claims each would decode the whole
of it. A clip that does not decode is tried by each of them, as each must know about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from coefvq.compute.workers import LimitedPool
from coefvq.data.media.clip_entry import REMEDY
from coefvq.data.media.clips import ClipStore
from coefvq.errors import MediaError
from coefvq.files import claim, private_folder, sha256_json, storage_errors
from coefvq.records import VideoInput

_CHUNK = 32  # clips that one process takes at a time
_LOCKS = 1024  # lock files at most; two chunks with one lock merely wait for each other


def fill_together(
    store: ClipStore, videos: Sequence[VideoInput], workers: int, progress: Callable[[int], None] = lambda _: None
) -> dict[int, MediaError]:
    """As ``ClipStore.try_fill``, beside other processes that fill the same store with the same videos.

    Raises:
        StorageError: the store cannot be written.
    """
    chunks = [range(at, min(at + _CHUNK, len(videos))) for at in range(0, len(videos), _CHUNK)]
    failed: dict[int, MediaError] = {}
    with LimitedPool(store.limits, workers) as pool:

        def fill(rows: range) -> None:
            errors = store.try_fill([videos[row] for row in rows], workers, progress, pool)
            failed.update({rows[at]: error for at, error in errors.items()})

        # first what nobody else is at, then the rest as it becomes free
        for rows in list(_claimed(store, videos, chunks, fill, wait=False)):
            list(_claimed(store, videos, [rows], fill, wait=True))
    return failed


def _claimed(
    store: ClipStore,
    videos: Sequence[VideoInput],
    chunks: Sequence[range],
    fill: Callable[[range], None],
    *,
    wait: bool,
) -> Iterator[range]:
    """Fill chunk after chunk; yields those that another process is at."""
    folder = store.root / "claims"
    for rows in chunks:
        # named by its clips, so that every process calls the same chunk the same
        digest = sha256_json([[videos[row].sha256, str(videos[row].path)] for row in rows])
        with storage_errors(store.root, REMEDY):
            private_folder(folder)
            lock = claim(folder / f"{int(digest[:8], 16) % _LOCKS}.lock", wait=wait)
        if lock is None:
            yield rows
            continue
        try:
            fill(rows)
        finally:
            lock.release()
