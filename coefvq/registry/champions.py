"""From the registry to a scorer: the pairs of the asked issues, loaded and ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.cascade.audit_sample import AuditSample
from coefvq.cascade.policy import CascadePolicy
from coefvq.compute.pools import spawn_pool
from coefvq.config import Tracking
from coefvq.errors import RegistryError
from coefvq.inference import MultiIssueScorer, PairScorer, Recorded, recorded
from coefvq.registry import history, kept_pairs, pair_files, pairs, tracking
from coefvq.registry.bundle import bundle_version, version_of
from coefvq.registry.history import Decision
from coefvq.registry.pair_files import LoadedBundle
from coefvq.registry.pairs import CHAMPION

if TYPE_CHECKING:
    from coefvq.models.shared import TowerPool


def load_scorer(
    issues: Sequence[str] | None = None,
    version: str = CHAMPION,
    audit: AuditSample | None = None,
    cache: Path | None = None,
) -> MultiIssueScorer:
    """Scorer over the pairs of ``issues`` (all that have that alias by default); ``audit`` draws for all alike.

    ``cache`` is where decoded clips and scores are kept, by default that of the working directory.

    The tracking store has to be configured before.

    Raises:
        RegistryError: no pair stands behind the alias or version, or its files were changed.
    """
    return _scorer([(issue, version) for issue in _wanted(issues, version)], audit, cache)


def served_scorer(
    settings: Tracking,
    issues: Sequence[str] | None = None,
    version: str = CHAMPION,
    root: Path | None = None,
    cache: Path | None = None,
    apart: bool = False,
) -> MultiIssueScorer:
    """As ``tracking.configure`` for reading and ``load_scorer``; without MLflow while the registry is as it was.

    ``root`` is the workspace; default: the working directory. ``apart`` asks the registry in a process that ends, so
    that the 300 MB of MLflow are free before models are loaded; the main module is imported there too.

    Raises:
        RegistryError: as both.
    """
    return _scorer_of(served_bundles(settings, issues, version, root, apart), None, cache)


def served_bundles(
    settings: Tracking, issues: Sequence[str] | None, version: str, root: Path | None, apart: bool = False
) -> list[LoadedBundle]:
    """The pairs of ``served_scorer``, with verified local folders."""
    store = tracking.place(settings.uri, root=root)
    state, asked = kept_pairs.database_state(store), kept_pairs.question(issues, version)
    bundles = kept_pairs.find(store, state, asked)
    if bundles is None and apart:
        with suppress(BrokenProcessPool), spawn_pool(1) as pool:
            return pool.submit(served_bundles, settings, issues, version, root).result()
    if bundles is None:
        tracking.configure(settings.uri, settings.experiment, root=root, create=False)
        bundles = [pair_files.resolve(issue, version) for issue in _wanted(issues, version)]
        kept_pairs.keep(store, state, asked, bundles)
    return bundles


@dataclass(frozen=True)
class Head:
    """What the decision record says is served.

    ``decision`` is the sequence number of the newest approval or rollback of these issues that was carried out.
    ``bundles`` maps issue to the bundle version of its champion; ``withdrawn`` holds ``issue=version`` of pairs that
    were rolled back and not approved again.
    """

    decision: int
    bundles: dict[str, str]
    withdrawn: frozenset[str]


def head(issues: Sequence[str] | None = None) -> Head:
    """The present champions of ``issues`` (all that have one by default), by the decisions; loads no model.

    Raises:
        RegistryError: an issue has no champion, its alias was moved by hand, or the store does not answer.
    """
    past = history.decisions()
    bundles: dict[str, str] = {}
    withdrawn: set[str] = set()
    for issue in _wanted(issues, CHAMPION):
        own = _carried_out(issue, past)
        bundles[issue] = bundle_version(*history.champion_stack(own)[-1])
        withdrawn |= {f"{issue}={bundle_version(*pair)}" for pair in history.withdrawn(own)}
    # of all issues: a worker of one of them then never seems older than the index that all share
    counted = [item.sequence for item in past if item.action != "reject"]
    return Head(max(counted), bundles, frozenset(withdrawn))


def _carried_out(issue: str, past: Sequence[Decision]) -> list[Decision]:
    """The decisions on an issue that took effect; one whose alias has moved has, though a crash left it pending."""
    version = pairs.aliases(issue).get(CHAMPION)
    pair = None if version is None else pairs.find(issue, version)
    if version is None or pair is None:
        raise RegistryError(
            f"no champion for {issue}; approve a challenger first: "
            f"coefvq approve --issue {issue} --by NAME --reason WHY"
        )
    history.require_decided_champion(issue, version, pair.content_hash)
    own = [item for item in past if item.issue == issue]
    moved = [
        item.model_copy(update={"state": "done"})
        if item.state == "pending" and item.action != "reject" and item.version == version
        else item
        for item in own
    ]
    return [item for item in moved if item.state == "done"]


def _wanted(issues: Sequence[str] | None, version: str) -> list[str]:
    wanted = list(issues) if issues else [issue for issue in pairs.issues() if _has(issue, version)]
    if not wanted:
        raise RegistryError(f"no issue has a {version}; approve a challenger first: coefvq approve --help")
    return wanted


def models_of(head: Head) -> dict[str, str]:
    """Issue → hash of what its scores are made with: both models and the preprocessing, not the policy.

    Raises:
        RegistryError: a pair's record is gone or was changed.
    """
    return {issue: _models(issue, version) for issue, version in head.bundles.items()}


def policies_of(head: Head) -> dict[str, CascadePolicy]:
    """Issue → policy of the pairs of ``head``.

    Raises:
        RegistryError: a pair's record is gone or was changed.
    """
    return {
        issue: CascadePolicy.from_dict(pairs.candidate_of(issue, version_of(version)).policy)
        for issue, version in head.bundles.items()
    }


def load_head(head: Head, audit: AuditSample | None = None) -> MultiIssueScorer:
    """Scorer over the pairs of ``head``, whatever the aliases say by now.

    Raises:
        RegistryError: a pair's files are gone or were changed, or the store does not answer.
        ModelError: a pair does not load.
    """
    return _scorer([(issue, version_of(version)) for issue, version in head.bundles.items()], audit)


def _models(issue: str, version: str) -> str:
    return pairs.candidate_of(issue, version_of(version)).models_sha256


def champion_profile(issues: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Issue and training-data profile of the first champion that has one, or None.

    The columns of a profile but for the labels are those of the shared manifest, so one champion is enough.

    Raises:
        RegistryError: the store does not answer, or a champion's files were changed.
    """
    for issue in issues:
        if CHAMPION in pairs.aliases(issue):
            profile = pair_files.resolve(issue, CHAMPION).candidate.data.profile
            if profile is not None:
                return issue, dict(profile)
    return None


def _has(issue: str, version: str) -> bool:
    return version.isdecimal() or version in pairs.aliases(issue)


def _scorer(
    chosen: Iterable[tuple[str, str]], audit: AuditSample | None, cache: Path | None = None
) -> MultiIssueScorer:
    """Pairs by issue and alias or version."""
    return _scorer_of([pair_files.resolve(issue, version) for issue, version in chosen], audit, cache)


def _scorer_of(bundles: Sequence[LoadedBundle], audit: AuditSample | None, cache: Path | None) -> MultiIssueScorer:
    """The pairs loaded; towers that they have in common are held once."""
    from coefvq.models.shared import TowerPool

    how = [recorded(bundle.candidate.preprocessing) for bundle in bundles]
    towers = TowerPool.of((bundle.mllm_dir, own.scoring) for bundle, own in zip(bundles, how, strict=True))
    loaded = (_load(bundle, own, towers, cache) for bundle, own in zip(bundles, how, strict=True))
    return MultiIssueScorer(tuple(replace(pair, audit=audit) for pair in loaded))


def _load(bundle: LoadedBundle, how: Recorded, towers: TowerPool, cache: Path | None) -> PairScorer:
    return PairScorer.from_folders(
        bundle.base_dir, bundle.mllm_dir, bundle.policy, bundle.issue, bundle.bundle_version, how, cache, towers
    )
