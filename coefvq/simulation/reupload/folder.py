"""The output folder of simulated re-uploads: its marker, what is known of the input, its tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coefvq.config import MediaLimits
from coefvq.data.importers import ImportedTable
from coefvq.errors import DataError, MediaError
from coefvq.files import atomic_path, read_json, sha256_file, sha256_json, write_json
from coefvq.simulation.reupload.footage import Footage, located
from coefvq.simulation.reupload.plan import ReuploadPlan, window

#: raise it when any clip would come out differently
VERSION = 1
MARKER = ".reupload.json"
ORIGINALS = "originals.json"
WORK = ".footage"
COLUMNS = (
    *("file_name", "video_id", "title", "stickers", "creator_id", "source_id", "published_at", "views"),
    *("label_ucc", "edits", "start_s", "end_s"),
)


def check_folders(source: Path, out: Path, workers: int) -> None:
    """Refuse an output that a second run would read as input.

    Raises:
        DataError: ``out`` is a file, or lies in ``source`` or around it; or there are no workers.
    """
    if workers < 1:
        raise DataError(f"workers = {workers}: expected a whole number of at least 1; correct it")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the new data set")
    inner, outer = out.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DataError(f"{out}: overlaps the input {source}; give a folder elsewhere")


def claim(out: Path, made_from: Mapping[str, Any]) -> None:
    """Make ``out`` ours: empty, or holding only what ``made_from`` describes.

    Raises:
        DataError: it holds files that are not from here.
    """
    # clips made by another encoder or another font are not the same bytes, so they are not kept
    libraries = {name: version(name) for name in ("av", "numpy", "pillow")}
    marker = {"version": VERSION, **made_from, **libraries}
    path = out / MARKER
    if path.is_file():
        if read_json(path) == marker:
            return
        _remove([out / "metadata.csv", out / ORIGINALS, *(out / "videos").glob("*.mp4")])
    elif out.is_dir() and any(not entry.name.startswith(f".{MARKER}.") for entry in out.iterdir()):
        raise DataError(f"{out}: not empty and not made by this command; give a new or empty folder")
    write_json(path, marker)


def input_digest(table: ImportedTable, limits: MediaLimits) -> str:
    """Hash of the table, of the clips' bytes and of the limits; a clip out of reach counts as its name."""
    columns = ["video_id", "uri", "title", "stickers", "published_at", "creator_id", "source_id", "views"]
    rows = json.loads(table.frame[columns].to_json(orient="values", date_format="iso"))
    clips = [_clip_digest(table.root, str(uri), limits) for uri in table.frame["uri"]]
    return sha256_json([rows, clips, limits.model_dump()])


def _clip_digest(root: Path, uri: str, limits: MediaLimits) -> str:
    try:
        path = located(root, uri)
    except MediaError as error:
        return error.reason
    size = path.stat().st_size
    return str(size) if size > limits.megabytes * 1024**2 else sha256_file(path)


def known_footage(out: Path) -> dict[str, Footage]:
    """What an earlier, interrupted run found out about the input clips."""
    path = out / ORIGINALS
    if not path.is_file():
        return {}
    try:
        return {row["video_id"]: Footage(**row) for row in read_json(path, list)}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a list of clips ({error}); delete it and run this again") from error


def remember(out: Path, known: Mapping[str, Footage]) -> None:
    """Write originals.json."""
    write_json(out / ORIGINALS, [footage.to_json() for footage in known.values()])


def is_written(path: Path) -> bool:
    """There, and not left empty by a crash of the machine; clips appear in one step."""
    return path.is_file() and path.stat().st_size > 0


def write_table(out: Path, fps: int, made: Sequence[ReuploadPlan], known: Mapping[str, Footage]) -> None:
    """Write metadata.csv."""
    with (
        atomic_path(out / "metadata.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_row(plan, known[plan.original.video_id], fps) for plan in made)


def prune(out: Path, made: Sequence[ReuploadPlan]) -> None:
    """Remove what a killed run left half written, and clips whose original turned out to be of no use."""
    keep = {Path(plan.file_name).name for plan in made}
    _remove(path for path in (out / "videos").iterdir() if _is_ours(path) and path.name not in keep)
    _remove(out.glob(".*.tmp"))


def _row(plan: ReuploadPlan, footage: Footage, fps: int) -> list[str]:
    start, step, count = window(plan, footage.frames)
    return [
        *(plan.file_name, plan.video_id, plan.title, json.dumps(plan.stickers, ensure_ascii=False)),
        *(plan.creator_id, plan.original.video_id, plan.published_at.isoformat(), str(plan.views)),
        *(str(plan.label), json.dumps([edit.to_json() for edit in plan.edits], ensure_ascii=False)),
        *(f"{start / fps:.3f}", f"{(start + count * step) / fps:.3f}"),
    ]


def _is_ours(path: Path) -> bool:
    return path.suffix == ".mp4" or (path.name.startswith(".") and path.suffix == ".tmp")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
