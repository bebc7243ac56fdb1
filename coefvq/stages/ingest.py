"""Raw clips and their table -> manifest.parquet, row group by row group in bounded memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.data import remote
from coefvq.data.descriptions import descriptions_file
from coefvq.data.importers import CheckedTable, Naming, open_table
from coefvq.data.importers.ids import manifest_ids
from coefvq.data.importers.left_out import LeftOut, ListedNames, not_listed, not_taken
from coefvq.data.importers.renames import proposed
from coefvq.data.locations import media_root, root_at, spelling
from coefvq.data.manifest import manifest_writer, normalise
from coefvq.data.media.clips import default_cache
from coefvq.data.media.probe import expect, probe_all
from coefvq.errors import ConfigError
from coefvq.files import sha256_file, write_json
from coefvq.records import REASONS, label_column
from coefvq.redaction import redact
from coefvq.stages.inputs import IngestInputs
from coefvq.terminal import progress, say

_ROW_GROUP = 8192
Row = dict[str, Any]


def run(inputs: IngestInputs) -> None:
    """Check the whole table first, then probe its clips and write them as the answers come."""
    table = _open(inputs)
    tally, listed = _Tally(inputs.issues), ListedNames()
    with (
        progress("probing clips", table.count) as advance,
        manifest_writer(Path(inputs.paths.manifest), _notes(inputs)) as write,
    ):
        rows = _probed(table, inputs, listed, advance)
        while group := list(islice(rows, _ROW_GROUP)):
            frame = normalise(pd.DataFrame(group), inputs.issues)
            write(frame)
            tally.add(frame)
    left_out = not_taken(table.source) if table.source.is_scan else _not_listed(table, inputs, listed)
    write_json(Path(inputs.paths.reports) / "ingest.json", {**tally.metrics(), "not_taken": left_out.record()})
    root = None if inputs.media is not None and remote.is_url(inputs.media) else media_root(inputs.paths).resolve()
    for line in (tally.line(root), left_out.line(), table.unused_line(), tally.title_line(table.columns)):
        if line:
            say(line)


def _notes(inputs: IngestInputs) -> dict[str, str]:
    """The hash of the descriptions beside the clips, which training reads: it depends on the manifest alone."""
    file = descriptions_file(Path(inputs.paths.raw))
    return {"descriptions_sha256": sha256_file(file)} if file.is_file() else {}


def _open(inputs: IngestInputs) -> CheckedTable:
    settings, media = inputs.ingest, inputs.media
    remote.check_protocols(settings.protocols, media)
    labels = {issue: settings.labels[issue] for issue in inputs.issues}
    prefix = media if media is not None and remote.is_url(media) else None
    ids = manifest_ids(Path(inputs.paths.manifest), Path(inputs.paths.splits), prefix)
    naming = Naming(settings.columns, Path(media) if media is not None and prefix is None else None)
    table = open_table(Path(inputs.paths.raw), settings.format, labels, ids, naming)
    if media is not None and table.source.is_scan:
        raise ConfigError(
            f"paths.media = {media}: expected null, since {inputs.paths.raw} has no table and its clips are in it"
        )
    return table


def _not_listed(table: CheckedTable, inputs: IngestInputs, listed: ListedNames) -> LeftOut:
    # clips in another place than the table are a store, of which a table may name any part
    return not_listed(table.source, listed) if inputs.media is None else LeftOut()


def _probed(
    table: CheckedTable, inputs: IngestInputs, listed: ListedNames, advance: Callable[[int], None]
) -> Iterator[Row]:
    """Rows with what their clips turned out to be; answers come in order but later than questions."""
    media, settings = inputs.media, inputs.ingest
    prefix = media if media is not None and remote.is_url(media) else None
    root = root_at(media_root(inputs.paths))
    waiting: deque[Row] = deque()

    def uris() -> Iterator[str]:
        for row in table.rows():
            uri = spelling(row["uri"], root) if prefix is None else remote.address(row["uri"], prefix)
            listed.add(uri)
            waiting.append({**row, "uri": uri})
            yield waiting[-1]["uri"]

    probes = probe_all(
        uris(),
        media_root(inputs.paths),
        limits=settings.limits,
        workers=inputs.runtime.workers,
        engine=inputs.runtime.engine,
        protocols=settings.protocols,
        cache=default_cache(),
        progress=advance,
    )
    for probe in probes:
        row = waiting.popleft()
        yield {**row, **asdict(expect(probe, row["sha256"]))}


def _shown(uri: str) -> str:
    return redact(uri) if remote.is_url(uri) else uri


class _Tally:
    """Running counts for reports/ingest.json."""

    def __init__(self, issues: Sequence[str]) -> None:
        self._reasons: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._first: dict[str, str] = {}
        self._audio = self._unreadable_audio = self._hdr = self._titled = 0
        self._seconds = 0.0
        self._labelled: Counter[str] = Counter(dict.fromkeys(issues, 0))
        self._positive: Counter[str] = Counter(dict.fromkeys(issues, 0))

    def add(self, frame: pd.DataFrame) -> None:
        """Count normalised manifest rows."""
        self._reasons.update(frame["reason"])
        rejected = frame[frame["reason"] != "ok"].drop_duplicates("reason")
        self._first = {**dict(zip(rejected["reason"], rejected["uri"], strict=True)), **self._first}
        self._audio += int(frame["has_audio"].sum())
        self._unreadable_audio += int(frame["audio_ok"].eq(False).sum())
        self._hdr += int(frame["hdr"].notna().sum())
        self._titled += int(frame["title"].ne("").sum())
        self._seconds += float(frame["duration_s"].sum())
        for issue in self._labelled:
            labels = frame[label_column(issue)]
            self._labelled[issue] += int(labels.notna().sum())
            self._positive[issue] += int(labels.fillna(0).sum())

    def line(self, root: Path | None) -> str:
        """How many clips were rejected and why, each reason with its first clip; empty if none was.

        ``root`` is the folder that clips must lie below, None for a remote store.
        """
        found = [f"{self._reasons[reason]} {reason} (first: {_shown(uri)})" for reason, uri in self._first.items()]
        outside = f"; outside_root: expected below {root}, or set paths.media to the folder that holds them"
        more = outside if root is not None and self._reasons["outside_root"] else ""
        return f"rejected: {', '.join(found)}; each row's reason is in the manifest{more}" if found else ""

    def title_line(self, columns: Sequence[str]) -> str:
        """A line that says no video has a title, with the column that may hold it; empty if one has."""
        if self._titled:
            return ""
        near = proposed(columns).get("title")
        remedy = f"; if column '{near}' holds titles, set ingest.columns.title: {near}" if near else ""
        return f"title is empty in all {self._reasons.total()} rows, so models learn nothing from titles{remedy}"

    def metrics(self) -> dict[str, object]:
        """``reasons`` counts every reason there is, ``rejected`` those that occur."""
        return {
            "videos": self._reasons.total(),
            "decodable": self._reasons["ok"],
            "with_audio": self._audio,
            "unreadable_audio": self._unreadable_audio,
            "hdr": self._hdr,
            "hours": round(self._seconds / 3600, 4),
            "rejected": {reason: count for reason, count in self._reasons.items() if count and reason != "ok"},
            "reasons": dict(self._reasons),
            "labelled": dict(self._labelled),
            "positives": dict(self._positive),
        }
