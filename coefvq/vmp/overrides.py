"""A person's word about one video. It comes before the verdict until the video's content changes."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from coefvq.errors import DataError
from coefvq.vmp import feed, schema, stored
from coefvq.vmp.database import Connection
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import shown
from coefvq.vmp.log import EventLog
from coefvq.vmp.log_rows import content_digest
from coefvq.vmp.records import IndexEntry

Word = Literal["live", "removed", "model"]
OVERRIDE = "override"


def override(
    log: EventLog, index: IndexStore, video_id: str, word: Word, by: str, reason: str, now: datetime
) -> IndexEntry:
    """Pin a video to ``live`` or ``removed``, or let the models decide again (``model``); return its entry.

    Args:
        log: where the content that the person saw is found.
        index: the store.
        video_id: whose entry; the key.
        word: what readers shall see.
        by: name of the person; not blank.
        reason: why; not blank.
        now: when.

    Raises:
        DataError: the index holds no such video, it was deleted at the source, or nothing was overridden.
    """
    with index.database.transaction() as connection:
        entry = index.get(video_id)
        if entry is None:
            raise DataError(
                f"video '{shown(video_id)}': not in the index; publish it and run, or see `coefvq vmp dlq list`"
            )
        if entry.state == "deleted":
            raise DataError(
                f"video '{shown(video_id)}': deleted at the source; publish it again before you decide about it"
            )
        if word == "model":
            _end(connection, video_id)
        else:
            _pin(connection, video_id, _content(log, index, video_id), (word, by, reason, now.isoformat()))
        feed.mark(connection, video_id)
        said = f"{word} by {by}: {reason}"
        outcome = "removed" if word == "removed" else "live"
        judged = (OVERRIDE, stored.look(connection).at, True, None, None, entry.epoch, entry.rank, entry.bundle_version,
                  outcome, said, None, None)  # fmt: skip
        schema.WRITE_EFFECT.run(connection, [(0, video_id, entry.source_version)], judged)
    found = index.get(video_id)
    return entry if found is None else found


def _content(log: EventLog, index: IndexStore, video_id: str) -> tuple[int, str]:
    """Newest content that the index has seen of the video."""
    seen = index.known([video_id])[video_id].seen_version
    event = log.version(video_id, seen)
    if event is None:
        raise DataError(f"video '{shown(video_id)}': version {seen} is not in the log; restore the log from a copy")
    return seen, content_digest(event)


def _pin(connection: Connection, video_id: str, seen: tuple[int, str], word: tuple[str, str, str, str]) -> None:
    connection.execute(
        "INSERT INTO overrides (video_id, source_version, content, state, by, reason, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (video_id) DO UPDATE SET "
        "source_version = excluded.source_version, content = excluded.content, state = excluded.state, "
        "by = excluded.by, reason = excluded.reason, at = excluded.at",
        (video_id, *seen, *word),
    )


def _end(connection: Connection, video_id: str) -> None:
    ended = connection.execute("DELETE FROM overrides WHERE video_id = ?", (video_id,))
    if ended.rowcount == 0:
        raise DataError(f"video '{shown(video_id)}': nobody overrode it; `coefvq vmp get` shows its state")
