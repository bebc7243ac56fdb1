"""A registered pair's files on this machine, every byte checked against what was registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.errors import RegistryError
from coefvq.files import sha256_tree
from coefvq.registry import history, tracking
from coefvq.registry.bundle import PART_KINDS, Candidate, ModelRef, PartKind, bundle_version
from coefvq.registry.pairs import CHAMPION, RegisteredPair, aliases, candidate_of, find


@dataclass(frozen=True)
class LoadedBundle:
    """A pair with its files on this machine; ``resolve`` has verified their hashes."""

    issue: str
    version: str
    bundle_version: str
    base_dir: Path
    mllm_dir: Path
    candidate: Candidate

    @property
    def policy(self) -> dict[str, Any]:
        """The policy as JSON."""
        return dict(self.candidate.policy)


def verified_folders(candidate: Candidate) -> dict[PartKind, Path]:
    """Local folders of both models, every byte checked against the candidate.

    Raises:
        RegistryError: files are gone, or differ from what was registered.
    """
    folders = _folders(candidate, None)
    verify(candidate, folders)
    return folders


def _folders(candidate: Candidate, cache_dir: Path | None) -> dict[PartKind, Path]:
    return {kind: tracking.model_artifact(candidate.part(kind).model_id, "model", cache_dir) for kind in PART_KINDS}


def verify(candidate: Candidate, folders: Mapping[PartKind, Path]) -> None:
    """Check every byte of both models against the candidate.

    Raises:
        RegistryError: files are gone, or differ from what was registered.
    """
    for kind, folder in folders.items():
        _verify(candidate.issue, kind, candidate.part(kind), folder)


def _verify(issue: str, kind: PartKind, ref: ModelRef, folder: Path) -> None:
    actual = sha256_tree(folder) if folder.is_dir() else "nothing"
    if actual != ref.sha256:
        raise RegistryError(
            f"{issue} {kind}: {folder} has sha256 {actual[:12]}, registered was {ref.sha256[:12]}; "
            "the files were changed after approval: restore the store or roll back "
            "(a copy in the cache folder may simply be deleted)"
        )


def missing_part(candidate: Candidate) -> str | None:
    """Id of a model of the pair that the store or the disk has lost; None when both are there.

    A tracking server is asked for its records only, not for its files.
    """
    ids = [candidate.part(kind).model_id for kind in PART_KINDS]
    return next((model_id for model_id in ids if not tracking.has_model(model_id, "model")), None)


def require_models(pair: RegisteredPair) -> None:
    """Refuse a pair that the store has lost a model of.

    Raises:
        RegistryError: a model is gone.
    """
    gone = missing_part(candidate_of(pair.issue, pair.version))
    if gone is not None:
        raise RegistryError(
            f"{pair.issue} version {pair.version}: its model {gone} is gone from the store; restore it or train again"
        )


def check_alias(candidate: Candidate) -> None:
    """Refuse a pair that MLflow itself loads while the alias ``champion`` is on it without a decision.

    By which name or version it was asked for is not known here.

    Raises:
        RegistryError: the alias was moved to this pair by hand.
    """
    version = aliases(candidate.issue).get(CHAMPION)
    pair = None if version is None else find(candidate.issue, version)
    if pair is not None and pair.content_hash == candidate.content_hash:
        history.require_decided_champion(pair.issue, pair.version, pair.content_hash)


def resolve(issue: str, alias: str = CHAMPION, cache_dir: Path | None = None) -> LoadedBundle:
    """The pair an alias or version number stands for, with verified local folders.

    The champion has to be one that a decision made champion. A version number is taken as asked for.

    Args:
        cache_dir: where files from a tracking server are kept; a local store is read in place.

    Raises:
        RegistryError: there is none, its alias was moved by hand, or its files are gone or were changed.
    """
    found = unchecked(issue, alias, cache_dir)
    verify(found.candidate, {"base": found.base_dir, "mllm": found.mllm_dir})
    return found


def unchecked(issue: str, alias: str = CHAMPION, cache_dir: Path | None = None) -> LoadedBundle:
    """As ``resolve``, but nobody has looked into the files.

    Raises:
        RegistryError: there is none, its alias was moved by hand, or its files are gone.
    """
    version = alias if alias.isdecimal() else aliases(issue).get(alias)
    if version is None and alias == CHAMPION:
        raise RegistryError(
            f"no champion for {issue}; approve a challenger first: "
            f"coefvq approve --issue {issue} --by NAME --reason WHY"
        )
    if version is None:
        raise RegistryError(f"no {alias} for {issue}; register a candidate first: coefvq register --issue {issue}")
    candidate = candidate_of(issue, version)
    if alias == CHAMPION:
        history.require_decided_champion(issue, version, candidate.content_hash)
    folders = _folders(candidate, cache_dir)
    stamp = bundle_version(version, candidate.content_hash)
    return LoadedBundle(issue, version, stamp, folders["base"], folders["mllm"], candidate)
