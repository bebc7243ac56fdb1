"""How steady decisions near new thresholds are: clips of the workspace, scored again by the champion's models."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coefvq.cascade.policy import CascadePolicy
from coefvq.data.manifest import read_table
from coefvq.errors import DataError
from coefvq.inference import recorded
from coefvq.records import REQUIRED_SCORE_COLUMNS
from coefvq.registry.attachments import SCORES, attached
from coefvq.registry.bundle import Candidate, read_candidate
from coefvq.registry.pair_files import LoadedBundle
from coefvq.retuning.settings import CANDIDATE, RetuneSettings
from coefvq.stages.stability import measure


def rescored(settings: RetuneSettings, bundle: LoadedBundle, policy: CascadePolicy) -> dict[str, Any]:
    """Videos of the workspace near the new thresholds, scored again by the champion's models as it is served."""
    scoring = recorded(bundle.candidate.preprocessing).scoring
    as_served = {name: getattr(scoring, name) for name in type(scoring).model_fields}
    predict = settings.stability.predict.model_copy(update=as_served)
    inputs = settings.stability.model_copy(update={"predict": predict})
    manifest = read_table(Path(inputs.paths.manifest), ("video_id",))
    with TemporaryDirectory() as folder:
        path = known_scores(settings, bundle.version, bundle.candidate, Path(folder))
        scores = read_table(path, REQUIRED_SCORE_COLUMNS)
    scores = scores[scores["video_id"].isin(manifest["video_id"])].reset_index(drop=True)
    if not len(scores):
        raise DataError(f"{inputs.paths.manifest}: holds none of the videos that {bundle.bundle_version} was made on")
    report = measure(inputs, policy, scores, {"base": bundle.base_dir, "mllm": bundle.mllm_dir})
    return {key: report[key] for key in ("n", "flip_rate")}


def known_scores(settings: RetuneSettings, version: str, candidate: Candidate, folder: Path) -> Path:
    """Scores of the workspace's videos by the models of a pair: those kept with it, else the workspace's own.

    Args:
        version: of the pair.
        candidate: what the registry holds of it.
        folder: where a kept file is copied to.

    Raises:
        DataError: neither is there.
    """
    issue, paths = settings.issue, settings.stability.paths
    kept = attached(issue, version, SCORES, folder)
    if kept is not None:
        return kept
    pair = paths.report(issue, CANDIDATE)
    made = read_candidate(pair) if pair.is_file() else None
    if made is not None and (made.base.sha256, made.mllm.sha256) == (candidate.base.sha256, candidate.mllm.sha256):
        return paths.report(issue, SCORES)
    raise DataError(
        f"{paths.report(issue, SCORES)}: not made by the models of {issue} version {version}, and no scores are kept "
        "with that version; check out the commit that made it and run `dvc checkout`"
    )
