"""Prefect tasks around a re-tuning: the proposal is made by the command itself, in a child process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from coefvq.data.locations import rooted
from coefvq.errors import CoefVQError, RegistryError
from coefvq.registry.pairs import RegisteredPair
from coefvq.retuning import offer
from coefvq.retuning.proposal import PROPOSAL
from coefvq.retuning.settings import CANDIDATE, RetuneSettings
from coefvq.terminal import clean
from tasks.pipeline import child_path
from tasks.process import CHILDREN
from tasks.release import connect

_ERROR = "error: "


@dataclass(frozen=True)
class RetuneRun:
    """One re-tuning: the workspace, its run environment, and where the proposal of this run lies."""

    issue: str
    root: Path
    env: Mapping[str, str]
    folder: Path

    def settings(self) -> RetuneSettings:
        """The settings of the workspace, whose tracking store is used from here on."""
        params = connect(self.root, self.env)
        return RetuneSettings.of(params.model_copy(update={"paths": rooted(params.paths, self.root)}), self.issue)


def make_proposal(run: RetuneRun, options: list[str]) -> bool:
    """Run ``coefvq retune`` unless this run has done so before; returns whether there is something to propose.

    A suspended run starts from its top when it is resumed, and the stream has gone on meanwhile: it is the first
    proposal that is decided on.

    Raises:
        CoefVQError: the command refused; the message is its own error line.
    """
    if not (run.folder / PROPOSAL).is_file():
        argv = [sys.executable, "-m", "coefvq", "retune", run.issue, *options, "--out", str(run.folder)]
        done = CHILDREN.run(
            argv, run.root, {**child_path(), **run.env}, lambda line: get_run_logger().info(clean(line))
        )
        if done.returncode:
            own = [line.removeprefix(_ERROR) for line in done.tail if line.startswith(_ERROR)]
            raise CoefVQError((own or list(done.tail) or ["no output"])[-1])
    return (run.folder / CANDIDATE).is_file()


def offer_proposal(run: RetuneRun) -> RegisteredPair:
    """Gate, then register as challenger.

    Raises:
        RegistryError: the gate refuses, or another pair is champion by now.
    """
    outcome = offer.register_proposed(run.settings(), run.folder)
    if outcome.pair is None:
        raise RegistryError(f"gate refused the new thresholds of {run.issue}: {outcome.report.failures}")
    return outcome.pair


@task(task_run_name="propose {run.issue}", cache_policy=NO_CACHE)
def propose(run: RetuneRun, options: list[str]) -> bool:
    """A proposal in the run's folder."""
    return make_proposal(run, options)


@task(task_run_name="register {run.issue}", cache_policy=NO_CACHE)
def register_proposal(run: RetuneRun) -> RegisteredPair:
    """The proposal as challenger."""
    pair = offer_proposal(run)
    get_run_logger().info("%s: bundle %s is registered", run.issue, pair.bundle_version)
    return pair


@task(task_run_name="keep {pair.issue}", cache_policy=NO_CACHE)
def keep_proposal(run: RetuneRun, pair: RegisteredPair) -> str | None:
    """Link to the proposal; None where it could not be kept, which must not hold up the decision."""
    try:
        return offer.keep_proposal(run.settings(), pair, run.folder)
    except CoefVQError as error:
        get_run_logger().warning("%s: the proposal is not kept with the pair (%s)", pair.issue, error)
        return None
