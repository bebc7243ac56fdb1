"""From the files of a workspace, and the registry, to one report: what the command and the flows write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from coefvq.config import Gate, Inputs, LabelNames, MediaLimits, Paths, Untracked
from coefvq.errors import DataError
from coefvq.files import read_json, write_text
from coefvq.records import REQUIRED_SCORE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from coefvq.registry.bundle import Candidate
    from coefvq.registry.pairs import RegisteredPair
    from coefvq.reporting.html import ReportInputs

#: columns that a report skips; it looks up the clips of its few pictures once it knows which these are
_CLIPS = frozenset({"uri", "sha256", "stickers"})
_UNREAD = _CLIPS | {"phash", "reason", "published_at", "size_bytes", "fps"}
_REPORTS = ("evaluation", "thresholds", "stability", "calibration")


class ReportSettings(Inputs):
    """Where the files are, what the gate wants, and how a clip may be opened for a picture."""

    paths: Annotated[Paths, Untracked("paths")]
    gate: Annotated[Gate, Untracked("gate")]
    label_names: Annotated[dict[str, LabelNames], Untracked("label_names")]
    limits: Annotated[MediaLimits, Untracked("ingest.limits")]
    protocols: Annotated[tuple[str, ...], Untracked("ingest.protocols")]


def write_report(settings: ReportSettings, issue: str, target: Path, thumbnails: bool, registry: bool) -> ReportInputs:
    """Gather, build and write; with ``registry`` the tracking store has to be configured.

    Raises:
        DataError: a report or the scores table of the pipeline is missing.
        RegistryError: the store does not answer.
    """
    from coefvq.reporting.html import build, wanted_thumbnails

    given = gather(settings, issue, registry)
    try:
        if thumbnails and given.manifest is not None:
            given = replace(given, thumbnails=_thumbnails(settings, wanted_thumbnails(given)))
        page = build(given)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        # each file fits its schema: what is left is files of different runs or versions
        raise DataError(
            f"{settings.paths.report(issue, 'report.html').parent}: the reports do not fit each other "
            f"({type(error).__name__}: {error}); run evaluate, thresholds and stability again"
        ) from error
    write_text(target, page)
    return given


def keep_report(settings: ReportSettings, pair: RegisteredPair) -> str:
    """Write the report of a registered pair and keep it, with its scores, in the tracking store; returns the link.

    Raises:
        CoefVQError: a report of the pipeline is missing, or the store does not answer.
    """
    from coefvq.registry.attachments import REPORT, SCORES, attach

    target = settings.paths.report(pair.issue, REPORT)
    write_report(settings, pair.issue, target, thumbnails=True, registry=True)
    return attach(pair.issue, pair.version, {REPORT: target, SCORES: settings.paths.report(pair.issue, SCORES)})


@dataclass(frozen=True)
class _Asked:
    """What the registry says: the gate's checks, and the pair served now if it is another one."""

    gate: list[dict[str, Any]]
    served: Any
    is_served: bool
    bundle_version: str | None


def gather(settings: ReportSettings, issue: str, registry: bool) -> ReportInputs:
    """Read what the pipeline wrote and, with ``registry``, what is served now.

    Raises:
        DataError: a report or the scores table of the pipeline is missing.
        RegistryError: the store does not answer.
    """
    from coefvq.data.manifest import read_table
    from coefvq.registry.bundle import read_candidate
    from coefvq.reporting.files import read_calibration, read_evaluation, read_thresholds
    from coefvq.reporting.html import ReportInputs

    paths = settings.paths
    files = {name: paths.report(issue, f"{name}.json") for name in _REPORTS}
    pair = paths.report(issue, "candidate.json")
    candidate = read_candidate(pair) if pair.is_file() else None
    asked = _ask(settings.gate, candidate) if registry and candidate is not None else None
    splits = Path(paths.reports) / "splits.json"
    scores = read_table(paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    evaluation, thresholds = read_evaluation(files["evaluation"]), read_thresholds(files["thresholds"])
    return ReportInputs(
        issue=issue,
        scores=scores,
        evaluation=evaluation,
        thresholds=thresholds,
        candidate=None if candidate is None else candidate.to_json(),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        bundle_version=asked.bundle_version if asked else None,
        manifest=_shown_rows(Path(paths.manifest), scores, evaluation, thresholds),
        gate=asked.gate if asked else None,
        served=asked.served if asked else None,
        is_served=asked.is_served if asked else False,
        stability=_stability(files["stability"], settings.gate),
        calibration=read_calibration(files["calibration"]) if files["calibration"].is_file() else None,
        splits=read_json(splits) if splits.is_file() else None,
        words=settings.label_names.get(issue, LabelNames()),
    )


def _shown_rows(
    manifest: Path, scores: pd.DataFrame, evaluation: dict[str, Any], thresholds: dict[str, Any]
) -> pd.DataFrame | None:
    """The manifest's columns that the page prints or groups by; None where there is no manifest."""
    from coefvq.data.manifest import column_names, read_table

    if not manifest.is_file():
        return None
    if not (
        thresholds.get("detail") and evaluation.get("detail")
    ):  # earlier versions left slices and groups to the page
        return read_table(manifest, skip=_UNREAD)
    shown = {"video_id", "title", evaluation["detail"]["group_by"]}
    return read_table(
        manifest, skip=column_names(manifest) - shown, video_ids=scores.loc[scores["split"] == "test", "video_id"]
    )


def _stability(path: Path, gate: Gate) -> dict[str, Any] | None:
    from coefvq.evaluation.stability import held_against
    from coefvq.reporting.files import read_stability

    return held_against(read_stability(path), gate.max_flip_rate) if path.is_file() else None


def _ask(gate: Gate, candidate: Candidate) -> _Asked:
    from coefvq.registry import gates, pairs
    from coefvq.registry.bundle import bundle_version
    from coefvq.reporting.html import Served

    issue = candidate.issue
    aliases = pairs.aliases(issue)
    version = aliases.get(pairs.CHAMPION)
    champion = None if version is None else pairs.candidate_of(issue, version)
    checks = [check.model_dump() for check in gates.check(candidate, champion, gate).checks]
    waiting = aliases.get(pairs.CHALLENGER)
    mine = next(
        (
            bundle_version(number, candidate.content_hash)
            for number in (waiting, version)
            if number is not None and pairs.candidate_of(issue, number).content_hash == candidate.content_hash
        ),
        None,
    )
    if version is None or champion is None:
        return _Asked(checks, None, False, mine)
    if champion.content_hash == candidate.content_hash:
        return _Asked(checks, None, True, mine)
    served = Served(bundle_version(version, champion.content_hash), champion.to_json(), _kept_scores(issue, version))
    return _Asked(checks, served, False, mine)


def _kept_scores(issue: str, version: str) -> pd.DataFrame | None:
    from coefvq.data.manifest import read_table
    from coefvq.registry.attachments import SCORES, attached

    with TemporaryDirectory() as folder:
        path = attached(issue, version, SCORES, Path(folder))
        return None if path is None else read_table(path)


def _thumbnails(settings: ReportSettings, wanted: Sequence[str]) -> dict[str, bytes]:
    from coefvq.data.locations import media_root
    from coefvq.data.manifest import read_table, to_inputs
    from coefvq.data.media.thumbnails import thumbnails

    rows = read_table(Path(settings.paths.manifest), skip=_UNREAD - _CLIPS, video_ids=wanted)
    videos = to_inputs(rows, media_root(settings.paths), settings.protocols)
    # a clip in a remote store is not fetched for a picture
    local = {video.video_id: video.path for video in videos if video.url is None and video.refusal is None}
    return thumbnails(local, settings.limits)


def write_pictures(given: ReportInputs, folder: Path) -> None:
    from coefvq.reporting.html import pictures
    from coefvq.reporting.plots import write_result_figure

    for name, svg in pictures(given).items():
        write_text(folder / f"{given.issue}-{name}.svg", svg)
    write_result_figure(given.scores, given.thresholds, folder / f"{given.issue}.png")
