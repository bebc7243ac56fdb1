"""The preset ``starter`` on real published weights, without any model hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams
from coefvq.data.media.decode import Clip
from coefvq.errors import ModelError
from coefvq.inference import load_for_scoring
from coefvq.models import pretrained
from coefvq.models.classifier import Classifier, build, load
from coefvq.models.dataset import Example
from coefvq.models.efficientnet_lite import EfficientNetLite, EfficientNetLiteSizes
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.shared import TowerPool
from coefvq.models.vocabulary import text_encoder
from coefvq.models.weights import fetch as weights
from coefvq.models.weights.sources import EFFICIENTNET_LITE2, SMOLLM2_135M, SOURCES, Source, Wheel
from tests.settings import training_settings

MEDIA = MediaSpec(frames=4, frame_size=128, audio_seconds=1.0)
TRAINING = training_settings(per_device_train_batch_size=2)


@pytest.fixture(scope="module", autouse=True)
def home() -> Path:
    """Where the weights are; fetched once per machine, from the package index."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = weights.weights_home()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".test.lock"):
        for source in SOURCES.values():
            weights.fetch(source)
    return folder


def mllm() -> Classifier:
    params = MLLMParams(
        preset="starter",
        fusion="late",
        text=True,
        audio=True,
        motion=True,
        lora=Lora(rank=4, alpha=8, dropout=0.0),
        training=TRAINING,
    )
    torch.manual_seed(0)
    config = mllm_config("ucc", params, MEDIA)
    return build(config, text_encoder(config, []))


def example(seed: int, text: str) -> Example:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 255, (4, 3, 128, 128)).astype(np.uint8)
    return Example(Clip(frames, random.integers(-9000, 9000, 16_000).astype(np.int16)), text, seed % 2)


def test_the_frame_tower_knows_what_is_in_a_photograph(home: Path) -> None:
    network = EfficientNetLite(EfficientNetLiteSizes(1.1, 1.2)).eval()
    state = pretrained.tensors_of(home / EFFICIENTNET_LITE2.name)
    weight, bias = state.pop("classifier.weight"), state.pop("classifier.bias")
    network.load_state_dict(state)
    photograph = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    side = min(photograph.size)
    square = photograph.crop((0, 0, side, side)).resize((260, 260), Image.Resampling.BICUBIC)
    pixels = (torch.from_numpy(np.array(square)).float() - 127) / 128
    with torch.inference_mode():
        pooled = network(pixels.permute(2, 0, 1)[None]).mean(dim=(2, 3))
        best = set(torch.nn.functional.linear(pooled, weight, bias).topk(5).indices[0].tolist())
    # ImageNet: military uniform, Windsor tie, suit, bow tie, bearskin
    assert len(best & {652, 906, 834, 457, 439}) >= 3


def test_the_text_tower_of_the_base_reads_several_languages() -> None:
    params = BaseModelParams(
        preset="starter", architecture="multitower", audio=True, motion=False, freeze_towers=True, training=TRAINING
    )
    config = base_config("ucc", params, MEDIA)
    model = build(config, text_encoder(config, []))
    assert model.text is not None
    titles = [
        "A man rides a horse on the beach",
        "Ein Mann reitet am Strand auf einem Pferd",
        "Stock prices fell today",
    ]
    with torch.inference_mode():
        features = torch.nn.functional.normalize(model.network.text(**model.text.batch(titles, 0)), dim=1)
    assert features[0] @ features[1] > features[0] @ features[2] + 0.08
    assert {name for name, p in model.network.named_parameters() if p.requires_grad} == {
        name for name, _ in model.network.named_parameters() if name.startswith("head.")
    }


def test_the_language_model_is_the_published_one(home: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = home / SMOLLM2_135M.name
    decoder, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        state = decoder(**tokenizer("The capital of France is", return_tensors="pt")).last_hidden_state[:, -1]
        best = (state @ decoder.embed_tokens.weight.T).argmax().item()
    assert tokenizer.decode(best).strip() == "Paris"
    ours = mllm().network.language.decoder
    theirs = decoder.layers[3].mlp.down_proj.weight
    assert torch.equal(ours.base_model.model.layers[3].mlp.down_proj.base_layer.weight, theirs)
    assert len(ours.base_model.model.layers) == 4


def test_it_trains_and_only_what_was_trained_is_saved(tmp_path: Path) -> None:
    model = mllm()
    network = model.network.train()
    batch = model.collator([example(0, "mi día"), example(1, "watch till the end")])
    labels = batch.pop("labels")
    trained = [p for p in network.parameters() if p.requires_grad]
    before = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(network(**batch), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters() if name in before)
    assert not network.vision.tower.training
    model.save(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 40 * 2**20
    network.eval()
    with torch.inference_mode():
        assert torch.equal(load(tmp_path).network(**batch), network(**batch))


def test_one_video_alone_and_in_a_batch_get_the_same_logits() -> None:
    model = mllm()
    model.network.eval()
    rows = [example(0, "a"), example(1, "a much longer title, with many more words than the first one has")]
    together, alone = model.collator(rows), [model.collator([row]) for row in rows]
    with torch.inference_mode():
        joint = model.network(**{k: v for k, v in together.items() if k != "labels"})
        single = torch.cat([model.network(**{k: v for k, v in one.items() if k != "labels"}) for one in alone])
    assert (joint - single).abs().max() <= 1e-4


def test_a_wrong_hash_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = EFFICIENTNET_LITE2.wheels[0]
    forged = Source(**{**vars(EFFICIENTNET_LITE2), "wheels": (Wheel(wheel.requirement, "0" * 64, wheel.members),)})
    with pytest.raises(ModelError, match="another hash than the pinned one"):
        weights.fetch(forged, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]  # one download per machine waits on it


def test_a_changed_file_is_found(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / EFFICIENTNET_LITE2.name, tmp_path / EFFICIENTNET_LITE2.name)
    weights.verify(EFFICIENTNET_LITE2, tmp_path)
    path = tmp_path / EFFICIENTNET_LITE2.name / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="not the file that was fetched"):
        weights.verify(EFFICIENTNET_LITE2, tmp_path)


def test_frames_of_another_size_than_the_towers_were_made_for_are_refused() -> None:
    params = BaseModelParams(
        preset="paper", architecture="frames", audio=False, motion=False, freeze_towers=True, training=TRAINING
    )
    with pytest.raises(ModelError, match=r"set media\.<issue>\.frame_size: 384"):
        build(base_config("icd", params, MEDIA), None)


def multitower(freeze: bool = True) -> Classifier:
    params = BaseModelParams(
        preset="starter", architecture="multitower", audio=True, motion=True, freeze_towers=freeze, training=TRAINING
    )
    torch.manual_seed(1)
    config = base_config("ucc", params, MEDIA)
    return build(config, text_encoder(config, []))


def logits_of(classifier: Classifier) -> torch.Tensor:
    batch = classifier.collator([example(1, "a title"), example(2, "")])
    del batch["labels"]
    with torch.inference_mode():
        return classifier.network.eval()(**batch)


def test_base_and_mllm_hold_and_run_what_they_have_in_common_once(tmp_path: Path) -> None:
    folders = {"base": tmp_path / "base", "mllm": tmp_path / "mllm"}
    multitower().save(folders["base"])
    mllm().save(folders["mllm"])
    alone = {kind: logits_of(load_for_scoring(folder)) for kind, folder in folders.items()}
    pool = TowerPool()
    shared = {kind: load_for_scoring(folder, towers=pool) for kind, folder in folders.items()}
    base, large = (shared[kind].network for kind in ("base", "mllm"))
    assert base.frames.encoder is large.vision.tower
    assert base.audio.encoder is large.audio.encoder
    # 2 videos of 4 frames and a motion image each; 2 sounds
    with pool.memo.group():
        for kind in ("base", "mllm"):
            assert torch.allclose(logits_of(shared[kind]), alone[kind], atol=1e-4)
            assert len(pool.memo.rows) == 2 * (4 + 1) + 2


def test_a_tower_that_was_trained_stays_the_model_s_own() -> None:
    pool = TowerPool()
    pool.adopt(mllm())
    trained = multitower(freeze=False)
    assert pool.adopt(trained) == 0
    assert isinstance(trained.network.frames.encoder, EfficientNetLite)


def test_two_models_hold_one_tokenizer(tmp_path: Path) -> None:
    mllm().save(tmp_path)
    first, second = load(tmp_path), load(tmp_path)
    assert first.text is not None
    assert second.text is not None
    assert first.text.tokenizer is second.text.tokenizer
