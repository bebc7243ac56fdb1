"""Retune to the end on a real store: proposal, gate, challenger, approval; what is served changes at the last step.

Scoring clips again near the thresholds needs trained networks: here that is a number; tests/integration/test_retune.py
does it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from coefvq.cli import registry, retune
from coefvq.errors import CoefVQError
from coefvq.registry import attachments, pair_files, pairs, release
from coefvq.retuning import rescoring
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.state import open_state
from tests.integration.registry.registry_workspace import PASSED, Workspace, challenger, champion
from tests.unit.retuning.fresh_world import OLD, truth, world
from tests.unit.scored_world import scores_table

Run = Callable[..., Result]
N = 2000
FILES = {"candidate.json", "proposal.json", "flips.csv"}


@pytest.fixture
def run(unregistered: Workspace, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A workspace whose champion was made on other traffic than now arrives, and commands run in it."""
    root = unregistered.root
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("params.yaml", "recipe.yaml"):
        (root / name).write_text((Path(__file__).parents[3] / name).read_text())
    _use(root, "max_qps_ratio: 15.0, min_kept_f1: 0.97", "max_qps_ratio: 25.0, min_kept_f1: 0.8")
    _use(root, "min_kept_f1: 0.97", "min_kept_f1: 0.8")
    _use(root, "max_qps_ratio: 25.0              #", "max_qps_ratio: 35.0              #")
    _use(root, "max_f1_drop: 0.05 ", "max_f1_drop: 0.15 ")  # fewer calls find less
    pair = pairs.register_candidate(unregistered.candidate(1, policy=OLD.to_dict()), PASSED)
    release.approve("icd", "ana", "first")
    known = scores_table(n=20)
    (root / "data").mkdir()
    known[["video_id"]].to_parquet(root / "data/manifest.parquet")
    known.to_parquet(root / "scores.parquet")
    attachments.attach("icd", pair.version, {"scores.parquet": root / "scores.parquet"})
    monkeypatch.setattr(rescoring, "measure", lambda *_: {"n": 20, "flip_rate": 0.0})
    _tables(root)
    app = typer.Typer()
    app.command(name="retune")(retune.retune)
    app.command(name="register")(registry.register)
    return lambda *words: CliRunner().invoke(app, words)


def _use(root: Path, old: str, new: str) -> None:
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new))


def _tables(root: Path, shift: float = 1.0) -> None:
    """Traffic whose base scores have moved up, and every fourth video's label."""
    frame = world(N, 0, shift).frame
    frame[["video_id", "base", "mllm"]].to_csv(root / "traffic.csv", index=False)
    labels = pd.DataFrame({"video_id": frame["video_id"], "label": truth(N)}).iloc[::4]
    labels.to_csv(root / "labels.csv", index=False)


def _error(result: Result) -> CoefVQError:
    assert isinstance(result.exception, CoefVQError), result.output
    return result.exception


ARGUMENTS = ("retune", "icd", "--labels", "labels.csv", "--scores", "traffic.csv")


def test_from_a_shift_to_another_served_policy(run: Run, unregistered: Workspace):
    before = pair_files.resolve("icd")
    result = run(*ARGUMENTS, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["calls"]["old"]["low"] > 30.0
    assert report["calls"]["new"]["value"] == pytest.approx(25.0, abs=3.0)
    assert report["policy"]["new"]["base_threshold"] > OLD.base_threshold
    assert report["gate"]["passed"]
    flips = pd.read_csv("reports/icd/retuned/flips.csv")
    assert len(flips) == sum(report["flips"][f"to_{kind}"] for kind in ("positive", "negative", "unknown")) > 0
    # a proposal is a file: nothing waits, nothing else is served
    assert (champion(), challenger()) == ("1", None)

    result = run("register", "--issue", "icd", "--retuned")
    assert result.exit_code == 0, result.output
    assert (champion(), challenger()) == ("1", "2")
    assert pair_files.resolve("icd").policy == before.policy
    gate = {check.name: check.explanation for check in pairs.find("icd", "2").gate.checks}
    assert "on the same fresh labels" in gate["f1_drop"]

    release.approve("icd", "ana", "fewer calls")
    after = pair_files.resolve("icd")
    assert after.policy == report["policy"]["new"] != before.policy
    assert (after.candidate.base, after.candidate.mllm) == (before.candidate.base, before.candidate.mllm)
    assert after.candidate.retuned.bundle_version == before.bundle_version
    assert after.candidate.retuned.labelled == N / 4
    # a later pair is compared on the scores that its models made
    for name in ("proposal.json", "flips.csv", "scores.parquet"):
        assert attachments.attached("icd", "2", name, unregistered.root / "kept") is not None
    # what was proposed for the champion before is not registered again for this one
    again = run("register", "--issue", "icd", "--retuned")
    assert "nothing, it was decided on before" in again.output


def test_nothing_to_do_once_it_is_served(run: Run):
    for _ in range(2):
        assert run(*ARGUMENTS).exit_code == 0
        run("register", "--issue", "icd", "--retuned")
        if challenger():
            release.approve("icd", "ana", "fewer calls")
    assert champion() == "2"
    result = run(*ARGUMENTS)
    assert "the thresholds stay as they are: nothing to propose" in result.output
    assert "no proposal waits" in str(_error(run("register", "--issue", "icd", "--retuned")))


def test_a_dry_run_writes_nothing(run: Run, unregistered: Workspace):
    result = run(*ARGUMENTS, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "gate of icd: passed" in result.output
    assert not (unregistered.root / "reports").exists()
    assert run(*ARGUMENTS, "--out", "elsewhere").exit_code == 0
    assert {path.name for path in (unregistered.root / "elsewhere").iterdir()} == FILES


def test_a_refused_proposal_ends_with_code_6_and_is_not_registered(run: Run, unregistered: Workspace):
    _use(unregistered.root, "max_qps_ratio: 35.0              #", "max_qps_ratio: 10.0              #")
    error = _error(run(*ARGUMENTS))
    assert error.exit_code == 6
    assert str(error).startswith("the gate would refuse the new thresholds of icd: qps_ratio: 2")
    assert _error(run("register", "--issue", "icd", "--retuned")).exit_code == 6
    assert (champion(), challenger()) == ("1", None)


def test_a_proposal_for_another_champion_is_refused(run: Run, unregistered: Workspace):
    run(*ARGUMENTS)
    pairs.register_candidate(unregistered.candidate(2, policy=OLD.to_dict()), PASSED)
    release.approve("icd", "ana", "newer models")
    error = _error(run("register", "--issue", "icd", "--retuned"))
    assert "re-tuned from 1-" in str(error)
    assert "but version 2 is champion by now; run `coefvq retune icd` again" in str(error)


NOW = "2026-11-29T00:00:00+00:00"


def _index(root: Path, stamp: str) -> None:
    """The stream's index of the same traffic: escalated above the champion's threshold, one in four others audited."""
    rows = []
    for number, row in enumerate(world(N, 0, 1.0).frame.itertuples(), 1):
        score = {"base_score": row.base, "bundle_version": stamp, "decided_by": "mllm", "mllm_score": row.mllm}
        if row.base < OLD.base_threshold:
            score |= {"audit_probability": 0.25, "mllm_score": row.mllm if number % 4 == 0 else None}
        score["positive"] = score["mllm_score"] is not None and row.mllm >= OLD.decision_threshold
        value = json.dumps({"scores": {"icd": score}})
        rows.append(SinkRow(number, str(row.video_id), 1, 1, 2, stamp, "live", "live", "default", value, NOW, "c"))
    with open_state(root / "vmp") as (log, index):
        log.publish([Event(row.video_id, uri=f"{row.video_id}.mp4") for row in rows])
        index.apply(rows, "pipeline", len(rows))
    asked = [(row, json.loads(row.value)["scores"]["icd"]) for row in rows]
    drawn = [row.video_id for row, score in asked if score["mllm_score"] is not None]
    values = truth(N)
    pd.DataFrame({"video_id": drawn, "label": [values[int(name[1:])] for name in drawn]}).to_csv(
        root / "audited.csv", index=False
    )


def test_from_the_index_with_audited_labels(run: Run, unregistered: Workspace):
    bundle = pair_files.resolve("icd").bundle_version
    _index(unregistered.root, bundle)
    result = run("retune", "icd", "--labels", "audited.csv", "--qps", "25", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["traffic"]["videos"] == N
    assert report["calls"]["new"]["value"] == pytest.approx(25.0, abs=3.0)
    assert report["labels"]["unused"] == 0
    assert report["quality"]["new"]["f1"]["value"] > 0.6


def test_scores_of_other_models_are_no_scores_of_the_champion(run: Run, unregistered: Workspace):
    _index(unregistered.root, "7-0123456789ab")
    error = _error(run("retune", "icd", "--labels", "audited.csv"))
    assert error.exit_code == 3
    assert f"none of the {N} videos was scored by the models of the champion 1-" in str(error)
    assert "(but by 7-0123456789ab); score them again: coefvq vmp rescore start" in str(error)


@pytest.mark.parametrize(
    ("labels", "code", "message"),
    [
        ("video_id,label\nv00000,1\nnobody,0\n", 3, "1 of 2 videos are not among those scored in .*first nobody"),
        ("video_id,label\nv00000,1\nv00000,1\n", 3, r"row 3: id v00000 comes again \(first in row 2\)"),
        ("video_id,label,probability\nv00000,1,1.5\n", 3, "row 2: probability = '1.5'"),
        ("video_id,label\nv00000,1\nv00001,0\n", 3, "at least 20 of each are needed"),
    ],
)
def test_labels_that_do_not_fit(run: Run, unregistered: Workspace, labels: str, code: int, message: str):
    (unregistered.root / "labels.csv").write_text(labels)
    error = _error(run(*ARGUMENTS))
    assert error.exit_code == code
    assert re.search(message, str(error)), str(error)
    assert not (unregistered.root / "reports").exists()


def test_without_a_champion_there_is_nothing_to_retune(run: Run):
    assert "no champion for ucc" in str(_error(run("retune", "ucc", *ARGUMENTS[2:])))
