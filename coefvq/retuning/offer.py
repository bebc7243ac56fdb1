"""From a written proposal to a challenger: the gate, the registry, and the files people decide from."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from coefvq.errors import RegistryError
from coefvq.registry import pairs, release
from coefvq.registry.attachments import SCORES, attach
from coefvq.registry.bundle import Candidate, read_candidate
from coefvq.registry.pairs import RegisteredPair
from coefvq.registry.release import Registration
from coefvq.retuning.proposal import FLIPS, PROPOSAL
from coefvq.retuning.rescoring import known_scores
from coefvq.retuning.settings import CANDIDATE, RetuneSettings


def read_proposed(settings: RetuneSettings, folder: Path) -> Candidate:
    """The candidate of a proposal that was made for the present champion.

    Raises:
        RegistryError: it was not re-tuned, is of another issue, or another pair is champion by now.
        DataError: there is none.
    """
    issue, path = settings.issue, folder / CANDIDATE
    if not path.is_file():
        raise RegistryError(f"{path}: no proposal waits; make one first: coefvq retune {issue} --labels TABLE")
    candidate = read_candidate(path)
    if candidate.issue != issue or candidate.retuned is None:
        raise RegistryError(f"{path}: no proposal for {issue}; run `coefvq retune {issue}` again")
    champion = pairs.aliases(issue).get(pairs.CHAMPION)
    now = None if champion is None else pairs.candidate_of(issue, champion).content_hash
    if now not in (candidate.retuned.content_hash, candidate.content_hash):
        raise RegistryError(
            f"{path}: re-tuned from {candidate.retuned.bundle_version}, but version {champion} is champion by now; "
            f"run `coefvq retune {issue}` again"
        )
    return candidate


def register_proposed(settings: RetuneSettings, folder: Path, *, keep_refused: bool = False) -> Registration:
    """Hold a written proposal against the gate and make it the challenger.

    Raises:
        RegistryError: as :func:`read_proposed`, or the store does not answer.
    """
    return release.register(read_proposed(settings, folder), settings.gate, keep_refused=keep_refused)


def keep_proposal(settings: RetuneSettings, pair: RegisteredPair, folder: Path) -> str:
    """Keep the proposal with its pair; returns the link to it.

    The scores of the workspace's videos, which the models of the pair made, are kept with it as well: a later pair is
    compared on them.

    Raises:
        DataError: there are no such scores.
        RegistryError: the store does not answer.
    """
    with TemporaryDirectory() as scratch:
        candidate = read_candidate(folder / CANDIDATE)
        version = pair.version if candidate.retuned is None else candidate.retuned.version
        scores = known_scores(settings, version, candidate, Path(scratch))
        return attach(pair.issue, pair.version, {PROPOSAL: folder / PROPOSAL, FLIPS: folder / FLIPS, SCORES: scores})
