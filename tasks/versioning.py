"""A new version of the raw data: read a batch, add it in a clone, publish data first and then branch and tag.

Killed anywhere, a run leaves nothing visible: the clone is private, blobs without a pointer are harmless, and
branch and tag appear together. A run that was overtaken adds its batch again on top of what the other published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coefvq.data.batches import Batch, Survey, batch_name, stage_batch, survey
from coefvq.data.importers import Naming, open_table
from coefvq.data.importers.ids import KnownIds, manifest_ids
from coefvq.data.importers.left_out import not_taken
from coefvq.data.raw_table import Layout, add_counts, count_labels, read_chunks, to_chunks
from coefvq.data.remote import is_url
from coefvq.errors import CoefVQError, ConfigError, DataError
from coefvq.files import sha256_file, write_json
from coefvq.terminal import progress, say
from tasks.isolation import RemoteError, push, refs, reset
from tasks.raw_folder import add_batch, bring_table
from tasks.snapshot_run import Run, SnapshotRequest, earlier_record, locate, opened
from tasks.workspace import dvc, git

_ATTEMPTS = 5
_VERSION = re.compile(r"refs/tags/data-v([1-9][0-9]*)$")


@dataclass(frozen=True)
class Snapshot:
    """What came of it; ``tag``, ``commit`` and ``take_over`` are None where the batch held nothing new."""

    tag: str | None
    commit: str | None
    repository: str
    branch: str
    added: int
    known: int
    data_in: str
    take_over: str | None
    record: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for a person."""
        if self.tag is None:
            return [f"nothing new: all {self.known} clips are there already"]
        old = f", {self.known} were there already" if self.known else ""
        return [
            f"{self.tag}: {self.added} clips added{old}; {self.record['total']['clips']} in all",
            f"published: branch {self.branch} and tag {self.tag} in {self.repository}; clips in {self.data_in}",
            f"take it over: {self.take_over}",
        ]


def collect(run: Run) -> Batch:
    """Read the batch and hash its clips.

    Raises:
        DataError, ConfigError: the batch, or where it lies, is not usable.
        MediaError: a clip is missing or its store does not answer.
    """
    source, raw = run.request.batch.resolve(), run.root / run.raw
    if source.is_relative_to(raw) or raw.is_relative_to(source):
        raise DataError(
            f"{source}: is the versioned folder {raw}, or shares clips with it; put new clips in a folder of their own "
            f"(edits in {run.raw} itself are versioned by `dvc add {run.raw}` and a commit)"
        )
    store, folder = run.naming.media, source if source.is_dir() else source.parent
    in_store = store is None or folder.is_relative_to(store)
    table = open_table(source, naming=Naming(run.params.ingest.columns, None if in_store else store))
    if line := not_taken(table.source).line():
        say(line)
    name, store = batch_name(source, run.request.name), run.folder / "batch.sqlite"
    batch = Batch(name, _layout(run), table.source.origin, store, table.count)
    media = run.params.paths.media
    place = media if media is None or is_url(media) else str((run.root / media).resolve())
    store.unlink(missing_ok=True)  # a retry begins anew
    with progress("hashing clips", table.count) as advance:
        stage_batch(table, batch, place, run.labels, run.params.ingest, run.params.runtime.workers, advance)
    return batch


def land(run: Run, batch: Batch) -> Snapshot:
    """Add the batch to the newest version and publish the result; again on top if another run was faster.

    Raises:
        RemoteError: a remote does not answer or refuses; nothing is visible then.
        DataError: an id of the batch is taken by another clip.
    """
    for _ in range(_ATTEMPTS):
        known = refs(run.clone, run.target)
        reset(run.clone, run.target, known)
        number = 1 + max((int(found[1]) for name in known if (found := _VERSION.match(name))), default=0)
        tags = [f"data-v{number}", *([run.request.tag] if run.request.tag else [])]
        if f"refs/tags/{run.request.tag}" in known:
            raise ConfigError(f"tag {run.request.tag} exists already; choose another --tag")
        added = _commit_version(run, batch, number)
        if not added:
            return _outcome(run, None, 0, batch.clips)
        _push_data(run)
        if push(run.clone, run.target, known, tags):
            return _outcome(run, tags[0], added, batch.clips - added)
    raise RemoteError(f"{run.target.url}: others published first {_ATTEMPTS} times in a row; run it again")


def take(request: SnapshotRequest) -> Snapshot:
    """The whole of it: `coefvq data snapshot`, and what the Prefect flow does task by task."""
    with opened(request, locate(request)) as run:
        return land(run, collect(run))


def _commit_version(run: Run, batch: Batch, number: int) -> int:
    """Commit the version in the clone; returns how many clips are new, 0 if there is nothing to commit."""
    tracked = bring_table(run.clone, run.raw, run.remote)
    raw, ids = run.clone / run.raw, _earlier_ids(run)
    seen = survey(read_chunks(raw, run.labels, ids, run.naming), batch, run.labels, run.raw)
    if seen.known == batch.clips:
        return 0
    old = read_chunks(raw, run.labels, ids, run.naming)
    table = add_batch(run.clone, run.raw, batch, seen, tracked, old, run.params.runtime.workers)
    record = _record(run, batch, seen, number, table)
    write_json(run.record, record)
    pointer = run.clone / f"{run.raw}.dvc"
    ignored = pointer.parent / ".gitignore"  # DVC's, unless something else ignores the raw folder already
    git(run.clone, "add", "--", *(str(path) for path in (pointer, ignored, run.record) if path.is_file()))
    git(run.clone, "commit", "--quiet", "--no-verify", "--message", _message(run.request.message, record))
    return int(record["batch"]["clips"])


def _earlier_ids(run: Run) -> KnownIds:
    """Ids of rows that have none yet: the workspace's manifest knows them, and the version makes them explicit."""
    paths = run.params.paths
    media, lock = paths.media, run.clone / "dvc.lock"
    made = lock.is_file() and paths.manifest in lock.read_text(encoding="utf-8")
    prefix = media if media is not None and is_url(media) else None
    return manifest_ids(run.root / paths.manifest, lock if made else run.root / paths.splits, prefix)


def _push_data(run: Run) -> None:
    if not (run.request.push and run.remote):
        return
    try:
        dvc(run.clone, "push", f"{run.raw}.dvc")
    except CoefVQError as error:
        raise RemoteError(
            f"DVC remote '{run.remote}' did not take the data, so no version was published: {error}; check its "
            "address, network and credentials, then run the same command again"
        ) from error


def _record(run: Run, batch: Batch, seen: Survey, number: int, table: Path) -> dict[str, Any]:
    clips, counts = 0, count_labels(next(to_chunks([{"video_id": ""}])).slice(1), run.labels)
    for chunk in to_chunks(row for row, _ in batch.new_rows()):
        clips += len(chunk)
        counts = add_counts(counts, count_labels(chunk, run.labels))
    return {
        "version": number,
        "parent": earlier_record(run).get("version"),
        "layout": batch.layout,
        "batch": {"name": batch.name, "clips": clips, "labels": counts},
        "total": {"clips": seen.clips + clips, "labels": add_counts(seen.counts, counts)},
        "table": {"path": table.relative_to(run.clone).as_posix(), "sha256": sha256_file(table)},
    }


def _message(subject: str | None, record: Mapping[str, Any]) -> str:
    batch, total = record["batch"], record["total"]
    lines = [subject or f"Data v{record['version']}: {batch['clips']} clips from {batch['name']}", ""]
    for what, part in (("added", batch), ("in all", total)):
        labels = (f"{issue} {n['positive']} positive of {n['labelled']}" for issue, n in part["labels"].items())
        lines.append("; ".join([f"{what}: {part['clips']} clips", *labels]))
    return "\n".join(lines)


def _outcome(run: Run, tag: str | None, added: int, known: int) -> Snapshot:
    get = "git pull --ff-only && dvc pull" if run.target.is_origin else f"git merge --ff-only {tag} && dvc checkout"
    return Snapshot(
        tag=tag,
        commit=git(run.clone, "rev-parse", "HEAD") if tag else None,
        repository=run.target.url,
        branch=run.target.branch,
        added=added,
        known=known,
        data_in=f"DVC remote '{run.remote}'" if run.remote and run.request.push else "this machine's DVC cache only",
        take_over=f"{get} {run.raw}.dvc" if tag else None,
        record=earlier_record(run),
    )


def _layout(run: Run) -> Layout:
    used = earlier_record(run).get("layout")
    layout: Layout = run.request.layout or used or ("reference" if run.params.paths.media else "files")
    if used and layout != used:
        raise ConfigError(f"--layout {layout}: the versions so far are '{used}'; a workspace keeps one layout")
    return layout
