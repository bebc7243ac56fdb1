"""A registered pair loaded through MLflow, with real (untrained) networks and a real clip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from coefvq.config import BaseModelParams, MediaSpec
from coefvq.errors import RegistryError
from coefvq.registry import pair_files, pairs, release, tracking
from coefvq.registry.bundle import PART_KINDS, Candidate, ModelRef, build_candidate, model_ref
from coefvq.vmp import loop, worker
from coefvq.vmp.records import Event
from coefvq.vmp.rules import load_rules
from coefvq.vmp.state import open_state
from tests.integration.registry.registry_workspace import DATA, PASSED, Workspace
from tests.integration.test_flow import free_port
from tests.settings import training_settings

Wait = Callable[[Callable[[], bool], float], None]
MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)
TRAINING = training_settings(per_device_train_batch_size=1, lr_scheduler_type="linear")
COLUMNS = ["video_id", "base_score", "mllm_score", "positive", "decided_by", "error"]


@pytest.fixture
def pair(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """An approved pair of two random frame classifiers; everything is escalated."""
    monkeypatch.setenv("COEFVQ_CACHE", str(fresh.root / "clips"))
    return _approved(fresh, 0)


def _approved(workspace: Workspace, seed: int) -> Candidate:
    policy = {
        "issue": "icd",
        "base_threshold": 0.0,
        "decision_threshold": 0.001,
        "p_base": None,
        "views_trigger": None,
        "filtered": "negative",
        "schema_version": 1,
    }
    candidate = workspace.candidate(seed, **_random_models(workspace.root / f"random {seed}", seed), policy=policy)
    pairs.register_candidate(candidate, PASSED)
    release.approve("icd", "ana", "for the test")
    return candidate


def _random_models(root: Path, seed: int) -> dict[str, ModelRef]:
    import torch

    from coefvq.models.classifier import build
    from coefvq.models.model_config import base_config

    root.mkdir()
    torch.manual_seed(seed)
    settings = BaseModelParams(
        preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=TRAINING
    )
    config = base_config("icd", settings, MEDIA)
    refs = {}
    for kind in PART_KINDS:
        folder = root / kind
        build(config, None).save(folder)
        with tracking.training_run(f"icd-{kind}", "icd", kind, {}, DATA) as run:
            run.log_model_folder(folder, kind, "icd")
        (root / f"{kind}_run.json").write_text(json.dumps(run.record()))
        refs[kind] = model_ref(folder, root / f"{kind}_run.json")
    return refs


@pytest.fixture
def clip(tmp_path: Path) -> str:
    from coefvq.simulation.synthetic.encode import write_mp4

    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
    write_mp4(tmp_path / "clip.mp4", frames, 8, np.zeros(16_000, np.float32), 16_000)
    return str(tmp_path / "clip.mp4")


def test_the_registered_pair_answers_like_the_scorer(pair: Candidate, clip: str) -> None:
    import mlflow

    from coefvq.inference import PairScorer, recorded
    from coefvq.records import VideoInput

    model = mlflow.pyfunc.load_model("models:/coefvq-icd-cascade@champion")
    frame = pd.DataFrame(
        {"path": [clip, "missing.mp4"], "title": ["dinner", None], "stickers": ['["SALE"]', None], "views": [3, None]}
    )
    answer = model.predict(frame)
    bundle = pair_files.resolve("icd")
    scorer = PairScorer.from_folders(
        bundle.base_dir, bundle.mllm_dir, bundle.policy, "icd", bundle.bundle_version, recorded({})
    )
    expected = scorer.score([VideoInput(clip, Path(clip), "dinner", ("SALE",), 3)])[0]
    assert list(answer.columns) == COLUMNS
    first, second = answer.to_dict("records")
    assert (first["base_score"], first["mllm_score"]) == (expected.base_score, expected.mllm_score)
    assert (first["positive"], first["decided_by"], first["error"]) == (True, "mllm", None)
    assert (second["video_id"], second["positive"], second["decided_by"]) == ("missing.mp4", None, "none")
    assert "no such file" in second["error"]


@pytest.mark.usefixtures("pair")
def test_the_http_server_answers_null_and_never_nan(clip: str) -> None:
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    rows = [{"path": clip, "title": "dinner"}, {"path": "missing.mp4", "title": ""}]
    for name, score in (("cascade", "base_score"), ("base", "score")):
        app = init(mlflow.pyfunc.load_model(f"models:/coefvq-icd-{name}/1"))
        answer = TestClient(app).post("/invocations", json={"dataframe_records": rows})
        assert answer.status_code == 200, answer.text
        assert "NaN" not in answer.text
        first, second = answer.json()["predictions"]
        assert 0.0 < first[score] < 1.0
        assert second[score] is None
        assert "no such file" in second["error"]


@pytest.mark.long  # two pairs are made and loaded
@pytest.mark.usefixtures("pair")
def test_a_stream_takes_the_next_pair_and_returns_to_the_first(fresh: Workspace, clip: str, tmp_path: Path) -> None:
    """Registered pairs that are approved and rolled back while the platform runs: no restart, no row of two pairs."""
    stop, said = threading.Event(), list[str]()
    with (
        open_state(tmp_path / "vmp") as (log, index),
        worker.follower(
            index, load_rules(), ["icd"], None, stop=stop, say=said.append, interval=0.0, patient=True
        ) as deployments,
    ):

        def pair_of(name: str) -> tuple[int, str, float]:
            log.publish([Event(name, uri=clip)])
            loop.run(log, deployments, index, stop=stop, on_batch=lambda report: None, batch_size=4, once=True,
                     work=worker.work(log, index, mllm=True))  # fmt: skip
            entry = index.get(name)
            assert entry is not None
            return entry.epoch, entry.bundle_version, entry.value["scores"]["icd"]["mllm_score"]

        first = pair_of("a")
        _approved(fresh, 1)
        while deployments.current().epoch == first[0]:
            stop.wait(0.02)  # the next pair is loaded beside the running one
        second = pair_of("b")
        release.rollback("icd", "ana", "worse")
        third = pair_of("c")  # the fence stands before this batch is stored
        a, b = index.get("a"), index.get("b")
    assert [first[0], second[0], third[0]] == [1, 2, 3]
    assert first[1:] == third[1:]
    assert second[1:] != first[1:]
    assert a is not None
    assert b is not None
    assert (a.state, b.state) == ("removed", "withdrawn")
    assert [line.partition("(")[0].strip() for line in said] == [
        f"now deciding with {second[1]}", f"now deciding with {third[1]}"
    ]  # fmt: skip


@pytest.mark.long  # a server process that imports torch: 20 s alone
@pytest.mark.timeout(1800)  # beside other work
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.usefixtures("pair")
def test_the_server_of_the_documentation_answers(
    fresh: Workspace, clip: str, repository: Path, tmp_path: Path, wait_until: Wait
) -> None:
    page = (repository / "docs" / "release.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```sh\n(MLFLOW_TRACKING_URI=.*? mlflow models serve .*?)^```$", page, re.M | re.S)
    (request,) = re.findall(r"`(\{\"dataframe_records\".*?\})`", page)
    rows = json.loads(request)["dataframe_records"]
    assert rows == [{"path": "/clips/a.mp4"}]
    port = free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(repository)}
    with (tmp_path / "log.txt").open("w") as log:
        child = subprocess.Popen(
            ["bash", "-c", f"{command.strip()} --port {port}"], cwd=fresh.root, env=env, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: child.poll() is not None or answers(f"http://127.0.0.1:{port}/ping"), 1500)
        body = json.dumps({"dataframe_records": [{"path": clip, "title": "my dinner"}, *rows]})
        done = subprocess.run(
            ["curl", "-sS", "-H", "Content-Type: application/json", "-d", body, f"http://127.0.0.1:{port}/invocations"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + (tmp_path / "log.txt").read_text()[-3000:]
    finally:
        for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
            process.kill()
        child.wait()
    assert "NaN" not in done.stdout
    first, second = json.loads(done.stdout)["predictions"]
    assert (first["positive"], first["error"]) == (True, None)
    assert (second["positive"], second["base_score"]) == (None, None)
    assert "no such file" in second["error"]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.usefixtures("pair")
def test_a_plain_script_scores_without_a_main_guard(
    fresh: Workspace, clip: str, tmp_path: Path, repository: Path
) -> None:
    for name in ("params.yaml", "recipe.yaml"):
        (fresh.root / name).write_text((repository / name).read_text())
    script = tmp_path / "mine.py"
    script.write_text(
        f"""
import coefvq
print("started")
pair = coefvq.load("icd", workspace={str(fresh.root)!r})
for row in pair.score([{clip!r}, "missing.mp4"], titles=["dinner", ""], views=[3, None]):
    print(row.positive, row.decided_by, row.error)
try:
    pair.score(["a.mp4"], titles=[])
except coefvq.errors.DataError as error:
    print(error)
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    environment = {name: value for name, value in environment.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    started, first, second, refused = done.stdout.splitlines()
    assert (started, first) == ("started", "True mllm None")
    assert second.startswith("None none missing.mp4: no such file")
    assert refused == "1 paths, 0 titles: give one for each path, or none"
    assert not (tmp_path / ".coefvq").exists()


def test_a_single_model_answers_with_its_score(pair: Candidate, clip: str) -> None:
    import mlflow

    whole = mlflow.pyfunc.load_model("models:/coefvq-icd-cascade/1").predict(pd.DataFrame({"path": [clip]}))
    for kind in PART_KINDS:
        model = mlflow.pyfunc.load_model(f"models:/coefvq-icd-{kind}/1")
        answer = model.predict(pd.DataFrame({"path": [clip], "video_id": ["v1"], "views": [7]}))
        # alone it is the model as trained, in the pair it is prepared for scoring: equal to rounding
        score = pytest.approx(whole[f"{kind}_score"][0], abs=1e-6)
        assert answer.to_dict("records") == [{"video_id": "v1", "score": score, "error": None}]


def test_a_single_model_decodes_under_the_limits_it_was_trained_under(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coefvq.data.media.decode import DEFAULT_LIMITS
    from coefvq.models.classifier import build
    from coefvq.models.model_config import base_config
    from coefvq.registry.serving import open_model

    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    settings = BaseModelParams(
        preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=TRAINING
    )
    few = DEFAULT_LIMITS.model_copy(update={"frames": 3})
    for limits in (None, few):
        config = base_config("icd", settings, MEDIA).model_copy(update={"limits": limits})
        build(config, None).save(tmp_path / "model")
        frame = pd.DataFrame({"path": [clip, "missing.mp4"]})
        [first, second] = open_model({"model": tmp_path / "model"})(frame).to_dict("records")
        assert "no such file" in second["error"]
        assert second["score"] is None
        if limits is None:
            assert first["error"] is None
            Path(tmp_path / "cache" / "clips").rename(tmp_path / "away")  # what was decoded is not decoded again
        else:
            assert "above ingest.limits.frames" in first["error"]


def test_a_pair_decodes_under_the_limits_it_was_released_with(
    fresh: Workspace, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coefvq.data.media.decode import DEFAULT_LIMITS
    from coefvq.records import VideoInput
    from coefvq.registry.champions import load_scorer

    monkeypatch.setenv("COEFVQ_CACHE", str(fresh.root / "clips"))
    few = DEFAULT_LIMITS.model_copy(update={"frames": 3})
    policy = {"issue": "icd", "base_threshold": 0.0, "decision_threshold": 0.001, "p_base": None}
    policy |= {"views_trigger": None, "filtered": "negative", "schema_version": 1}
    models = _random_models(fresh.root / "random", 1)
    preprocessing = {"frames": 2, "limits": few.model_dump()}
    pairs.register_candidate(fresh.candidate(0, **models, policy=policy, preprocessing=preprocessing), PASSED)
    release.approve("icd", "ana", "for the test")
    [row] = load_scorer(["icd"])([VideoInput("a", Path(clip))])
    assert "above ingest.limits.frames" in str(row.error)
    mlflow = pytest.importorskip("mlflow")
    served = mlflow.pyfunc.load_model("models:/coefvq-icd-cascade@champion")
    assert "above ingest.limits.frames" in served.predict(pd.DataFrame({"path": [clip]}))["error"][0]


def test_mlflow_does_not_load_a_pair_that_was_changed(pair: Candidate) -> None:
    import mlflow

    weights = pair_files.resolve("icd").base_dir / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RegistryError, match="the files were changed after approval"):
        mlflow.pyfunc.load_model("models:/coefvq-icd-cascade@champion")


def test_mlflow_does_not_load_a_champion_that_no_decision_put_there(
    pair: Candidate, fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from coefvq.registry.tracking import session

    parts = {"base": pair.base, "mllm": pair.mllm, "preprocessing": pair.preprocessing, "data": pair.data}
    policy = {**pair.policy, "decision_threshold": 0.9}
    other = build_candidate("icd", **parts, policy=policy, params=pair.params, metrics=pair.metrics)
    pairs.register_candidate(other, PASSED)
    pairs.set_alias("icd", "champion", "2")
    for configured in (session._active, None):  # None: a process that knows MLflow's own call only
        monkeypatch.setattr(session, "_active", configured)
        with pytest.raises(RegistryError, match="no decision put it there"):
            mlflow.pyfunc.load_model("models:/coefvq-icd-cascade@champion")
    tracking.configure(fresh.uri, "coefvq")
    release.approve("icd", "ana", "stricter", version="2")
    assert mlflow.pyfunc.load_model("models:/coefvq-icd-cascade@champion")


def test_nothing_in_the_store_is_a_pickle(pair: Candidate, fresh: Workspace) -> None:
    files = [path for path in fresh.root.glob("mlartifacts/**/*") if path.is_file()]
    suffixes = {path.suffix for path in files}
    assert files
    assert suffixes <= {".json", ".safetensors", ".py", ".yaml", ".txt", ""}
    assert {path.name for path in files if not path.suffix} <= {"MLmodel", "registered_model_meta"}
