"""Labels of a draw as a batch of training data: a table that `coefvq ingest` and `data snapshot` read.

Each video has the weight 1 / inclusion probability, so that the batch stands for the stream it was drawn from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coefvq.errors import DataError
from coefvq.files import write_csv
from coefvq.records import label_column
from coefvq.vmp.audit_draws import Drawn
from coefvq.vmp.audit_store import Draw
from coefvq.vmp.keys import split
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import Event


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
    fields = ("file_name", "video_id", label_column(draw.issue), "weight", "title", "stickers", "views", "sha256",
              "published_at")  # fmt: skip
    write_csv(target, fields, (_cells(draw, row, events[row.video_id]) for row in rows))
    return len(rows), len(draw.labels) - len(rows)


def _cells(draw: Draw, row: Drawn, event: Event) -> tuple[Any, ...]:
    stickers = json.dumps(event.stickers, ensure_ascii=False)
    weight = repr(1.0 / row.probability)
    return (event.uri, split(row.video_id)[1], draw.labels[row.video_id], weight, event.title, stickers, event.views,
            event.sha256, event.published_at)  # fmt: skip
