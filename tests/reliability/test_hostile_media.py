"""Files of strangers: nothing they hold ends, blocks or leads away the process that takes them in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.config import BaseModelParams, MediaLimits, MediaSpec
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.media.probe import probe_all
from coefvq.files import sha256_file
from coefvq.inference import MultiIssueScorer, PairScorer
from coefvq.models.classifier import build
from coefvq.models.model_config import base_config
from coefvq.records import VideoInput
from coefvq.vmp.records import Event
from coefvq.vmp.retriever import retrieve
from tests.fuzz import bombs
from tests.fuzz.corpus import Case, make
from tests.fuzz.paths import PATHS, Bench
from tests.fuzz.run import nobody_should_call
from tests.fuzz.seeds import repeated, seed
from tests.settings import training_settings

pytestmark = pytest.mark.long

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)
HARSH = DEFAULT_LIMITS.model_copy(update={"cpu_seconds": 1, "wall_seconds": 20.0})


def probed(root: Path, uris: list[str], limits: MediaLimits = DEFAULT_LIMITS) -> dict[str, str]:
    found = probe_all(uris, root, limits=limits, workers=2)
    return {uri: probe.reason for uri, probe in zip(uris, found, strict=True)}


def test_a_short_fuzz_run_finds_nothing(repository: Path) -> None:
    # a process of its own: were it to crash or hang, the test would say so; its memory is its own too
    command = [sys.executable, "-m", "tests.fuzz", "--files", "130", "--seed", "11", "--light", "--paths", "none"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["violations"] == []
    assert done.returncode == 0, done.stderr
    assert result["files"] >= 130
    assert result["parent_growth_mib"] < 200


@pytest.mark.parametrize("name", sorted(set(PATHS) - {"ray"}))
def test_every_decoding_path_survives_hostile_clips(name: str, tmp_path: Path) -> None:
    claims = {kind: data for kind, _, data in bombs.claims()}
    files = {"good": seed("mp4"), "claim": claims["cmov_claim"], "noise": b"\xff" * 5000, "empty": b""}
    for kind, data in files.items():
        (tmp_path / f"{kind}.mp4").write_bytes(data)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    names = [*files, "loop", "x" * 300]
    bench = Bench(tmp_path / "bench", HARSH)
    said = PATHS[name](bench, [VideoInput(kind, tmp_path / f"{kind}.mp4") for kind in names])
    assert {kind: bool(why) for kind, why in said.items()} == {kind: kind != "good" for kind in names}


def test_a_corpus_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def corpus(name: str, number: int) -> dict[Case, bytes]:
        root = tmp_path / name / "root"
        root.mkdir(parents=True)
        (tmp_path / name / "outside").mkdir()
        cases = make(root, tmp_path / name / "outside", 200, number, "http://127.0.0.1:1", heavy=False)
        damaged = [case for case in cases if case.uri.split("-")[0] == case.kind and case.kind.endswith("flips")]
        return {case: (root / case.uri).read_bytes() for case in damaged}

    assert corpus("a", 1) == corpus("b", 1) != corpus("c", 2)


def test_pipes_and_devices_are_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, target in {"zero": "/dev/zero", "fifo": "pipe.mp4"}.items():
        (tmp_path / f"{name}.mp4").symlink_to(target)
    (tmp_path / "good.mp4").write_bytes(seed("mp4"))
    names = ["pipe.mp4", "good.mp4", "zero.mp4", "fifo.mp4", "good.mp4"]
    assert probed(tmp_path, names) == {
        "pipe.mp4": "unsupported",
        "good.mp4": "ok",
        "zero.mp4": "outside_root",
        "fifo.mp4": "unsupported",
    }


def test_the_clip_store_opens_no_pipes_and_devices_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "good.mp4").write_bytes(seed("mp4"))
    paths = [tmp_path / "pipe.mp4", tmp_path / "good.mp4", Path("/dev/zero"), tmp_path]
    store = ClipStore(tmp_path / "cache", MEDIA, HARSH.model_copy(update={"wall_seconds": 5.0}))
    failures = store.try_fill([VideoInput(path.name, path) for path in paths], 2)
    assert sorted(failures) == [0, 2, 3]
    assert {error.reason for error in failures.values()} <= {"missing", "unsupported"}


def test_playlists_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "target.mp4").write_bytes(seed("mp4"))
    with nobody_should_call() as (address, calls):
        names = []
        for name, suffix, data in bombs.playlists(str(tmp_path / "target.mp4"), address):
            names.append(name + suffix)
            (tmp_path / names[-1]).write_bytes(data)
        reasons = probed(tmp_path, names)
        store = ClipStore(tmp_path / "cache", MEDIA, DEFAULT_LIMITS)
        failures = store.try_fill([VideoInput(name, tmp_path / name) for name in names], 2)
    assert calls == []
    # a QuickTime file with a reference elsewhere holds data of its own as well, and that is what is read
    for index, name in enumerate(names):
        assert name.startswith("reference") or (reasons[name] != "ok" and index in failures), name


def test_the_server_that_nobody_should_call_notices_calls() -> None:
    import urllib.error
    import urllib.request

    with nobody_should_call() as (address, calls), pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"{address}/x", timeout=5)  # noqa: S310 - our own
    assert len(calls) == 1


@pytest.fixture(scope="module")
def slow_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 frames of 9 megapixels in 12 MB whose times say nothing, so that all have to be decoded."""
    path = tmp_path_factory.mktemp("bomb") / "slow.mkv"
    path.write_bytes(repeated("matroska", "libx264", None, 5000, size=(4096, 2304), timed=False))
    return path


def test_a_clip_that_takes_too_long_is_rejected_and_the_next_is_not(slow_clip: Path) -> None:
    (slow_clip.parent / "good.mp4").write_bytes(seed("mp4"))
    assert probed(slow_clip.parent, ["slow.mkv", "good.mp4"], HARSH) == {"slow.mkv": "timeout", "good.mp4": "ok"}


def test_a_claim_beyond_memory_is_rejected_and_the_next_is_not(tmp_path: Path) -> None:
    made = {name: data for name, _, data in bombs.claims()}
    (tmp_path / "claim.mp4").write_bytes(made["cmov_claim"])
    (tmp_path / "good.mp4").write_bytes(seed("mp4"))
    assert probed(tmp_path, ["claim.mp4", "good.mp4"]) == {"claim.mp4": "out_of_memory", "good.mp4": "ok"}


@pytest.fixture
def scorer(tmp_path: Path) -> PairScorer:
    """Base and MLLM of the same tiny kind, whose decode settings differ; both get every video."""
    training = training_settings(per_device_train_batch_size=8)
    params = BaseModelParams(
        preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=training
    )
    base, mllm = (build(base_config("icd", params, MEDIA.model_copy(update={"frames": n})), None) for n in (2, 4))
    policy = CascadePolicy(issue="icd", base_threshold=0.0, decision_threshold=0.5, p_base=None, views_trigger=None)
    return PairScorer("icd", "1-abc", base, mllm, policy, tmp_path / "cache", HARSH)


def test_a_hostile_clip_costs_the_scorer_one_row(scorer: PairScorer, slow_clip: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.mp4"
    good.write_bytes(seed("mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    inputs = [
        VideoInput("a", good),
        VideoInput("slow", slow_clip),
        VideoInput("pipe", tmp_path / "pipe.mp4"),
        VideoInput("b", good),
    ]
    rows = scorer.score(inputs)
    assert [row.video_id for row in rows] == ["a", "slow", "pipe", "b"]
    assert [row.error is None for row in rows] == [True, False, False, True]
    assert "timeout" in str(rows[1].error)
    assert rows[0].mllm_score is not None


def test_what_is_no_clip_costs_the_stream_one_row_each(scorer: PairScorer, tmp_path: Path) -> None:
    (tmp_path / "good.mp4").write_bytes(seed("mp4"))
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    places = ["good.mp4", "x" * 300 + ".mp4", "loop.mp4", "good.mp4/a.mp4", ".", "a\0b.mp4", "\ud800.mp4", "good.mp4"]
    events = [Event(str(at), uri=str(tmp_path / place), offset=at) for at, place in enumerate(places)]
    events.append(Event("hash", uri=str(tmp_path / "good.mp4"), sha256="../../../good", offset=len(places)))
    candidates = retrieve(events, MultiIssueScorer((scorer,)))
    assert [candidate.error is None for candidate in candidates] == [True, *[False] * 6, True, False]
    assert "File name too long" in str(candidates[1].error)
    assert "its bytes are not those" in str(candidates[-1].error)


def test_damaged_entries_are_made_again_or_cost_one_row(scorer: PairScorer, tmp_path: Path) -> None:
    for name in ("mp4", "mkv"):
        (tmp_path / name).write_bytes(seed(name))
    videos = [VideoInput(name, tmp_path / name, sha256=sha256_file(tmp_path / name)) for name in ("mp4", "mkv")]
    # what the scorer decodes itself is gone after its batch; an earlier run of training left these
    for model in (scorer.base, scorer.mllm):
        ClipStore(scorer.cache, model.config.media, HARSH).fill(videos, 1)
    before = scorer.score(videos)
    entries = list(scorer.cache.rglob("*.safetensors"))
    assert len(entries) == 4
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-9])
    (tmp_path / "mkv").unlink()
    first, second = scorer.score(videos)
    assert first.error is None
    assert first.base_score == pytest.approx(before[0].base_score, abs=1e-6)
    assert first.mllm_score == pytest.approx(before[0].mllm_score, abs=1e-6)
    assert "no such file" in str(second.error)


def test_a_clip_that_only_the_mllm_cannot_decode_gets_an_error_row(scorer: PairScorer, tmp_path: Path) -> None:
    inputs = []
    for name in ("mp4", "mkv"):
        inputs.append(VideoInput(name, tmp_path / name))
        inputs[-1].path.write_bytes(seed(name))
    store = ClipStore(scorer.cache, scorer.base.config.media, HARSH)
    hashed = [replace(video, sha256=sha256_file(video.path)) for video in inputs]
    store.fill(hashed, 1)
    inputs[0].path.write_bytes(b"no video any more")  # but still known by its hash, as a prober would pass it
    rows = scorer.score(hashed)
    assert [row.error is None for row in rows] == [False, True]
    assert rows[1].positive is not None


def test_clips_that_are_known_start_no_process(
    scorer: PairScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.mp4").write_bytes(seed("mp4"))
    video = VideoInput("a", tmp_path / "good.mp4")
    for model in (scorer.base, scorer.mllm):
        ClipStore(scorer.cache, model.config.media, HARSH).get(video)
    # limits of its own are a pool of its own: none that another test left at work
    own = replace(scorer, limits=HARSH.model_copy(update={"cpu_seconds": 2}))
    monkeypatch.setattr("coefvq.compute.workers.LimitedPool._start", None)
    [row] = own.score([video])
    assert row.error is None
    (tmp_path / "new.mp4").write_bytes(seed("mkv"))
    with pytest.raises(TypeError):
        own.score([VideoInput("b", tmp_path / "new.mp4")])
