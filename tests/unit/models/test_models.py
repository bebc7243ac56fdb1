"""The networks: shapes, invariances, what trains, and that a saved folder gives the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams
from coefvq.data.media.decode import Clip
from coefvq.errors import ModelError
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.classifier import Classifier, build, load
from coefvq.models.dataset import Example
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.presets import get_preset
from coefvq.models.text import TextEncoder, train_text_encoder
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
TRAINING = training_settings()
KINDS = ["frames", "multitower", "siglip", "mllm", "mllm-silent", "mllm-early", "mllm-mean"]


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return train_text_encoder(["what a lovely day", "watch till the end", "mi video original"] * 20, 2048, 64)


def classifier(kind: str, text: TextEncoder, rank: int = 4) -> Classifier:
    torch.manual_seed(0)
    if kind.startswith("mllm"):
        params = MLLMParams(
            preset="tiny",
            fusion="early" if kind in ("mllm-early", "mllm-mean") else "late",
            pooling="mean" if kind == "mllm-mean" else "last",
            text=True,
            audio=kind != "mllm-silent",
            motion=False,
            lora=Lora(rank=rank, alpha=2 * rank, dropout=0.0),
            training=TRAINING,
        )
        made = build(mllm_config("icd", params, MEDIA), text)
    else:
        params_base = BaseModelParams(
            preset="tiny",
            architecture=kind,  # type: ignore[arg-type]
            audio=True,
            motion=False,
            freeze_towers=False,
            training=TRAINING,
        )
        made = build(base_config("icd", params_base, MEDIA), text)
    made.network.eval()
    return made


def example(seed: int, words: str = "what a day", sound: bool = True) -> Example:
    random = np.random.default_rng(seed)
    wave = random.integers(-9000, 9000, 16_000 if sound else 0).astype(np.int16)
    frames = random.integers(0, 255, (2, 3, 64, 64)).astype(np.uint8)
    return Example(Clip(frames, wave), words, label=seed % 2)


def logits(model: Classifier, examples: list[Example]) -> torch.Tensor:
    batch = model.collator(examples)
    batch.pop("labels")
    with torch.inference_mode():
        out: torch.Tensor = model.network(**batch)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_alone_and_in_a_padded_batch_agree(kind: str, text: TextEncoder) -> None:
    model = classifier(kind, text)
    rows = [example(1, "a"), example(2, "what a lovely day, watch till the very end " * 2), example(3, "", sound=False)]
    together = logits(model, rows)
    alone = torch.cat([logits(model, [row]) for row in rows])
    assert together.shape == (3, 2)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_gives_the_same_logits(kind: str, text: TextEncoder, tmp_path: Path) -> None:
    model = classifier(kind, text)
    model.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors"}
    rows = [example(1), example(2)]
    assert torch.equal(logits(model, rows), logits(load(tmp_path), rows))


@pytest.mark.parametrize("kind", ["multitower", "siglip", "mllm", "mllm-early", "mllm-mean"])
def test_each_modality_changes_the_answer(kind: str, text: TextEncoder) -> None:
    model = classifier(kind, text)
    one = example(1)
    other = example(2)
    reference = logits(model, [one])
    changes = [
        Example(Clip(other.clip.frames, one.clip.waveform), one.text, None),
        Example(Clip(one.clip.frames, other.clip.waveform), one.text, None),
        Example(one.clip, "watch till the end", None),
    ]
    for changed in changes:
        batch = model.collator([changed])
        with torch.inference_mode():
            assert not torch.allclose(reference, model.network(**batch), atol=1e-6)


def test_without_sound_the_audio_vector_is_zero_and_still_has_a_gradient_path(text: TextEncoder) -> None:
    model = classifier("mllm", text)
    batch = model.collator([example(1, sound=False)])
    batch.pop("labels")
    model.network(**batch).sum().backward()
    encoder = model.network.audio.encoder
    gradients = [p.grad for p in encoder.parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in gradients)


def test_lora_adapts_every_linear_layer_and_freezes_the_rest_of_the_language_model(text: TextEncoder) -> None:
    decoder = classifier("mllm", text).network.language.decoder
    trained = {name for name, p in decoder.named_parameters() if p.requires_grad}
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained if "lora_" in name}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all("lora_" in name or "embed_tokens" in name for name in trained)


@pytest.mark.parametrize("kind", ["mllm", "mllm-silent", "mllm-early"])
def test_rank_zero_trains_the_head_and_what_has_no_weights_yet(kind: str, text: TextEncoder) -> None:
    network = classifier(kind, text, rank=0).network.train()
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"head", "norm", "vision"} | ({"audio_projector"} if kind == "mllm-early" else set())
    towers = [network.vision.tower, network.language.decoder, *([network.audio] if network.audio else [])]
    assert not any(p.requires_grad for tower in towers for p in tower.parameters())
    assert any(p.requires_grad for p in network.vision.projector.parameters())  # `tiny` has no pretrained one


@pytest.mark.parametrize("rank", [0, 32])
def test_with_published_weights_only_the_papers_parts_train(rank: int) -> None:
    make = NetworkBuilder(get_preset("paper"), MediaSpec(frames=1, frame_size=384, audio_seconds=30.0), weights=False)
    with torch.device("meta"):
        lora = Lora(rank=rank, alpha=2 * rank, dropout=0.0)
        network = make.mllm(TokenIds(0, 1), lora=lora, fusion="late")
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    head = {"head.weight", "head.bias", "norm.weight", "norm.bias"}
    assert head <= trained
    assert all("lora_" in name for name in trained - head)
    assert bool(trained - head) is (rank > 0)


def test_rows_are_left_padded_and_end_with_a_real_token(text: TextEncoder) -> None:
    batch = text.batch(["", "what a lovely day"], visual_tokens=3)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert (ids[:, -1] == text.end_id).all()
    assert mask[:, -1].all()
    assert (ids[0, :-4] == text.pad_id).all()
    assert (ids == text.video_id).sum(dim=1).tolist() == [3, 3]
    assert (mask.diff(dim=1) >= 0).all()


def test_unseen_languages_encode_without_unknown_tokens(text: TextEncoder) -> None:
    encoded = text.tokenizer.encode("日本語のタイトル 🙂")
    assert "<unk>" not in encoded.tokens
    assert text.tokenizer.decode(encoded.ids).strip() == "日本語のタイトル 🙂"


@pytest.mark.parametrize("damage", ["config", "weights", "tokenizer", "shape", "key"])
def test_a_damaged_folder_is_refused_in_one_line(text: TextEncoder, tmp_path: Path, damage: str) -> None:
    classifier("mllm", text).save(tmp_path)
    config = tmp_path / "config.json"
    if damage == "config":
        config.unlink()
    elif damage == "weights":
        (tmp_path / "model.safetensors").write_bytes(b"x" * 40)
    elif damage == "tokenizer":
        (tmp_path / "tokenizer.json").unlink()
    else:
        content = json.loads(config.read_text())
        content |= {"lora_rank": 3} if damage == "shape" else {"surprise": 1}
        config.write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_importing_the_package_pulls_in_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, coefvq.models, coefvq.__main__; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_clip_sounds_like_does_not_hang_on_its_neighbours() -> None:
    """Whisper's features are cut below the loudest value: of the clip, never of the batch."""
    from coefvq.data.media.decode import Clip
    from coefvq.models.dataset import Collator, Example

    rng = np.random.default_rng(1)
    frames = np.zeros((1, 3, 32, 32), np.uint8)
    quiet, loud = ((rng.normal(size=16_000) * scale).astype(np.int16) for scale in (3, 9000))
    collate = Collator(text=None, visual_tokens=0, audio_seconds=1.0)
    alone, beside = (
        collate([Example(Clip(frames, wave), "", None) for wave in waves])["log_mel"][0]
        for waves in ([quiet], [quiet, loud])
    )
    assert torch.equal(alone, beside)
