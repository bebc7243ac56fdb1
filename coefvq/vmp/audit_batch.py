"""Labels of a draw as a batch of training data: a table that `coefvq ingest` and `data snapshot` read.

Each video has the weight 1 / inclusion probability, so that the batch stands for the stream it was drawn from.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from coefvq.errors import DataError
from coefvq.files import ROOM, atomic_path, storage_errors
from coefvq.records import label_column
from coefvq.vmp.audit_store import Draw
from coefvq.vmp.log import EventLog


def write_batch(log: EventLog, draw: Draw, target: Path) -> tuple[int, int]:
    """Write ``target``, a CSV table; return how many videos it has, and how many are left out as deleted since.

    Raises:
        DataError: no video of the draw is left.
        StorageError: the disk is full, or the folder may not be written.
    """
    events = log.newest(draw.labels)
    there = {video_id for video_id, event in events.items() if event.kind == "upsert"}
    rows = [row for row in draw.drawn if row.video_id in draw.labels and row.video_id in there]
    if not rows:
        raise DataError(f"audit draw {draw.number}: none of its labelled videos is left; draw again")
    fields = ["file_name", "video_id", label_column(draw.issue), "weight", "title", "stickers", "views", "sha256",
              "published_at"]  # fmt: skip
    with (
        storage_errors(target, ROOM),
        atomic_path(target, private=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(fields)
        for row in rows:
            event = events[row.video_id]
            stickers = json.dumps(event.stickers, ensure_ascii=False)
            writer.writerow([event.uri, row.video_id, draw.labels[row.video_id], repr(1.0 / row.probability),
                             event.title, stickers, event.views, event.sha256, event.published_at])  # fmt: skip
    return len(rows), len(draw.labels) - len(rows)
