"""The proposal: gather scores and labels, choose a policy for the champion's models, and show what it changes.

Nothing is registered here. The files of a proposal are ``candidate.json``, ``proposal.json`` and ``flips.csv``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Thresholds
from coefvq.errors import DataError, RegistryError
from coefvq.evaluation.detail import DetailSettings, against_models
from coefvq.evaluation.report import evaluation_report
from coefvq.files import sha256_file, sha256_json, write_json, write_text
from coefvq.registry import gates, pair_files, pairs
from coefvq.registry.bundle import Candidate, Retuning, build_candidate, bundle_version, version_of
from coefvq.registry.gates import GateReport
from coefvq.registry.pair_files import LoadedBundle
from coefvq.retuning.comparison import compare_calls, compare_quality, flip_counts, flipped
from coefvq.retuning.rescoring import rescored
from coefvq.retuning.sample import FreshSample, fresh_sample
from coefvq.retuning.settings import CANDIDATE, RetuneRequest, RetuneSettings
from coefvq.retuning.traffic import ScoredTraffic, read_traffic
from coefvq.stages.candidate import chosen_figures
from coefvq.stages.thresholds import search_policies
from coefvq.vmp.audit import read_drawn_labels

if TYPE_CHECKING:
    import pandas as pd

#: share of the MLLM's F1 to keep where neither the rule nor the gate asks for any; that of new workspaces
_KEPT_F1 = 0.97
PROPOSAL, FLIPS = "proposal.json", "flips.csv"


@dataclass(frozen=True)
class Proposal:
    """What a re-tuning found; ``report`` is ready for JSON.

    ``candidate`` and ``gate`` are None where the thresholds stay as they are.
    """

    report: dict[str, Any]
    flips: pd.DataFrame
    candidate: Candidate | None
    gate: GateReport | None


def propose(settings: RetuneSettings, request: RetuneRequest) -> Proposal:
    """Choose thresholds for the champion's models by the rule of the settings; the tracking store is configured.

    Raises:
        RegistryError: there is no champion, or its files were changed.
        DataError: scores or labels do not fit each other or the champion, or do not suffice.
        InfeasibleError: no pair of thresholds meets the rule.
    """
    issue = settings.issue
    bundle = pair_files.resolve(issue)
    old = CascadePolicy.from_dict(bundle.policy, f"policy of {bundle.bundle_version}")
    traffic = _of_its_models(read_traffic(issue, request), bundle)
    labels = read_drawn_labels(request.labels, issue)
    sample = fresh_sample(traffic, labels, old, request.min_labels, str(request.labels))
    rule = _rule(settings, request.qps)
    found = search_policies(sample.scores, issue, rule, settings.evaluate.precision_targets, settings.evaluate.metrics)
    new = CascadePolicy.from_dict(found["policy"], f"thresholds.{issue}")
    seed, replicates = settings.stability.seed, settings.evaluate.bootstrap
    quality = compare_quality(sample.scores, old, new, replicates, seed)
    flips = flipped(traffic.frame, old, new)
    report = {
        **_summary(bundle, found, sample, traffic),
        "changed": new != old,
        "policy": {"old": old.to_dict(), "new": new.to_dict()},
        "calls": compare_calls(traffic.frame, old, new, rule.max_qps_ratio if rule.mode == "qps" else None),
        "quality": quality,
        "flips": flip_counts(flips, len(traffic.frame)),
        "notes": _notes(traffic, old, new, flips),
    }
    if new == old:
        return Proposal(report, flips, None, None)
    origin = Retuning(
        bundle_version=bundle.bundle_version,
        content_hash=bundle.candidate.content_hash,
        labels_sha256=sha256_file(request.labels),
        scores_sha256=_digest(traffic.frame),
        labelled=sample.labelled,
        positives=sample.positives,
        traffic=len(traffic.frame),
        champion_f1=quality["old"]["f1"]["value"],
    )
    candidate = _candidate(settings, bundle, sample, found, new, origin)
    gate = gates.check(candidate, bundle.candidate, settings.gate)
    return Proposal({**report, "gate": gate.model_dump(mode="json")}, flips, candidate, gate)


def write(proposal: Proposal, folder: Path) -> None:
    """The files of a proposal; a candidate of an earlier one goes, if this one has none.

    Raises:
        StorageError: the folder may not be written.
    """
    write_text(folder / FLIPS, proposal.flips.to_csv(index=False))
    if proposal.candidate is None:
        (folder / CANDIDATE).unlink(missing_ok=True)
    else:
        write_json(folder / CANDIDATE, proposal.candidate.to_json())
    # last: with it the proposal is complete
    write_json(folder / PROPOSAL, proposal.report)


def _of_its_models(traffic: ScoredTraffic, bundle: LoadedBundle) -> ScoredTraffic:
    """Rows that the champion's models scored, also under another policy."""
    stamps = [stamp for stamp in traffic.frame["bundle"].unique() if stamp is not None]
    mine = traffic.scored_by(stamp for stamp in stamps if _same_models(str(stamp), bundle))
    if not len(mine.frame):
        raise DataError(
            f"{traffic.source}: none of the {len(traffic.frame)} videos was scored by the models of the champion "
            f"{bundle.bundle_version} (but by {', '.join(sorted(map(str, stamps))[:3])}); score them again: "
            "coefvq vmp rescore start, then coefvq vmp run"
        )
    return mine


def _same_models(stamp: str, bundle: LoadedBundle) -> bool:
    number = version_of(stamp)
    if stamp == bundle.bundle_version or not number.isdecimal():
        return stamp == bundle.bundle_version
    try:
        other = pairs.candidate_of(bundle.issue, number)
    except RegistryError:  # deleted: nobody knows its models any more
        return False
    same = other.models_sha256 == bundle.candidate.models_sha256
    return same and stamp == bundle_version(number, other.content_hash)


def _rule(settings: RetuneSettings, qps: float | None) -> Thresholds:
    """The rule of params.yaml, or mode ``qps`` at the share that was asked for; rows of P_base are not compared."""
    rule = settings.thresholds
    if qps is None:
        return rule
    kept = rule.min_kept_f1 or settings.gate.min_kept_f1 or _KEPT_F1
    return Thresholds(
        mode="qps",
        max_qps_ratio=qps,
        min_kept_f1=kept,
        views_trigger=rule.views_trigger,
        mllm_down=rule.mllm_down,
    )


def _summary(
    bundle: LoadedBundle, found: Mapping[str, Any], sample: FreshSample, traffic: ScoredTraffic
) -> dict[str, Any]:
    """What was re-tuned, by which rule, on how many labels and videos."""
    return {
        "issue": bundle.issue,
        "champion": bundle.bundle_version,
        "mode": found["mode"],
        "reason": found["reason"],
        "labels": {"used": sample.labelled, "positives": sample.positives, "unused": sample.unused},
        "traffic": {
            "source": traffic.source,
            "videos": len(traffic.frame),
            "failed": len(traffic.failed),
            "of_other_models": len(traffic.other_models),
        },
    }


def _notes(traffic: ScoredTraffic, old: CascadePolicy, new: CascadePolicy, flips: pd.DataFrame) -> list[str]:
    notes = []
    if traffic.frame["bundle"].isna().all():
        notes.append(f"{traffic.source} does not say which pair scored it; taken as scored by the champion")
    unknown = int((flips["after"] == "unknown").sum())
    if unknown:
        notes.append(
            f"{unknown} videos that the new policy escalates have no MLLM score yet: their decision is unknown"
        )
    triggers = [policy.views_trigger for policy in (old, new)]
    if any(trigger is not None for trigger in triggers) and traffic.frame["views"].isna().all():
        notes.append("views are unknown: calls that the views trigger makes are not counted")
    return notes


def _candidate(
    settings: RetuneSettings,
    bundle: LoadedBundle,
    sample: FreshSample,
    found: Mapping[str, Any],
    new: CascadePolicy,
    origin: Retuning,
) -> Candidate:
    """The champion with the new policy, judged on the held-out half of the fresh labels."""
    before, evaluate = bundle.candidate, settings.evaluate
    evaluation = evaluation_report(sample.scores, settings.issue, evaluate.precision_targets, evaluate.metrics)
    detail = DetailSettings(evaluate.precision_targets, (), evaluate.bootstrap, None, settings.stability.seed)
    ids = sample.scores.loc[sample.scores["split"] == "test", ["video_id"]]
    return build_candidate(
        settings.issue,
        base=before.base,
        mllm=before.mllm,
        policy=new.to_dict(),
        preprocessing=before.preprocessing,
        data=before.data,
        params=before.params,
        metrics={
            **evaluation["test"],
            "cascade": chosen_figures(found),
            "against_models": against_models(sample.scores, ids, new, detail),
            "stability": rescored(settings, bundle, new),
        },
        calibration=before.calibration,
        retuned=origin,
    )


def _digest(frame: pd.DataFrame) -> str:
    # as text: JSON has no NaN, and an MLLM score may be missing
    return sha256_json(frame[["video_id", "base", "mllm"]].to_csv(index=False))
