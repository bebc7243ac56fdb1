"""Put published weights into model parts; every file is safetensors by then (models/weights)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.errors import ModelError
from coefvq.files import read_json
from coefvq.models.parts import (
    FrameTowerPart,
    LanguagePart,
    OwnSoundPart,
    Preset,
    SiglipPart,
    SoundPart,
    TextPart,
    TextTowerPart,
)
from coefvq.models.preset_checks import check_checkpoint
from coefvq.models.weights.fetch import fetch

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

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
# what checkpoints hold beside the part that is read: heads of their own task, and tables that follow from sizes
_TABLES = r"position_ids$|relative_position_index$|num_batches_tracked$"
_IMAGE_HEAD = r"^(classifier|head|fc)\."
_TEXT_HEADS = r"^(lm_head|cls|classifier)\.|(^|\.)pooler\."
_SIGLIP_REST = r"^(text_model\.|logit_)|^(vision_model\.)?head\."
_LM_HEAD = r"(^|\.)lm_head\."
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def weights_of(preset: Preset, role: str) -> Path | None:
    """Folder of a role's weights, fetched if need be; None where the preset starts it random.

    Raises:
        ModelError: they can be had nowhere.
    """
    source = preset.weights.get(role)
    return None if source is None else fetch(source)


#: values of a tensor that is mapped by itself: smaller ones are copied, since opening a file takes a millisecond
_OWN_MAPPING = 2**16


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files, each mapped by itself.

    A weight that is packed is then given back to the system; in one mapping of the whole file it would stay in memory
    as long as the table of embeddings beside it.

    Raises:
        ModelError: there is none.
    """
    from safetensors import SafetensorError

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: holds no safetensors file; fetch the weights again")
    try:
        return {name: tensor for path in files for name, tensor in _mapped(path)}
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: weights not readable ({error}); delete it and fetch the weights again") from error


def _mapped(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as whole:
        for name in whole.keys():  # noqa: SIM118, it is no dictionary
            if prod(whole.get_slice(name).get_shape()) < _OWN_MAPPING:
                yield name, whole.get_tensor(name).clone()
                continue
            with safe_open(path, framework="pt") as alone:
                yield name, alone.get_tensor(name)


def load_published(
    module: PreTrainedModel,
    state: Mapping[str, torch.Tensor],
    where: Path,
    key: str,
    mapped: bool = False,
    left_out: str = "",
    **options: Any,
) -> None:
    """Put a checkpoint into a part made of transformers' classes, under the names of any of their versions.

    transformers renames parameters between versions and translates the old names in ``from_pretrained`` alone, so
    that is what reads the tensors here. ``left_out`` is a pattern of names that the part has no use for; ``mapped``
    and ``key`` are as in ``load_into``; ``options`` are those that the part was made with. The tensors get the part's
    own dtype.

    Raises:
        ModelError: a tensor is missing, has another shape, or belongs to nothing.
    """
    kind: Any = type(module)
    wanted = {name: tensor for name, tensor in state.items() if not (left_out and re.search(left_out, name))}
    loaded, report = _from_pretrained(kind, module.config, wanted, module.dtype, where, key, **options)
    _check_report(report, kind.__name__, where, key)
    # the part keeps tables that no file has, such as counters of batches
    module.load_state_dict(loaded.state_dict(), assign=mapped)


def _from_pretrained(
    kind: Any, config: Any, state: Mapping[str, torch.Tensor], dtype: torch.dtype, where: Path, key: str, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model of transformers with these tensors, and which of them were missing, left over or of another shape."""
    with _quiet():
        try:
            loaded, report = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(state),
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report, with their names
                **options,
            )
        except (KeyError, RuntimeError, ValueError) as error:
            raise _misfit(kind.__name__, str(error).splitlines()[0], where, key) from error
    return loaded, report


def _check_report(report: Mapping[str, Any], kind: str, where: Path, key: str) -> None:
    """Refuse what ``from_pretrained`` only warns of."""
    shapes = sorted(f"{name}: {tuple(file)}, expected {tuple(own)}" for name, file, own in report["mismatched_keys"])
    missing, extra = (
        sorted(name for name in report[part] if not re.search(_TABLES, name))
        for part in ("missing_keys", "unexpected_keys")
    )
    for what, names in (("of another shape", shapes), ("missing", missing), ("left over", extra)):
        if names:
            raise _misfit(kind, f"{len(names)} tensors {what}, e.g. {names[0]}", where, key)


def _misfit(kind: str, reason: str, where: Path, key: str) -> ModelError:
    return ModelError(f"{where}: does not fit {kind} ({reason}); correct the sizes of {key}, or fetch it again")


@contextmanager
def _quiet() -> Iterator[None]:
    """No report and no progress bar of transformers: what is wrong becomes an error of ours."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_into(
    module: nn.Module,
    state: Mapping[str, torch.Tensor],
    where: Path,
    key: str,
    mapped: bool = False,
    left_out: str = _TABLES,
) -> None:
    """Load a part that is not of transformers: exactly the module's own tensors. ``key`` is the part's name.

    ``left_out`` is a pattern of names that the part has no use for.

    With ``mapped`` the module keeps the tensors that are given, mapped from their file, where the type is its own:
    nothing is copied, and memory holds only what is used. For models that only score.

    Raises:
        ModelError: a tensor is missing, has another shape, or belongs to nothing.
    """
    own, kind = module.state_dict(), type(module).__name__
    if extra := sorted(name for name in state.keys() - own.keys() if not re.search(left_out, name)):
        raise _misfit(kind, f"{len(extra)} tensors left over, e.g. {extra[0]}", where, key)
    try:
        chosen = {name: state[name] for name in own if name in state or not re.search(_TABLES, name)}
        if mapped:
            chosen = {name: tensor.to(own[name].dtype) for name, tensor in chosen.items()}
        module.load_state_dict(chosen, assign=mapped, strict=False)
    except (KeyError, RuntimeError) as error:
        raise _misfit(kind, str(error).splitlines()[0], where, key) from error


def load_whisper_encoder(encoder: nn.Module, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights under openai-whisper's or transformers' names into an ``AudioEncoder`` of any length up to 30 s."""
    state = tensors_of(folder)
    if not any(name.startswith("blocks.") for name in state):
        prefix = next((p for p in ("model.encoder.", "encoder.") if any(n.startswith(p) for n in state)), "")
        ours = {prefix + _transformers_name(name): name for name in encoder.state_dict()}
        # a whole Whisper has a decoder too; without a prefix all tensors are the encoder's
        state = {ours.get(name, name): tensor for name, tensor in state.items() if name.startswith(prefix)}
    # positions are sinusoids, so a shorter window uses the first ones
    length = encoder.state_dict()["positional_embedding"].shape[0]
    if "positional_embedding" in state:
        state["positional_embedding"] = state["positional_embedding"][:length]
    load_into(encoder, state, folder, key, mapped)


def _transformers_name(name: str) -> str:
    for ours, theirs in _WHISPER_NAMES:
        name = name.replace(ours, theirs)
    return name


def onevision_model(folder: Path, key: str, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """A published LLaVA-OneVision without its lm_head, its weights as ``dtype`` whatever the file has.

    Each tensor goes from the file to ``device`` (default: the CPU): ranks of a machine hold no copies in its memory.

    Raises:
        ModelError: the folder has no config.json, or a tensor is missing, has another shape, or belongs to nothing.
    """
    from transformers import LlavaOnevisionConfig, LlavaOnevisionModel

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no config.json; fetch the weights again")
    config = LlavaOnevisionConfig.from_pretrained(folder, local_files_only=True)
    # from the tensors, not from the folder: a checkpoint of several files then needs no index beside them
    state = {name: tensor for name, tensor in tensors_of(folder).items() if not re.search(_LM_HEAD, name)}
    place: dict[str, Any] = {} if device is None or device.type == "cpu" else {"device_map": {"": device}}
    model, report = _from_pretrained(LlavaOnevisionModel, config, state, dtype, folder, key, **place)
    _check_report(report, "LlavaOnevisionModel", folder, key)
    return model


def load_frame_encoder(encoder: nn.Module, part: FrameTowerPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of a ResNet, Swin or EfficientNet-Lite, with or without the head and prefix of a classifier model."""
    check_checkpoint(folder, part, key)
    _load_any(encoder, folder, key, mapped, _IMAGE_HEAD)


def _load_any(module: nn.Module, folder: Path, key: str, mapped: bool, left_out: str = _TABLES) -> None:
    """By the names of transformers' versions where the module is of one of its classes, else by the module's own."""
    from transformers import PreTrainedModel

    if isinstance(module, PreTrainedModel):
        load_published(module, tensors_of(folder), folder, key, mapped, left_out)
    else:
        load_into(module, tensors_of(folder), folder, key, mapped, left_out)


def load_sound_tower(encoder: nn.Module, part: SoundPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of a Whisper, or of another package's tower."""
    if isinstance(part, OwnSoundPart):
        _load_any(encoder, folder, key, mapped)
    else:
        load_whisper_encoder(encoder, folder, key, mapped)


def load_siglip_vision(tower: PreTrainedModel, part: SiglipPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of a SigLIP's vision half, alone or beside its text half."""
    check_checkpoint(folder, part, key, "vision_config" if "vision_config" in _config(folder) else None)
    load_published(tower, tensors_of(folder), folder, key, mapped, _SIGLIP_REST)


def load_siglip(encoder: PreTrainedModel, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of both halves of a SigLIP."""
    load_published(encoder, tensors_of(folder), folder, key, mapped)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return dict(read_json(path)) if path.is_file() else {}


def load_decoder(decoder: PreTrainedModel, part: LanguagePart, folder: Path, key: str, mapped: bool = False) -> None:
    """Load decoder weights of the first ``part.layers_used`` layers."""
    check_checkpoint(folder, part, key)
    state = tensors_of(folder)
    if part.layers_used is not None:
        state = {name: tensor for name, tensor in state.items() if _layer(name) < part.layers_used}
    load_published(decoder, state, folder, key, mapped, _LM_HEAD)


def _layer(name: str) -> int:
    """Number of the layer that a tensor belongs to; -1 for those outside."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else -1


def load_text_tower(encoder: nn.Module, part: TextTowerPart, folder: Path, key: str, mapped: bool = False) -> None:
    """Weights of an XLM-R, an e5 or another package's encoder, with or without heads and prefix of a task model."""
    check_checkpoint(folder, part, key)
    if isinstance(part, TextPart):
        published: Any = encoder
        load_published(published, tensors_of(folder), folder, key, mapped, _TEXT_HEADS, add_pooling_layer=False)
    else:
        _load_any(encoder, folder, key, mapped, _TEXT_HEADS)
