"""What ``scale.py`` runs its steps on: made-up manifest, scores, models, index and DVC workspace of any size."""

from __future__ import annotations

import json
import os
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.data.manifest import normalise, read_table, write_table
from coefvq.files import write_json
from coefvq.records import MANIFEST_COLUMNS, SCORE_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
#: share of the videos that have a label of an issue
_LABELLED = {"icd": 0.95, "ucc": 0.4}
_PER_FOLDER = 1000
_COPIES = 0.09
_BATCH = 10_000
_ALL_BUT_ID = frozenset(MANIFEST_COLUMNS) - {"video_id"}
_GAPS = {"base": 2, "mllm": 4}


def make(workspace: Path, rows: int) -> None:
    """A workspace with settings, manifest and empty files."""
    for name in ("params.yaml", "recipe.yaml", "presets.yaml"):
        (workspace / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (workspace / "data").mkdir()
    (workspace / "data" / "reference.json").write_text("{}", encoding="utf-8")
    manifest = world(rows)
    write_table(manifest, workspace / "data" / "manifest.parquet")
    for number, uri in enumerate(manifest["uri"]):
        place = workspace / "data" / "raw" / uri
        if number % _PER_FOLDER == 0:
            place.parent.mkdir(parents=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))


def world(rows: int) -> pd.DataFrame:
    """Manifest rows; copies come from anybody and are mostly positive for ucc."""
    rng = np.random.default_rng(7)
    creators = max(rows // 5, 10)
    chance = np.minimum(rng.pareto(1.6, creators) + 0.2, 0.0005 * rows + 20)
    copy = rng.random(rows) < _COPIES
    source = np.where(copy, rng.integers(0, rows, rows), np.arange(rows))
    hashes = _hashes(rng, source, copy)
    labels = {"icd": rng.random(rows) < 0.05, "ucc": np.where(copy, rng.random(rows) < 0.9, rng.random(rows) < 0.01)}
    words = np.array(["my dinner", "a day at the sea", "мой ужин", "what happened next", "日本の料理"], dtype=object)
    return normalise(
        pd.DataFrame(
            {
                "video_id": [f"v{row:08d}" for row in range(rows)],
                "uri": [f"{row // _PER_FOLDER:05d}/v{row:08d}.mp4" for row in range(rows)],
                "sha256": [f"{row:064x}" for row in range(rows)],
                "title": words[rng.integers(0, len(words), rows)] + np.array([f" {n}" for n in range(rows)], object),
                "stickers": [["SALE"] if row % 5 == 0 else [] for row in range(rows)],
                "published_at": "2026-01-02T03:04:05+00:00",
                "creator_id": [f"c{number}" for number in rng.choice(creators, rows, p=chance / chance.sum())],
                "source_id": [f"s{number}" for number in source],
                "views": pd.array(np.minimum(rng.lognormal(6, 2.2, rows), 5e8).astype(np.int64), "Int64"),
                "weight": 1.0,
                "split": None,
                "decode_ok": True,
                "reason": "ok",
                "size_bytes": pd.array(rng.integers(10**5, 10**7, rows), "Int64"),
                "phash": hashes,
                "duration_s": rng.lognormal(3, 0.7, rows).clip(1, 600),
                "fps": 30.0,
                "width": pd.array([360] * rows, "Int64"),
                "height": pd.array([640] * rows, "Int64"),
                "has_audio": rng.random(rows) < 0.93,
                **{f"label_{issue}": _given(rng, label, _LABELLED[issue]) for issue, label in labels.items()},
            }
        ),
        list(_LABELLED),
    )


def _given(rng: np.random.Generator, label: np.ndarray[Any, Any], share: float) -> Any:
    """Labels 0 and 1 of a share of the rows."""
    return pd.array(np.where(rng.random(len(label)) < share, label, np.nan), "Int8")


def _hashes(rng: np.random.Generator, source: np.ndarray[Any, Any], copy: np.ndarray[Any, Any]) -> list[str]:
    """Four frames of 256 bits by source; copies differ from it in about ten bits a frame."""
    bits = rng.integers(0, 256, (len(source), 4, 32), dtype=np.uint8)[source]
    changed = np.flatnonzero(copy)
    bits[changed] ^= np.packbits(rng.random((len(changed), 4, 256)) < 10 / 256, axis=2)
    text = bits.tobytes().hex()
    return [text[start : start + 256] for start in range(0, len(text), 256)]


def make_scores(workspace: Path) -> None:
    """What ``predict`` would write for ucc: scores that follow the label, of val, test and traffic."""
    rng = np.random.default_rng(11)
    manifest = read_table(workspace / "data" / "manifest.parquet", skip={"phash", "stickers", "title"})
    splits = read_table(workspace / "data" / "splits.parquet")[["video_id", "split"]]
    rows = manifest.drop(columns="split").merge(splits, on="video_id")
    rows = rows[rows["split"].isin(("val", "test", "traffic"))]
    label = _with_a_label(rows["label_ucc"], rng)
    drawn = {name: 1 / (1 + np.exp(-rng.normal(gap * (label - 0.6), 1))) for name, gap in _GAPS.items()}
    table = rows[["video_id", "split", "weight", "views"]].assign(label=rows["label_ucc"], **drawn)
    for name in SCORE_COLUMNS:
        if name not in table:
            table[name] = np.nan
    write_table(table.loc[:, list(SCORE_COLUMNS)], workspace / "reports" / "ucc" / "scores.parquet")


def _with_a_label(column: pd.Series[Any], rng: np.random.Generator) -> NDArray[np.float64]:
    """What a score follows: the label, or where nobody gave one what it might be."""
    label = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(label), rng.random(len(label)) < np.nanmean(label), label)


def make_fit_table(workspace: Path) -> None:
    """A table of as many labelled rows as the world has videos, half of them to fit on."""
    rng = np.random.default_rng(12)
    manifest = read_table(workspace / "data" / "manifest.parquet", skip={"phash", "stickers", "title"})
    label = _with_a_label(manifest["label_ucc"], rng)
    columns = {name: 1 / (1 + np.exp(-rng.normal(gap * (label - 0.6), 1))) for name, gap in _GAPS.items()}
    split = np.where(rng.random(len(manifest)) < 0.5, "val", "test")
    table = manifest[["video_id"]].assign(label=label, weight=1.0, split=split, **columns)
    write_table(table, workspace / "fit.parquet")


def make_models(workspace: Path) -> None:
    """Two folders with a byte each and the records of their trainings: what is bound is hashed, not loaded."""
    for kind in ("base", "mllm"):
        folder = workspace / "models" / "ucc" / kind
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"kind": kind})
        write_json(folder.parent / f"{kind}_run.json", {"run_id": f"r-{kind}", "model_id": f"m-{kind}"})
    stability = {"issue": "ucc", "n": 64, "flip_rate": 0.0, "videos": 64, "variants": []}
    write_json(workspace / "reports" / "ucc" / "stability.json", stability)


def make_index(workspace: Path) -> None:
    """A verdict on each video, a tenth escalated, 2 % of the rest audited, and a label for all that was seen."""
    from coefvq.vmp.records import FULL, SinkRow
    from coefvq.vmp.state import open_state

    rng, rows = np.random.default_rng(13), len(read_table(workspace / "data" / "manifest.parquet", skip=_ALL_BUT_ID))
    flagged, rejected, drawn = rng.random(rows) < 0.05, rng.random(rows) < 0.05, rng.random(rows) < 0.02
    labels = ["video_id,label"]
    with open_state(workspace / "vmp") as (_, index):
        for start in range(0, rows, _BATCH):
            made: list[SinkRow] = []
            for row in range(start, min(start + _BATCH, rows)):
                seen = bool(flagged[row] or rejected[row])
                value = json.dumps(_verdict(row, bool(flagged[row]), seen, bool(drawn[row])))
                moment = f"2026-01-{1 + row % 28:02d}T00:00:00+00:00"
                made.append(SinkRow(row + 1, f"v{row:08d}", 1, 1, FULL, "ucc=1-ab", "live", "live", "ok", value, moment,
                                    content="", views=5))  # fmt: skip
                if seen or drawn[row]:
                    labels.append(f"v{row:08d},{int(flagged[row] or row % 50 == 0)}")
            index.apply(made, "made", made[-1].offset)
    (workspace / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")


def _verdict(row: int, flagged: bool, seen: bool, drawn: bool) -> dict[str, Any]:
    score = {
        "base_score": row % 997 / 997,
        "mllm_score": 0.5 if seen or drawn else None,
        "positive": flagged,
        "decided_by": "mllm" if seen else "base",
        "bundle_version": "1-ab",
        **({} if seen else {"audit_probability": 0.02}),
    }
    return {
        "uri": f"{row // _PER_FOLDER:05d}/v{row:08d}.mp4",
        "sha256": f"{row:064x}",
        "title": f"what happened next {row}",
        "stickers": ["SALE"],
        "views": 5,
        "published_at": "2026-01-02T03:04:05+00:00",
        "creator_id": f"c{row % 997}",
        "duration_s": 12.5,
        "scores": {"ucc": score},
    }


def make_pipeline(workspace: Path) -> None:
    """The workspace under DVC: clips added, every output there, and all stages recorded as up to date."""
    from dvc.repo import Repo

    pipeline = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    # a workspace has no stage that makes clips
    start, end = pipeline.index("  clips:"), pipeline.index("  ingest:")
    (workspace / "dvc.yaml").write_text(pipeline[:start] + pipeline[end:], encoding="utf-8")
    for number, clip in enumerate(sorted((workspace / "data" / "raw").glob("*/*.mp4"))):
        clip.write_text(str(number), encoding="utf-8")  # as many objects in the cache as clips
    # DVC finds its stages from the folder it is called in
    with chdir(workspace), Repo.init(".", no_scm=True, force=True) as repo:
        repo.add("data/raw")
        for output in (place for out in repo.index.outs if not (place := Path(out.fs_path)).exists()):
            folder = output.name in ("base", "mllm")
            place = output / "weights" if folder else output
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("{}", encoding="utf-8")
        repo.commit(force=True)
