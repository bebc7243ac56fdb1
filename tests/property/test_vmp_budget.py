"""The budget of MLLM calls under drift and a burst, and the recall that the audit estimates under it."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev

import pytest

from coefvq.cascade.audit_sample import AuditSample
from coefvq.vmp import rows
from coefvq.vmp.audit import audit_stream, kind_of
from coefvq.vmp.budget import Limits
from coefvq.vmp.index import open_index
from coefvq.vmp.records import LIVE, Task
from tests.vmp_budget_world import AUDIT_RATE, THRESHOLD, oracle, play, stream


def kept(folder: Path, seconds: float, rate: float, limits: Limits) -> dict[str, float]:
    """Play one stream; the figures that the budget promises, each as a share of what it may be."""
    sent = stream(1, seconds, rate)
    audit = AuditSample(rate=AUDIT_RATE)
    played = play(folder, sent, seconds, limits, audit)
    assert limits.rate is not None
    drawn = dict(zip(names := [video.name for video in sent], audit.selected(names).tolist(), strict=True))
    asked = {name for _, name in played.calls}
    with open_index(folder / "index.sqlite") as index:
        scores = dict(index.scores("icd"))
    # a video that was drawn and filtered out, a minute and more before the end
    due = {video.name for video in sent if drawn[video.name] and video.score < THRESHOLD and video.at < seconds - 60}
    found = sum(scores[v.name]["mllm_score"] is not None and "audit_probability" not in scores[v.name] and v.positive
                for v in sent)  # fmt: skip
    recall = found / sum(video.positive for video in sent)
    best = oracle(sent, limits.rate * seconds - sum(drawn.values()))
    figures = {
        "events": float(len(sent)),
        "mean": played.per_second() / limits.rate,
        "worst minute": (played.worst_minute() - limits.burst) / (60 * limits.rate),
        "recall": recall,
        "recall of the oracle": best,
        "audits": len(due & asked) / len(due),
        "wanted": sum(video.score >= THRESHOLD for video in sent) / (limits.rate * seconds),
    }
    print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


def check(figures: dict[str, float]) -> None:
    assert figures["wanted"] > 1.2  # more want the MLLM than it may see
    assert figures["mean"] <= 1.02
    assert figures["worst minute"] <= 1.1
    assert figures["recall"] >= 0.95 * figures["recall of the oracle"]
    assert figures["audits"] == 1.0


def test_a_budget_is_kept_and_spent_on_the_highest_scores(tmp_path: Path) -> None:
    check(kept(tmp_path, 3600.0, 0.5, Limits(0.075, 4.0, 1200.0)))


@pytest.mark.long
@pytest.mark.timeout(3600)  # beside other work
def test_six_hours_of_the_stream_that_chose_the_design(tmp_path: Path) -> None:
    check(kept(tmp_path, 6 * 3600.0, 4.0, Limits(0.6, 8.0, 1800.0)))


def errors(folder: Path, seeds: range) -> list[tuple[float, float, float, float]]:
    """Per seed: missed positives by the audit's estimate and in truth, recall by the estimate and in truth."""
    found = []
    for seed in seeds:
        sent = stream(seed, 600.0, 0.6)
        truth = {video.name: int(video.positive) for video in sent}
        # many more draws than one takes, so that 200 seeds tell a bias; the rest of the budget is short after the drift
        play(folder / str(seed), sent, 900.0, Limits(0.16, 4.0, 60.0), AuditSample(rate=0.2, seed=seed), sure=False)
        with open_index(folder / str(seed) / "index.sqlite") as index:
            scores = dict(index.scores("icd"))
        kinds = {name: kind_of(score) for name, score in scores.items()}
        assert set(kinds.values()) == {"flagged", "rejected", "audited", "unseen"}
        labels = {name: truth[name] for name, kind in kinds.items() if kind != "unseen"}
        made = audit_stream("icd", scores.items(), labels).estimate
        caught = sum(truth[name] for name, kind in kinds.items() if kind == "flagged")
        missed = sum(truth.values()) - caught
        found.append((made.missed.value, float(missed), made.recall.value, caught / (caught + missed)))
    return found


def bias(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean difference of estimate and truth, and its standard error."""
    differences = [estimate - truth for estimate, truth in pairs]
    return mean(differences), stdev(differences) / math.sqrt(len(differences))


@pytest.mark.long
@pytest.mark.timeout(3600)  # beside other work
def test_the_audit_s_estimate_is_unbiased_under_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = errors(tmp_path / "honest", range(200))
    missed, missed_error = bias([(a, b) for a, b, _, _ in honest])
    recall, recall_error = bias([(c, d) for _, _, c, d in honest])
    print(f"missed {missed:+.3f} ± {missed_error:.3f}, recall {recall:+.4f} ± {recall_error:.4f}")
    assert abs(missed) < 3 * missed_error
    assert abs(recall) < 3 * recall_error + 0.01  # a ratio of estimates is biased by a little

    def shed(*values: object, drawn: bool = False) -> Task:
        video_id, version, epoch, views, _, *rest = values
        return Task(video_id, version, epoch, views, LIVE, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "Task", shed)  # audits wait by score like all others, and are given up like them
    control = errors(tmp_path / "shed", range(200))
    missed, missed_error = bias([(a, b) for a, b, _, _ in control])
    print(f"audits shed: missed {missed:+.3f} ± {missed_error:.3f}")
    assert missed < -3 * missed_error
