"""Put published weights into model parts; every file is safetensors by then (models/weights)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.errors import ModelError
from coefvq.files import read_json
from coefvq.models.parts import FrameTowerPart, LanguagePart, Preset, SiglipPart, TextPart
from coefvq.models.preset_checks import check_checkpoint
from coefvq.models.weights.fetch import fetch

if TYPE_CHECKING:
    import torch
    from torch import nn

# openai-whisper's name of an encoder tensor -> transformers' name
_WHISPER_NAMES = (
    (".attn.query.", ".self_attn.q_proj."),
    (".attn.key.", ".self_attn.k_proj."),
    (".attn.value.", ".self_attn.v_proj."),
    (".attn.out.", ".self_attn.out_proj."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".mlp_ln.", ".final_layer_norm."),
    ("blocks.", "layers."),
    ("ln_post.", "layer_norm."),
    ("positional_embedding", "embed_positions.weight"),
)
_SIGLIP_PREFIX = "vision_model."


def weights_of(preset: Preset, role: str) -> Path | None:
    """Folder of a role's weights, fetched if need be; None where the preset starts it random.

    Raises:
        ModelError: they can be had nowhere.
    """
    source = preset.weights.get(role)
    return None if source is None else fetch(source)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files.

    Raises:
        ModelError: there is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: holds no safetensors file; fetch the weights again")
    try:
        return {name: tensor for path in files for name, tensor in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: weights not readable ({error}); delete it and fetch the weights again") from error


def load_into(module: nn.Module, state: dict[str, torch.Tensor], where: Path, key: str, mapped: bool = False) -> None:
    """Load exactly the module's own tensors; more of them in the file do no harm. ``key`` is the part's name.

    With ``mapped`` the module keeps the tensors that are given, mapped from their file, where the type is its own:
    nothing is copied, and memory holds only what is used. For models that only score.

    Raises:
        ModelError: one is missing or has another shape.
    """
    own = module.state_dict()
    try:
        chosen = {name: state[name] for name in own if name in state or "num_batches" not in name}
        if mapped:
            chosen = {name: tensor.to(own[name].dtype) for name, tensor in chosen.items()}
        module.load_state_dict(chosen, assign=mapped)
    except (KeyError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"{where}: does not fit {type(module).__name__} ({first}); correct the sizes of {key}, or fetch it again"
        ) from error


def load_whisper_encoder(encoder: nn.Module, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights under openai-whisper's or transformers' names into an ``AudioEncoder`` of any length up to 30 s."""
    state = tensors_of(folder)
    if not any(name.startswith("blocks.") for name in state):
        prefix = next((p for p in ("model.encoder.", "encoder.") if any(n.startswith(p) for n in state)), "")
        published = {name: prefix + _transformers_name(name) for name in encoder.state_dict()}
        state = {name: state[other] for name, other in published.items() if other in state}
    # positions are sinusoids, so a shorter window uses the first ones
    length = encoder.state_dict()["positional_embedding"].shape[0]
    if "positional_embedding" in state:
        state["positional_embedding"] = state["positional_embedding"][:length]
    load_into(encoder, state, folder, key, mapped)


def _transformers_name(name: str) -> str:
    for ours, theirs in _WHISPER_NAMES:
        name = name.replace(ours, theirs)
    return name


def onevision_model(folder: Path, **options: Any) -> Any:
    """A published LLaVA-OneVision without its lm_head.

    ``options`` go to from_pretrained, e.g. dtype or attn_implementation.
    """
    from transformers import LlavaOnevisionModel

    return LlavaOnevisionModel.from_pretrained(folder, local_files_only=True, **options)


def load_frame_encoder(encoder: nn.Module, part: FrameTowerPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of a ResNet, Swin or EfficientNet-Lite, with or without the prefix of a classifier model."""
    check_checkpoint(folder, part, key)
    state = tensors_of(folder)
    for prefix in ("resnet.", "swin."):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    load_into(encoder, state, folder, key, mapped)


def load_siglip_vision(tower: nn.Module, part: SiglipPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of a SigLIP's vision half, alone or beside its text half."""
    check_checkpoint(folder, part, key, "vision_config" if "vision_config" in _config(folder) else None)
    # this name stands before the tensors in a SiglipModel and in older towers, not in newer ones
    bare = {name.removeprefix(_SIGLIP_PREFIX): value for name, value in tensors_of(folder).items()}
    names = {name: name.removeprefix(_SIGLIP_PREFIX) for name in tower.state_dict()}
    load_into(tower, {name: bare[other] for name, other in names.items() if other in bare}, folder, key, mapped)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return dict(read_json(path)) if path.is_file() else {}


def load_decoder(decoder: nn.Module, part: LanguagePart, folder: Path, key: str, mapped: bool = False) -> None:
    """Load decoder weights of the first ``part.layers_used`` layers."""
    check_checkpoint(folder, part, key)
    state = tensors_of(folder)
    load_into(decoder, {name.removeprefix("model."): value for name, value in state.items()}, folder, key, mapped)


def load_text_tower(encoder: nn.Module, part: TextPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of an XLM-R or e5 encoder, with or without the prefix of a task model."""
    check_checkpoint(folder, part, key)
    prefix = "roberta." if part.model_type == "xlm-roberta" else "bert."
    state = {name.removeprefix(prefix): value for name, value in tensors_of(folder).items()}
    load_into(encoder, state, folder, key, mapped)
