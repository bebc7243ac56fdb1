"""From the registry to a scorer: the pairs of the asked issues, loaded and ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coefvq.cascade.audit_sample import AuditSample
from coefvq.errors import RegistryError
from coefvq.inference import MultiIssueScorer, PairScorer, recorded
from coefvq.registry import pairs
from coefvq.registry.pairs import CHAMPION

if TYPE_CHECKING:
    from coefvq.models.shared import TowerPool


def load_scorer(
    issues: Sequence[str] | None = None, version: str = CHAMPION, audit: AuditSample | None = None
) -> MultiIssueScorer:
    """Scorer over the pairs of ``issues`` (all that have that alias by default); ``audit`` draws for all alike.

    The tracking store has to be configured before.

    Raises:
        RegistryError: no pair stands behind the alias or version, or its files were changed.
    """
    wanted = list(issues) if issues else [issue for issue in pairs.issues() if _has(issue, version)]
    if not wanted:
        raise RegistryError(f"no issue has a {version}; approve a challenger first: coefvq approve --help")
    from coefvq.models.shared import TowerPool

    towers = TowerPool()
    return MultiIssueScorer(tuple(replace(_load(issue, version, towers), audit=audit) for issue in wanted))


def champion_profile(issues: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Issue and training-data profile of the first champion that has one, or None.

    The columns of a profile but for the labels are those of the shared manifest, so one champion is enough.

    Raises:
        RegistryError: the store does not answer, or a champion's files were changed.
    """
    for issue in issues:
        if CHAMPION in pairs.aliases(issue):
            profile = pairs.resolve(issue, CHAMPION).candidate.data.profile
            if profile is not None:
                return issue, dict(profile)
    return None


def _has(issue: str, version: str) -> bool:
    return version.isdecimal() or version in pairs.aliases(issue)


def _load(issue: str, version: str, towers: TowerPool) -> PairScorer:
    bundle = pairs.resolve(issue, version)
    return PairScorer.from_folders(
        bundle.base_dir,
        bundle.mllm_dir,
        bundle.policy,
        issue,
        bundle.bundle_version,
        recorded(bundle.candidate.preprocessing),
        towers=towers,
    )
