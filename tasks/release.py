"""Prefect tasks around the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from coefvq.config import Params, load_params
from coefvq.data.locations import rooted
from coefvq.errors import CoefVQError, RegistryError
from coefvq.files import write_json, write_text
from coefvq.registry import release, tracking
from coefvq.registry.bundle import read_candidate
from coefvq.registry.champions import champion_profile
from coefvq.registry.history import Decision, last_verdict
from coefvq.registry.pairs import RegisteredPair
from coefvq.reporting.gather import ReportSettings, keep_report


def connect(root: Path, env: Mapping[str, str]) -> Params:
    """Use the tracking store of a workspace from here on; returns its parameters.

    ``root`` may be a clone of the workspace; ``env`` is its ``run_environment``. The process's own environment
    stays as it is, since the next call may be about another workspace.
    """
    settings = load_params(root / "params.yaml")
    tracking.configure(
        settings.tracking.uri,
        settings.tracking.experiment,
        root=Path(env["COEFVQ_WORKSPACE"]),
        default=env["MLFLOW_TRACKING_URI"],
    )
    return settings


def write_reference(folder: Path, env: Mapping[str, str]) -> None:
    """Put the champion's data profile into a run's clone, once: a run that starts again keeps what it began with."""
    done = folder / ".coefvq" / "reference"
    if done.is_file():
        return
    settings = connect(folder, env)
    found = champion_profile(settings.issues)
    if found is not None:
        write_json(folder / settings.paths.reference, found[1])
    write_text(done, found[0] if found else "none")


def offer_to_gate(issue: str, root: Path, env: Mapping[str, str]) -> release.Registration:
    """Hold the candidate of an issue against the gate; a challenger where it passes."""
    settings = connect(root, env)
    candidate = read_candidate(root / settings.paths.report(issue, "candidate.json"))
    return release.register(candidate, settings.gate)


def offer(issue: str, root: Path, env: Mapping[str, str]) -> RegisteredPair:
    """``offer_to_gate`` where a refusal is an error.

    Raises:
        RegistryError: the gate refuses.
    """
    outcome = offer_to_gate(issue, root, env)
    if outcome.pair is None:
        raise RegistryError(f"gate refused the candidate of {issue}: {outcome.report.failures}")
    return outcome.pair


def attach_report(pair: RegisteredPair, root: Path, env: Mapping[str, str]) -> str:
    """``keep_report`` for a pair of the workspace at ``root``."""
    settings = connect(root, env)
    return keep_report(ReportSettings.of(settings.model_copy(update={"paths": rooted(settings.paths, root)})), pair)


def decide(
    issue: str, verdict: str, by: str, reason: str, version: str | None, flow_run_id: str | None = None
) -> Decision:
    """Approve or reject one version."""
    act = release.approve if verdict == "approve" else release.reject
    return act(issue, by, reason, version, flow_run_id=flow_run_id)


def decision_on(pair: RegisteredPair) -> Decision | None:
    """The decision somebody has already taken on this pair, if any."""
    return last_verdict(release.history(pair.issue), pair.version, pair.content_hash)


@task(task_run_name="register {issue}", cache_policy=NO_CACHE)
def register_challenger(issue: str, root: Path, env: Mapping[str, str]) -> RegisteredPair:
    """Gate, then register as challenger."""
    pair = offer(issue, root, env)
    get_run_logger().info("%s: bundle %s is registered", issue, pair.bundle_version)
    return pair


@task(task_run_name="report {pair.issue}", cache_policy=NO_CACHE)
def report_challenger(pair: RegisteredPair, root: Path, env: Mapping[str, str]) -> str | None:
    """Link to the report; None where none could be made, which must not hold up the decision."""
    try:
        link = attach_report(pair, root, env)
    except CoefVQError as error:
        get_run_logger().warning("%s: no report (%s)", pair.issue, error)
        return None
    get_run_logger().info("%s: report %s", pair.issue, link)
    return link


@task(task_run_name="{verdict} {issue}", cache_policy=NO_CACHE)
def record_decision(issue: str, verdict: str, by: str, reason: str, version: str | None, flow_run_id: str) -> Decision:
    """Carry out what a person decided."""
    decision = decide(issue, verdict, by, reason, version, flow_run_id)
    get_run_logger().info("%s version %s: %s by %s (%s)", issue, version, verdict, by, reason)
    return decision
