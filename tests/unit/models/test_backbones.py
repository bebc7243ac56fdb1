"""A published LLaVA-OneVision: read to its device without copies on the host, and held once for several issues."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.miniature import definition_of, write_weights
from coefvq.config import Approximate, Lora, MediaSpec, Scoring
from coefvq.data.media.decode import Clip
from coefvq.errors import ModelError
from coefvq.inference import NOTHING, PairScorer, load_for_scoring
from coefvq.models import pretrained
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import Example
from coefvq.models.model_config import ModelConfig
from coefvq.models.presets import preset_from
from coefvq.models.shared import TowerPool
from coefvq.models.vocabulary import text_encoder
from coefvq.registry import champions, pair_files
from coefvq.registry.bundle import Candidate
from coefvq.registry.pair_files import LoadedBundle

MEDIA = MediaSpec(frames=1, frame_size=384, audio_seconds=1.0)
ISSUES = ("icd", "ucc")
Definition = dict[str, Any]


def scoring(dtype: Literal["float32", "bfloat16"], **approximate: Any) -> Scoring:
    wanted = Approximate.model_validate({**NOTHING.model_dump(), **approximate})
    return Scoring(dtype=dtype, savings="exact", approximate=wanted)


@pytest.fixture
def definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definition:
    monkeypatch.setenv("COEFVQ_WEIGHTS", str(tmp_path / "weights"))
    made = definition_of("onevision-0.5b", 1, narrow=True)
    write_weights(tmp_path / "weights", made, ["onevision", "audio"])
    return made


@pytest.fixture
def folders(definition: Definition, tmp_path: Path) -> dict[str, Path]:
    """An MLLM for each issue, as two trainings leave them: adapters and heads of their own, the rest as published."""
    for seed, issue in enumerate(ISSUES):
        torch.manual_seed(seed)
        config = ModelConfig(
            issues=(issue,), kind="mllm", preset="miniature", definition=definition, architecture="mllm", media=MEDIA,
            fusion="late", text=True, audio=True, lora_rank=2, lora_alpha=4,
        )  # fmt: skip
        model = build(config, text_encoder(config, []))
        for name, parameter in model.network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save(tmp_path / issue)
    return {issue: tmp_path / issue for issue in ISSUES}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a published LLaVA-OneVision is read."""
    counter, read = Counter[str](), pretrained.onevision_model

    def counted(folder: Path, *given: Any) -> Any:
        counter[folder.name] += 1
        return read(folder, *given)

    monkeypatch.setattr(pretrained, "onevision_model", counted)
    return counter


def logits(model: Classifier) -> torch.Tensor:
    random = np.random.default_rng(1)
    clip = Clip(random.integers(0, 255, (1, 3, 384, 384)).astype(np.uint8), np.zeros(16_000, np.int16))
    batch = model.collator([Example(clip, "watch till the end", None)])
    with torch.inference_mode():
        answer: torch.Tensor = model.network(**batch)
    return answer.float()


def held(models: list[Classifier], part: str) -> int:
    """Bytes that the models hold of the tensors whose names have ``part``."""
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for model in models
        for name, tensor in model.network.named_parameters()
        if part in name
    }
    return sum(tensors.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_two_issues_hold_one_backbone_and_adapters_of_their_own(
    dtype: Literal["float32", "bfloat16"], tolerance: float, folders: dict[str, Path], reads: Counter[str]
) -> None:
    how = scoring(dtype)
    alone = {issue: logits(load_for_scoring(folder, how)) for issue, folder in folders.items()}
    assert list(reads.values()) == [2]
    pool = TowerPool.of((folder, how) for folder in folders.values())
    models = [load_for_scoring(folder, how, pool) for folder in folders.values()]
    assert list(reads.values()) == [3]
    for part in (".vision_tower.", ".multi_modal_projector.", "base_layer.weight", "embed_tokens"):
        assert held(models, part) == held(models[:1], part) > 0, part
    assert held(models, "lora_") == 2 * held(models[:1], "lora_") > 0
    again = {issue: logits(model) for issue, model in zip(ISSUES, models, strict=True)}
    for issue in ISSUES:
        assert (again[issue] - alone[issue]).norm() / alone[issue].norm() < tolerance
    assert (again["icd"] - again["ucc"]).norm() / again["ucc"].norm() > 0.1
    assert torch.equal(logits(models[0]), again["icd"])  # the second one changed nothing of the first


def test_models_that_compute_in_different_ways_share_nothing(folders: dict[str, Path]) -> None:
    icd, ucc = folders.values()
    plain, half, quantised = scoring("float32"), scoring("bfloat16"), scoring("float32", int8=True)
    assert TowerPool.of([(icd, plain), (ucc, half)]).backbones == {}
    assert TowerPool.of([(icd, quantised), (ucc, quantised)]).backbones == {}
    assert TowerPool.of([(icd, plain), (icd, plain)]).backbones == {}  # one model, which the pool holds as a whole
    assert len(TowerPool.of([(icd, plain), (ucc, plain)]).backbones) == 1


def test_pairs_of_the_registry_share_one_backbone(
    folders: dict[str, Path], reads: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = cast(Candidate, SimpleNamespace(preprocessing={}, policy={}))
    monkeypatch.setattr(
        pair_files,
        "resolve",
        lambda issue, version: LoadedBundle(issue, version, "1-00", tmp_path, folders[issue], candidate),
    )

    def mllm_only(_: Path, mllm_dir: Path, policy: Any, issue: str, stamp: str, how: Any, *given: Any) -> Any:
        model = load_for_scoring(mllm_dir, how.scoring, given[-1])
        return PairScorer(issue, stamp, model, model, policy, tmp_path, how.limits)

    monkeypatch.setattr(PairScorer, "from_folders", mllm_only)
    scorer = champions.load_scorer(ISSUES, "1")
    assert list(reads.values()) == [1]
    assert len({id(pair.mllm) for pair in scorer.pairs}) == 2


@contextmanager
def growth() -> Iterator[list[int]]:
    """Bytes by which this process's own memory grows at most; pages of mapped files do not count."""
    over, peak, before = threading.Event(), [0], _own_memory()

    def watch() -> None:
        while not over.wait(0.001):
            peak[0] = max(peak[0], _own_memory() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak[0] = max(peak[0], _own_memory() - before)


def _own_memory() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux' own figures")
def test_a_rank_reads_to_its_card_without_a_copy_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEFVQ_WEIGHTS", str(tmp_path / "weights"))
    definition = definition_of("onevision-0.5b", 4, narrow=True)
    definition["language"] |= {"hidden_size": 512, "intermediate_size": 4096}
    write_weights(tmp_path / "weights", definition, ["onevision", "audio"])
    preset = preset_from("miniature", definition, "miniature")
    path = tmp_path / "weights" / preset.weights["onevision"].name / "model.safetensors"
    # halves of another kind than those that are asked for, as on the hub: the host would make a copy to convert them
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    make = NetworkBuilder(preset, MEDIA, dtype=torch.bfloat16, device=torch.device("meta"))
    lora, ids = Lora(rank=0, alpha=0, dropout=0.0), TokenIds(pad=0, video=1)
    with growth() as peak:
        network = make.mllm(ids, lora=lora, fusion="none")
    size = sum(parameter.nbytes for parameter in network.language.parameters())
    assert size > 50e6
    assert peak[0] < size / 3
    assert all(parameter.is_meta for parameter in network.language.parameters())
    assert not any(hasattr(module, "_hf_hook") for module in network.modules())  # nothing moves inputs about


def test_half_a_checkpoint_is_refused_whatever_device_it_goes_to(definition: Definition) -> None:
    preset = preset_from("miniature", definition, "miniature")
    folder = pretrained.weights_of(preset, "onevision")
    assert folder is not None
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({name: state[name] for name in sorted(state)[::2]}, path)
    for device in ("cpu", "meta"):
        with pytest.raises(ModelError, match=r"tensors missing, e\.g\. .*correct the sizes of x, or fetch it again"):
            pretrained.onevision_model(folder, "x", torch.bfloat16, torch.device(device))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"weights not readable .*; delete it and fetch the weights again"):
        pretrained.onevision_model(folder, "x", torch.bfloat16)
