"""The pipeline through DVC and the command line, on real files, in real child processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from coefvq.data.importers.ids import id_from_path
from tasks.pipeline import stage_levels
from tasks.workspace import change_params
from tests.integration.conftest import Finished, Workspace, demo

STAGES = [
    "ingest",
    "validate",
    "split",
    "train-mllm",
    "teach",
    "train-base",
    "predict",
    "evaluate",
    "thresholds",
    "stability",
    "candidate",
]
ISSUE = "icd"


def test_the_demo_shows_everything_it_promises(finished: Finished) -> None:
    for words in (
        "data version",
        "validation passed",
        "QPS ratio",
        "R@P60",
        "models:/coefvq-icd-cascade@champion",
        "decided by",
        "mlflow ui",
        "prefect server start",
    ):
        assert words in finished.output


@pytest.mark.long
def test_a_second_demo_finds_its_work_done(finished: Finished) -> None:
    again = demo(finished.workspace.root, finished.data).stdout
    assert "Running stage" not in again
    assert "@champion = version 1" in again


def test_silent_and_untitled_clips_go_through(finished: Finished) -> None:
    manifest = pd.read_parquet(finished.workspace.root / "data" / "manifest.parquet")
    assert (~manifest["has_audio"]).sum() == 1
    assert (manifest["title"] == "").sum() > 10
    splits = pd.read_parquet(finished.workspace.root / "data" / "splits.parquet")
    assert len(splits) == len(manifest)


def test_init_makes_a_workspace_and_leaves_an_existing_one_alone(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    said = here.coefvq("init", "w", "--issue", "icd")
    assert "DVC repository" not in said.stdout + said.stderr
    made = Workspace(tmp_path / "w")
    assert {"dvc.yaml", "params.yaml", "prefect.yaml", ".dvc", ".git"} <= {p.name for p in made.root.iterdir()}
    assert "train-mllm@ucc" not in made.dvc("stage", "list", "--name-only").stdout
    (made.root / "dvc.yaml").write_text("stages: {}\n")
    here.coefvq("init", "w")
    assert (made.root / "dvc.yaml").read_text() == "stages: {}\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    refused = here.coefvq("init", "other", check=False)
    assert refused.returncode == 2
    assert "not empty and not a workspace" in refused.stderr


def test_repro_again_does_nothing(workspace: Workspace) -> None:
    assert workspace.ran() == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("thresholds.icd.max_f1_loss", 0.5, {"thresholds@icd", "stability@icd", "candidate@icd"}),
        pytest.param(
            "evaluate.precision_targets",
            [50, 60],
            {"evaluate@icd", "thresholds@icd", "stability@icd", "candidate@icd"},
            marks=pytest.mark.long,
        ),
        ("runtime.workers", 1, set()),
        ("gate.max_qps_ratio", 99.0, set()),
        ("mllm.ucc.lora.rank", 4, set()),
    ],
)
def test_a_changed_param_reruns_what_depends_on_it(
    workspace: Workspace, key: str, value: object, expected: set[str]
) -> None:
    change_params(workspace.root / "params.yaml", {key: value})
    assert set(workspace.ran()) <= expected
    assert set(workspace.ran()) == set()
    status = workspace.dvc("status").stdout
    assert "up to date" in status


@pytest.mark.long
def test_a_changed_param_really_reruns(workspace: Workspace) -> None:
    settings = {"thresholds.icd.p_base": [15, 25], "evaluate.precision_targets": [50, 60]}
    change_params(workspace.root / "params.yaml", settings)
    # stability reruns where another policy came out
    assert set(workspace.ran()) - {"stability@icd"} == {"evaluate@icd", "thresholds@icd", "candidate@icd"}
    report = json.loads((workspace.root / "reports/icd/thresholds.json").read_text())
    assert {entry["p_base"] for entry in report["policies"]} >= {15.0, 25.0}
    diff = json.loads(workspace.dvc("metrics", "diff", "--json").stdout)
    assert "icd.base.r_at_p50" in diff["reports/icd/metrics.json"]


def test_metrics_and_plots_work_offline(workspace: Workspace) -> None:
    shown = workspace.dvc("metrics", "show").stdout
    assert "reports/icd/metrics.json" in shown.replace("\n", "")
    assert "cascade.qps_ratio" in shown
    workspace.dvc("plots", "show")
    page = (workspace.root / "dvc_plots" / "index.html").read_text()
    assert "precision and recall on test" in page
    assert "https://cdn" not in page
    assert "vegaEmbed" in page


def test_stage_levels_come_from_dvc(workspace: Workspace) -> None:
    levels = stage_levels(workspace.root, [ISSUE])
    assert levels[:3] == [["ingest"], ["validate"], ["split"]]
    assert levels[3:6] == [["train-mllm@icd"], ["teach@icd"], ["train-base@icd"]]
    assert levels[-1] == ["candidate@icd"]
    assert stage_levels(workspace.root, ["other"]) == [["ingest"], ["validate"], ["split"]]


@pytest.mark.long
def test_score_files_folders_and_tables(finished: Finished, tmp_path: Path) -> None:
    raw = finished.workspace.root / "data" / "raw"
    clip = sorted((raw / "videos").glob("*.mp4"))[0]
    (tmp_path / "folder").mkdir()
    shutil.copy(clip, tmp_path / "folder" / "one.mp4")
    (tmp_path / "table.jsonl").write_text(json.dumps({"file_name": "folder/one.mp4", "title": "hello"}))
    outputs = [
        finished.workspace.coefvq("score", str(source), "--json").stdout
        for source in (clip, tmp_path / "folder", tmp_path / "table.jsonl")
    ]
    for output in outputs:
        row = json.loads(output)
        assert row["issue"] == ISSUE
        assert 0.0 <= row["base_score"] <= 1.0
        assert (row["decided_by"] == "mllm") == (row["mllm_score"] is not None)
        assert row["bundle_version"].startswith("1-")


@pytest.mark.long
def test_score_tells_a_bad_clip_and_still_scores_the_good_one(finished: Finished, tmp_path: Path) -> None:
    good = next((finished.workspace.root / "data" / "raw" / "videos").glob("*.mp4"))
    (tmp_path / "bad.mp4").write_text("not a video")
    done = finished.workspace.coefvq("score", str(good), str(tmp_path / "bad.mp4"), "--json", check=False)
    assert done.returncode == 3
    assert [json.loads(line)["error"] is None for line in done.stdout.splitlines()] == [True, False]
    assert done.stderr.strip().splitlines()[-1].startswith("error: 1 of 2 not scored; first: ")
    assert finished.workspace.coefvq("score", "nothing.mp4", check=False).returncode == 3


@pytest.mark.long
def test_the_champion_runs_in_the_vmp(workspace: Workspace) -> None:
    raw = workspace.root / "data" / "raw"
    bad = raw / "videos" / "broken.mp4"
    workspace.coefvq("vmp", "publish", str(raw))
    bad.write_text("x")
    workspace.coefvq("vmp", "publish", str(bad.parent))
    workspace.coefvq("vmp", "run", "--once", "--batch-size", "16")
    ids = [line.split(",")[0] for line in (raw / "metadata.csv").read_text().splitlines()[1:]]
    name = id_from_path(ids[0])
    row = json.loads(workspace.coefvq("vmp", "get", name, "--json").stdout)
    assert name in json.dumps(row)
    letters = workspace.coefvq("vmp", "dlq", "list", "--json").stdout
    assert "broken" in letters
    assert workspace.coefvq("vmp", "get", "nobody", check=False).returncode == 3


@pytest.mark.long
def test_same_seed_same_results(finished: Finished, tmp_path: Path) -> None:
    """A second workspace on the same clips ends at the same bundle, byte for byte."""
    from tasks.workspace import create
    from tests.integration.conftest import SETTINGS

    create(tmp_path / "again", SETTINGS)
    demo(tmp_path / "again", finished.data)
    for name in ("manifest", "splits"):
        first, second = (root / "data" / f"{name}.parquet" for root in (finished.workspace.root, tmp_path / "again"))
        assert first.read_bytes() == second.read_bytes()
    hashes = [
        json.loads((root / "reports/icd/candidate.json").read_text())["content_hash"]
        for root in (finished.workspace.root, tmp_path / "again")
    ]
    assert hashes[0] == hashes[1]
