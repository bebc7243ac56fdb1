"""The networks: shapes, invariances, what trains, and that a saved folder gives the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams, Training
from coefvq.data.dataset import Example
from coefvq.data.media import Clip
from coefvq.data.text import TextEncoder, train_text_encoder
from coefvq.errors import ModelError
from coefvq.models.classifier import Classifier, base_config, build, load, mllm_config

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
TRAINING = Training(
    num_train_epochs=1,
    per_device_train_batch_size=4,
    learning_rate=1e-3,
    weight_decay=0.0,
    warmup_steps=0,
    lr_scheduler_type="constant",
    positive_weight=1.0,
)
KINDS = ["frames", "multitower", "siglip", "mllm", "mllm-silent", "mllm-early"]


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return train_text_encoder(["what a lovely day", "watch till the end", "mi video original"] * 20, 2048, 64)


def classifier(kind: str, text: TextEncoder, rank: int = 4) -> Classifier:
    torch.manual_seed(0)
    if kind.startswith("mllm"):
        params = MLLMParams(
            preset="tiny",
            fusion="early" if kind == "mllm-early" else "late",
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


@pytest.mark.parametrize("kind", ["multitower", "siglip", "mllm", "mllm-early"])
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


def test_rank_zero_trains_nothing_in_the_language_model(text: TextEncoder) -> None:
    decoder = classifier("mllm", text, rank=0).network.language.decoder
    assert not any(p.requires_grad for p in decoder.parameters())


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
