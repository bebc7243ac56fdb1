"""Checkpoints as the model hub has them, under old and new parameter names, load whole or are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    ResNetForImageClassification,
    SiglipModel,
    SwinForImageClassification,
    XLMRobertaForMaskedLM,
)

from coefvq.config import Lora, MediaSpec, MLLMParams
from coefvq.errors import ModelError
from coefvq.files import write_json
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.model_config import mllm_config, read_config
from coefvq.models.presets import get_preset, read_presets
from coefvq.models.vision import onevision_config
from tests.settings import training_settings
from tests.unit.models.test_presets import weights_folder

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
IDS = TokenIds(pad=0, video=1)
SWIN = {"kind": "swin", "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
HEAD_ONLY = Lora(rank=0, alpha=0, dropout=0.0)
Names = Callable[[str], str]


def builder(folder: Path, read: bool = True, **changes: Any) -> NetworkBuilder:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"mine": {"extends": "tiny", **changes}}))
    return NetworkBuilder(read_presets(path)["mine"], MEDIA, read)


def part_of(role: str, folder: Path, weights: bool = True) -> Any:
    """The part that takes the checkpoint of ``role``, with weights from ``folder``/hub or random ones."""
    given = {"weights": {role: {"folder": "hub"}}}
    swin = {"frames": SWIN} if role == "frames-swin" else {}
    if role == "frames-swin":
        given = {"weights": {"frames": {"folder": "hub"}}}
    make = builder(folder, weights, **swin, **(given if weights else {}))
    if role.startswith("frames"):
        return make.frames().frames.encoder
    if role == "tower_text":
        return make.multitower(IDS).text.encoder
    if role == "siglip":
        return make.siglip(IDS, hears=False).siglip.encoder
    network = make.mllm(IDS, lora=HEAD_ONLY, fusion="none")
    if role == "vision":
        return network.vision.tower
    return nn.ModuleDict({"seeing": network.vision.onevision, "language": network.language.decoder})


def task_model(role: str, part: Any) -> Any:
    """The model of transformers as which the part is published: with the head of its own task."""
    kinds = {
        "frames": ResNetForImageClassification,
        "frames-swin": SwinForImageClassification,
        "tower_text": XLMRobertaForMaskedLM,
        "siglip": SiglipModel,
        "vision": SiglipModel,
    }
    if role == "onevision":
        preset = get_preset("tiny")
        return LlavaOnevisionForConditionalGeneration(onevision_config(preset.vision, preset.language, 64))
    config = builder(Path(part), False).siglip(IDS, False).siglip.encoder.config if role == "vision" else part.config
    return kinds[role](config)


def renamed(state: dict[str, torch.Tensor], names: Names) -> dict[str, torch.Tensor]:
    return {names(name): tensor for name, tensor in state.items()}


def published(role: str, folder: Path, scheme: str) -> dict[str, torch.Tensor]:
    """Write ``folder``/hub as the hub has it (``old``) or as this version of transformers names it (``new``)."""
    torch.manual_seed(11)
    part = folder if role == "vision" else part_of(role, folder, weights=False)
    model = task_model(role, part)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer))
    hub = folder / "hub"
    if scheme == "new":
        weights_folder(hub, {**model.state_dict()})
        model.config.save_pretrained(hub)
    else:
        model.save_pretrained(hub)  # under the names of the hub
        state = load_file(hub / "model.safetensors")
        if role == "onevision":  # the published ones have one name more, of a SigLIP with its text half
            state = renamed(state, lambda name: re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name))
            assert "vision_tower.vision_model.embeddings.patch_embedding.weight" in state
        if role == "frames-swin":
            assert "swin.encoder.layers.0.blocks.0.attention.self.query.weight" in state
            state["swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(16, 16).long()
        if role == "tower_text":
            state["roberta.embeddings.position_ids"] = torch.arange(72)[None]
        save_file(state, hub / "model.safetensors")
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


ROLES = ["frames", "frames-swin", "tower_text", "siglip", "vision", "onevision"]


@pytest.mark.parametrize("scheme", ["old", "new"])
@pytest.mark.parametrize("role", ROLES)
def test_a_published_checkpoint_loads_whole_under_old_and_new_names(role: str, scheme: str, tmp_path: Path) -> None:
    theirs = published(role, tmp_path, scheme)
    ours = part_of(role, tmp_path).state_dict()
    ends = {name.removeprefix("seeing.").removeprefix("language."): tensor for name, tensor in ours.items()}
    checked = 0
    for name, tensor in ends.items():
        if "num_batches" in name:
            continue
        found = [value for other, value in theirs.items() if other.endswith(name) and value.shape == tensor.shape]
        assert any(torch.equal(tensor, value) for value in found), name
        checked += 1
    assert checked > 10


@pytest.mark.parametrize("role", ROLES)
def test_missing_and_unexpected_tensors_are_refused_by_name(role: str, tmp_path: Path) -> None:
    published(role, tmp_path, "old")
    path = tmp_path / "hub" / "model.safetensors"
    state = load_file(path)
    heads = ("classifier", "lm_head", "language_model.lm_head", "text_model", "vision_model.head", "logit")
    gone = next(name for name in sorted(state, reverse=True) if name.endswith("weight") and not name.startswith(heads))
    save_file({name: tensor for name, tensor in state.items() if name != gone}, path)
    with pytest.raises(ModelError, match=r"hub: does not fit .* \(1 tensors missing, e.g. .*weight\); correct"):
        part_of(role, tmp_path)
    save_file({**state, "encoder.unknown.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"hub: does not fit .* \(1 tensors left over, e.g. .*unknown.weight\)"):
        part_of(role, tmp_path)
    save_file({**state, gone: torch.zeros(7, 3)}, path)
    with pytest.raises(ModelError, match=r"hub: does not fit .* \(1 tensors of another shape, e.g. .*\(7, 3\)"):
        part_of(role, tmp_path)


@pytest.mark.parametrize("role", ["frames-swin", "onevision"])
def test_half_precision_on_the_hub_does_not_decide_the_precision_here(role: str, tmp_path: Path) -> None:
    published(role, tmp_path, "old")
    path = tmp_path / "hub" / "model.safetensors"
    halves = {name: t.half() if t.is_floating_point() else t for name, t in load_file(path).items()}
    save_file(halves, path)
    config = (tmp_path / "hub" / "config.json").read_text()
    (tmp_path / "hub" / "config.json").write_text(config.replace("float32", "float16"))
    assert {p.dtype for p in part_of(role, tmp_path).parameters()} == {torch.float32}


def test_a_checkpoint_of_several_files_needs_no_index(tmp_path: Path) -> None:
    theirs = published("onevision", tmp_path, "old")
    path = tmp_path / "hub" / "model.safetensors"
    state = load_file(path)
    names = sorted(state)
    for number, chosen in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: state[name] for name in chosen}, path.with_name(f"model-0000{number}-of-00002.safetensors"))
    path.unlink()
    newline = part_of("onevision", tmp_path)["seeing"].image_newline
    assert torch.equal(newline, theirs["model.image_newline"])
    path.with_name("model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="tensors missing"):
        part_of("onevision", tmp_path)


def test_a_model_that_was_trained_on_another_revision_is_refused(tmp_path: Path) -> None:
    params = MLLMParams(
        preset="onevision-0.5b", fusion="late", text=True, audio=True, motion=False,
        lora=Lora(rank=32, alpha=64, dropout=0.0), training=training_settings(),
    )  # fmt: skip
    config = mllm_config("ucc", params, MediaSpec(frames=8, frame_size=384, audio_seconds=30.0))
    assert config.published is not None
    assert set(config.published) == {"onevision", "audio"}
    write_json(tmp_path / "config.json", config.model_dump(exclude_none=True))
    assert read_config(tmp_path) == config
    older = config.published | {"onevision": "llava-hf--llava-onevision-qwen2-0.5b-ov-hf@0123456789ab"}
    write_json(tmp_path / "config.json", config.model_dump(exclude_none=True) | {"published": older})
    with pytest.raises(ModelError, match=r"trained on onevision \S+@0123456789ab, .* has \S+@\w{12} here; install"):
        read_config(tmp_path)
