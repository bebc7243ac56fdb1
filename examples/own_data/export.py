"""Make what a database export looks like: rendered clips and a clips.csv with column names of its own.

    python examples/own_data/export.py FOLDER [--videos 160] [--first 0]

The clips come from the synthetic world; names, absolute paths, hashtags and `t`/`f` labels are as people export them.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from coefvq.simulation.synthetic.generate import generate

PREVALENCE = {"icd": 0.3, "ucc": 0.3}
COLUMNS = (
    *("id", "filepath", "caption", "hashtags", "uploader_id", "created_at", "play_count"),
    *("is_violent", "is_repost"),
)


def export(folder: Path, videos: int, first: int = 0, seed: int = 7) -> Path:
    """Render clips ``first`` and on below ``folder`` and write ``clips.csv`` beside them; returns the table."""
    clips = folder.resolve()
    generate(clips, videos, seed, PREVALENCE, workers=2, first_index=first)
    with (clips / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    (clips / "metadata.csv").unlink()
    table = folder / "clips.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(_row(number, row, clips) for number, row in enumerate(rows, first))
    return table


def _row(number: int, row: dict[str, str], clips: Path) -> tuple[object, ...]:
    hashtags = " ".join(f"#{text.replace(' ', '')}" for text in json.loads(row["stickers"] or "[]"))
    day = f"2026-{1 + number // 28 % 12:02d}-{1 + number % 28:02d} 08:{number % 60:02d}:00"
    return (
        *(1000 + number, clips / row["file_name"], row["title"], hashtags),
        *(row["creator_id"], day, row["views"]),
        *("t" if row["label_icd"] == "1" else "f", row["label_ucc"]),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=160)
    parser.add_argument("--first", type=int, default=0, help="number of the first clip: another batch starts later")
    given = parser.parse_args()
    print(export(given.folder, given.videos, given.first))
