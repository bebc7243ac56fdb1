"""Pairs in the registry: register a candidate, find a version, get its verified files.

Three registered models per issue: ``coefvq-<issue>-base``, ``…-mllm`` and ``…-cascade``. A version of the
last is a pair: its pair.json names both models by LoggedModel id, which, unlike a version number, still
works after somebody deletes a version. Aliases of the cascade: ``champion`` is served, ``challenger`` waits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from coefvq.errors import RegistryError
from coefvq.registry import history, tracking
from coefvq.registry.bundle import (
    PART_KINDS,
    Candidate,
    PartKind,
    bundle_version,
    read_candidate,
    registered_name,
)
from coefvq.registry.gates import GateReport
from coefvq.registry.store import exclusive

Alias = Literal["champion", "challenger"]
CHAMPION: Alias = "champion"
CHALLENGER: Alias = "challenger"


@dataclass(frozen=True)
class RegisteredPair:
    """One version of a cascade; ``gate`` is the report stored with it, None where it is not there or not readable.

    From ``register_candidate``: ``created`` says that the version is new, ``offered`` that it became challenger;
    a pair that is not offered was decided on before, and nobody needs to be asked.
    """

    issue: str
    version: str
    content_hash: str
    gate: GateReport | None
    created: bool = False
    offered: bool = False

    @property
    def bundle_version(self) -> str:
        """What scores of this pair are stamped with."""
        return bundle_version(self.version, self.content_hash)


def register_candidate(candidate: Candidate, gate: GateReport) -> RegisteredPair:
    """Register both models and the pair, and make the pair the challenger.

    The same content hash gives the same version. A pair that was approved or rejected before does not
    become challenger again, so that an unchanged nightly retraining asks nobody twice.

    Raises:
        RegistryError: a model is not in this store or differs from the candidate's, or the store does not answer.
    """
    with exclusive(tracking.store()):
        found = _with_hash(candidate)
        if found is None:
            for kind in PART_KINDS:
                _register_part(candidate, kind)
            found = _register_pair(candidate)
        past = history.of_pair(candidate.issue, found.content_hash)
        if history.last_verdict(past, found.version, found.content_hash) is None:
            found = _offer(found, gate)
    return found


def _with_hash(candidate: Candidate) -> RegisteredPair | None:
    name = registered_name(candidate.issue, "cascade")
    versions = _versions(f"name = '{name}' and tags.content_hash = '{candidate.content_hash}'")
    newest = max(versions, key=lambda item: int(item.version), default=None)
    return None if newest is None else _pair(candidate.issue, newest)


def _register_part(candidate: Candidate, kind: PartKind) -> None:
    ref = candidate.part(kind)
    logged = _logged_model(ref.model_id)
    if logged is None:
        raise RegistryError(
            f"{candidate.issue} {kind}: model {ref.model_id} is not in {tracking.store().shown}; "
            "train again against this store, or configure the store of the training"
        )
    if logged.tags.get("sha256") != ref.sha256:
        raise RegistryError(
            f"{candidate.issue} {kind}: the files that were logged as {ref.model_id} are not those of the candidate "
            f"(sha256 {ref.sha256[:12]}); run the training stage again"
        )
    name = registered_name(candidate.issue, kind)
    if not _versions(f"name = '{name}' and tags.model_id = '{ref.model_id}'"):
        _create_version(name, ref.model_id, {"model_id": ref.model_id, "sha256": ref.sha256})


def _register_pair(candidate: Candidate) -> RegisteredPair:
    model_id = tracking.log_pair(candidate)
    tags = {
        "content_hash": candidate.content_hash,
        "base_model_id": candidate.base.model_id,
        "mllm_model_id": candidate.mllm.model_id,
        "data_version": candidate.data.version or "",
        "manifest_sha256": candidate.data.manifest_sha256,
        "splits_sha256": candidate.data.splits_sha256,
    }
    made = _create_version(registered_name(candidate.issue, "cascade"), model_id, tags)
    return RegisteredPair(candidate.issue, str(made.version), candidate.content_hash, gate=None, created=True)


def _create_version(name: str, model_id: str, tags: dict[str, str]) -> Any:
    # the client's call, not mlflow.register_model, which prints
    client = tracking.client()
    if tracking.or_none(lambda: client.get_registered_model(name)) is None:
        with tracking.store_errors():
            client.create_registered_model(name)
    with tracking.store_errors():
        return client.create_model_version(name, f"models:/{model_id}", tags=tags, model_id=model_id)


def _offer(pair: RegisteredPair, gate: GateReport) -> RegisteredPair:
    name, client = registered_name(pair.issue, "cascade"), tracking.client()
    with tracking.store_errors():
        client.set_model_version_tag(name, pair.version, "gate", gate.model_dump_json())
        client.set_registered_model_alias(name, CHALLENGER, pair.version)
    return replace(pair, gate=gate, offered=True)


def _versions(query: str) -> list[Any]:
    with tracking.store_errors():
        return list(tracking.client().search_model_versions(query))


def _pair(issue: str, version: Any) -> RegisteredPair:
    try:
        gate = GateReport.model_validate_json(version.tags.get("gate", ""))
    except ValidationError:  # deleted or edited in the UI
        gate = None
    return RegisteredPair(issue, str(version.version), str(version.tags.get("content_hash", "")), gate)


def find(issue: str, version: str) -> RegisteredPair | None:
    """The pair registered under a version number; None where it does not exist (any more)."""
    if not version.isdecimal():
        raise RegistryError(f"version {version!r}: expected a number; `coefvq status` shows them")
    name = registered_name(issue, "cascade")
    found = tracking.or_none(lambda: tracking.client().get_model_version(name, version))
    return None if found is None else _pair(issue, found)


def aliases(issue: str) -> dict[str, str]:
    """Alias -> version of an issue's cascade; empty where nothing was registered."""
    name = registered_name(issue, "cascade")
    found = tracking.or_none(lambda: tracking.client().get_registered_model(name))
    return {} if found is None else {str(alias): str(version) for alias, version in found.aliases.items()}


def issues() -> list[str]:
    """Issues of which a pair was ever registered, in alphabetical order."""
    start, end = registered_name("%", "cascade").split("%")
    with tracking.store_errors():
        models = tracking.client().search_registered_models(f"name LIKE '{start}%{end}'", max_results=1000)
    return sorted(str(model.name).removeprefix(start).removesuffix(end) for model in models)


def set_alias(issue: str, alias: Alias, version: str) -> None:
    """Point an alias to a version: one atomic call."""
    with tracking.store_errors():
        tracking.client().set_registered_model_alias(registered_name(issue, "cascade"), alias, version)


def drop_challenger(issue: str, version: str) -> None:
    """Remove the alias ``challenger`` if it points to ``version``; a newer challenger keeps it."""
    if aliases(issue).get(CHALLENGER) == version:
        with tracking.store_errors():
            tracking.client().delete_registered_model_alias(registered_name(issue, "cascade"), CHALLENGER)


def candidate_of(issue: str, version: str) -> Candidate:
    """The candidate stored with a version.

    Raises:
        RegistryError: the version does not exist, or its pair.json is gone or was changed.
    """
    name = registered_name(issue, "cascade")
    found = tracking.or_none(lambda: tracking.client().get_model_version(name, version))
    if found is None:
        raise RegistryError(f"{name} version {version} does not exist; `coefvq status` shows what there is")
    candidate = read_candidate(tracking.model_artifact(str(found.source).removeprefix("models:/"), "pair"))
    if candidate.content_hash != found.tags.get("content_hash"):
        raise RegistryError(f"{name} version {version}: its pair.json is not the one registered; restore the store")
    return candidate


def _logged_model(model_id: str) -> Any:
    return tracking.or_none(lambda: tracking.client().get_logged_model(model_id))
