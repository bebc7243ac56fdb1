"""Raw clips and their table -> manifest.parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from coefvq.config import Params
from coefvq.data.importers import apply_labels, read_table
from coefvq.data.manifest import normalise, write_table
from coefvq.data.probe import merge_probes, probe_all
from coefvq.files import write_json
from coefvq.records import label_column
from coefvq.stages.common import progress


def run(params: Params) -> None:
    """Import, label and probe."""
    settings = params.ingest
    table = read_table(Path(params.paths.raw), settings.format)
    frame = apply_labels(table, {issue: settings.labels[issue] for issue in params.issues})
    with progress("probing clips", len(frame)) as advance:
        probes = probe_all(
            list(frame["uri"]),
            table.root,
            limits=settings.limits,
            workers=params.runtime.workers,
            progress=advance,
        )
    manifest = normalise(merge_probes(frame, probes), params.issues)
    write_table(manifest, Path(params.paths.manifest))
    write_json(Path(params.paths.reports) / "ingest.json", _metrics(manifest, params))


def _metrics(manifest: pd.DataFrame, params: Params) -> dict[str, object]:
    return {
        "videos": len(manifest),
        "decodable": int(manifest["decode_ok"].sum()),
        "with_audio": int(manifest["has_audio"].sum()),
        "hours": round(float(manifest["duration_s"].sum()) / 3600, 4),
        "rejected": {str(k): int(v) for k, v in manifest.loc[~manifest["decode_ok"], "reason"].value_counts().items()},
        "labelled": {issue: int(manifest[label_column(issue)].notna().sum()) for issue in params.issues},
        "positives": {issue: int(manifest[label_column(issue)].fillna(0).sum()) for issue in params.issues},
    }
