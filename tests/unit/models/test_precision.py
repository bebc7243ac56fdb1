"""Precision: asked for, never taken from a file; tables and a frozen Whisper survive every cast to bfloat16."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from coefvq.config import Approximate, Lora
from coefvq.models.assembly import freeze_module
from coefvq.models.audio import AudioBranch
from coefvq.models.classifier import Classifier, build, load
from coefvq.models.fast.switches import choose, prepare
from coefvq.models.language import LanguageBranch, decoder_config
from coefvq.models.model_config import ModelConfig
from coefvq.models.parts import AudioPart, LanguagePart
from coefvq.models.precision import fixed_precision
from coefvq.models.presets import read_presets
from coefvq.models.text import TextEncoder, train_text_encoder
from coefvq.training.losses import ClassificationLoss, LossSpec
from coefvq.training.objective import Monitored, WithLoss
from tests.unit.models.test_fast import MEDIA, batch_of, logits, model
from tests.unit.models.test_hub_weights import published

NOTHING = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
WHISPER = AudioPart(n_state=16, n_head=2, n_layer=1)


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return train_text_encoder(["what a lovely day", "watch till the end", "mi video original"] * 20, 2048, 64)


def scoring(classifier: Classifier, dtype: Any) -> Classifier:
    return prepare(classifier, choose("exact", dtype, NOTHING))[0]


def monitored(classifier: Classifier) -> Monitored:
    loss = ClassificationLoss(LossSpec(positive_weight=2.7), torch.full((1, 2), 0.5))
    return Monitored(WithLoss(classifier.network, loss), ["a"])


def rotary_of(classifier: Classifier) -> Any:
    return next(module for module in classifier.network.modules() if hasattr(module, "inv_freq"))


def as_a_whole(classifier: Classifier) -> Monitored:
    """What older versions of DeepSpeed do."""
    whole = monitored(classifier)
    with fixed_precision(whole):
        return whole.bfloat16()


@pytest.mark.parametrize("cast", [lambda made: scoring(made, "bfloat16"), as_a_whole])
def test_rotary_frequencies_are_not_rounded_by_a_cast(cast: Callable[[Classifier], Any], text: TextEncoder) -> None:
    made = model("siglip", text)
    before = rotary_of(made).inv_freq.clone()
    cast(made)
    assert next(made.network.language.parameters()).dtype == torch.bfloat16
    assert torch.equal(rotary_of(made).inv_freq, before)


def test_the_state_of_the_last_of_1633_positions_is_that_of_float32_to_rounding() -> None:
    torch.manual_seed(2)
    part = LanguagePart("qwen2", 64, 2, 4, 2, 128, vocab_size=64, rope_theta=1_000_000.0)
    from transformers import AutoModel

    branch = LanguageBranch(AutoModel.from_config(decoder_config(part)), 1, Lora(rank=0, alpha=0, dropout=0.0)).eval()
    with torch.no_grad():
        for name, parameter in branch.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.mul_(20.0)  # so that attention, and with it the position, matters
    visual, ids = torch.randn(1, 1600, 64), torch.tensor([[1] * 1600 + [2] * 33])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        exact = branch(visual, ids, mask)
        with fixed_precision(branch):
            branch.to(torch.bfloat16)
        rounded = branch(visual, ids, mask).float()
    assert (rounded - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("kind", ["siglip", "cnn", "cnn-early"])
def test_kept_features_are_scored_in_bfloat16(kind: str, text: TextEncoder) -> None:
    made = model(kind, text)
    batch = batch_of(made)
    freeze_module(made.network.vision.tower)
    features = made.network.frozen_features(**batch)
    assert "vision_features" in features
    expected = logits(made)
    ready = scoring(made, "bfloat16")
    rest = {name: tensor for name, tensor in batch.items() if name != "pixel_values"}
    with torch.inference_mode():
        kept, anew = ready.network(**rest, **features), ready.network(**batch)
    assert torch.allclose(kept, expected, atol=0.1)
    assert torch.allclose(kept, anew, atol=0.1)


def test_whisper_computes_with_weights_of_bfloat16() -> None:
    torch.manual_seed(0)
    branch, mel = AudioBranch(WHISPER, 1.0), torch.randn(2, 80, 100)
    heard = torch.tensor([True, False])
    exact = branch(mel, heard)
    rounded = branch.to(torch.bfloat16)(mel.to(torch.bfloat16), heard)
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), exact, atol=0.1)


def test_a_frozen_whisper_hears_the_same_under_autocast_and_keeps_its_weights_in_a_cast() -> None:
    torch.manual_seed(0)
    branch, mel = AudioBranch(WHISPER, 1.0), torch.randn(2, 80, 100)
    freeze_module(branch)
    heard = torch.ones(2, dtype=torch.bool)
    exact = branch(mel, heard)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(branch(mel, heard), exact)
    root = nn.ModuleList([branch, nn.Linear(2, 2)])
    with fixed_precision(root):
        root.to(torch.bfloat16)
    assert torch.equal(branch(mel, heard), exact)
    assert root[1].weight.dtype == torch.bfloat16


def test_losses_and_their_weights_keep_float32_where_a_training_is_cast(text: TextEncoder) -> None:
    made = as_a_whole(model("siglip", text))
    assert made.objective.loss.class_weight.tolist() == pytest.approx([1.0, 2.7], abs=1e-6)
    loss = made.objective.loss(torch.randn(3, 2, dtype=torch.bfloat16), torch.tensor([0, 1, 1]))
    assert loss.isfinite()


def hub_model(folder: Path, text: TextEncoder, dtype: Any) -> Classifier:
    """LLaVA-OneVision in miniature from a folder in half precision, with adapters that do something."""
    published("onevision", folder, "old")
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"mine": {"extends": "tiny", "weights": {"onevision": {"folder": "hub"}}}}))
    config = ModelConfig(
        issues=("icd",), kind="mllm", preset="mine", definition=read_presets(path)["mine"].definition,
        architecture="mllm", media=MEDIA, fusion="late", text=True, audio=True, lora_rank=4, lora_alpha=8, dtype=dtype,
    )  # fmt: skip
    made = build(config, text)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    made.network.eval()
    return made


def test_the_precision_of_a_frozen_backbone_is_part_of_the_model(text: TextEncoder, tmp_path: Path) -> None:
    made = hub_model(tmp_path, text, "bfloat16")
    dtypes = {name: parameter.dtype for name, parameter in made.network.named_parameters()}
    for name, dtype in dtypes.items():
        frozen_backbone = name.startswith(("vision.", "language.")) and "lora_" not in name
        assert dtype == (torch.bfloat16 if frozen_backbone else torch.float32), name
    assert rotary_of(made).inv_freq.dtype == torch.float32
    made.save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    again = load(tmp_path / "model")
    assert {name: p.dtype for name, p in again.network.named_parameters()} == dtypes
    assert torch.equal(logits(again), logits(made))


def test_scoring_merges_in_float32_and_rounds_once(text: TextEncoder, tmp_path: Path) -> None:
    made = hub_model(tmp_path, text, "bfloat16")
    layer = made.network.language.decoder.get_base_model().layers[0].mlp.down_proj
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    summed = (layer.base_layer.weight.float() + delta).detach()
    made.save(tmp_path / "model")
    half, full = (scoring(load(tmp_path / "model"), dtype) for dtype in ("bfloat16", "float32"))
    assert {p.dtype for p in full.network.parameters()} == {torch.float32}
    names = {"half": half, "full": full}
    merged = {
        name: dict(ready.network.named_modules())["language.decoder.layers.0.mlp.down_proj"]
        for name, ready in names.items()
    }
    assert merged["half"].weight.dtype == torch.bfloat16
    if not hasattr(merged["half"], "packed"):  # oneDNN's layout cannot be compared
        assert torch.equal(merged["half"].weight, summed.to(torch.bfloat16))
        assert torch.allclose(merged["full"].weight, summed, atol=1e-6)
    assert torch.allclose(logits(half), logits(full), atol=0.1)


def test_autograd_keeps_no_copy_of_frozen_weights(text: TextEncoder, tmp_path: Path) -> None:
    def saved_weights(dtype: str) -> int:
        folder = tmp_path / dtype
        folder.mkdir()
        made = hub_model(folder, text, dtype)
        shapes = {tuple(p.shape) for p in made.network.language.parameters() if not p.requires_grad and p.dim() == 2}
        shapes |= {shape[::-1] for shape in shapes}
        own = {p.untyped_storage().data_ptr() for p in made.network.parameters()}
        copies: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own and tuple(tensor.shape) in shapes:
                copies[storage.data_ptr()] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
            kept = made.network(**batch_of(made))
        del kept
        return sum(copies.values())

    assert saved_weights("float32") > 50_000
    assert saved_weights("bfloat16") == 0
