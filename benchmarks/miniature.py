"""A shipped hub preset at small depth and full structure, with random weights laid out as the model hub has them.

What is small: layers, and with ``narrow`` widths and vocabularies. What is not: the parts, their files and names,
tokenizers with the published special tokens, the chat template, 384 px, and so the positions that the decoder sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    ResNetForImageClassification,
    SiglipModel,
    SwinForImageClassification,
    XLMRobertaForMaskedLM,
)

from coefvq.config import MediaSpec
from coefvq.documents import parse_yaml
from coefvq.files import sha256_file, write_json
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.audio import AudioBranch
from coefvq.models.parts import Preset
from coefvq.models.presets import preset_from
from coefvq.models.vision import onevision_config
from coefvq.models.weights.sources import Source

_MEDIA = MediaSpec(frames=2, frame_size=384, audio_seconds=30.0)
_IDS = TokenIds(pad=0, video=1)
_VOCABULARY = 1024
_NARROW: Mapping[str, Mapping[str, Any]] = {
    "vision": {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
    "language": {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
        "vocab_size": _VOCABULARY,
    },
    "audio": {"n_state": 48, "n_head": 2},
    "frames": {"embedding_size": 8, "hidden_sizes": [16, 16, 32, 32]},
    "tower_frames": {"embed_dim": 16, "num_heads": [2, 2, 2, 2]},
    "tower_text": {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": _VOCABULARY},
    "tower_audio": {"n_state": 32, "n_head": 2},
    "siglip": {
        "text_hidden_size": 32, "text_heads": 2, "text_intermediate_size": 64, "vocab_size": _VOCABULARY,
    },
}  # fmt: skip
_LAYERS = {"vision": "num_hidden_layers", "language": "num_hidden_layers", "audio": "n_layer", "tower_audio": "n_layer",
           "tower_text": "num_hidden_layers", "siglip": "text_layers"}  # fmt: skip
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + ' ' }}"
    "{% for part in message.content %}{{ '<video>' if part.type == 'video' else '\\n' + part.text }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def definition_of(name: str, layers: int, narrow: bool) -> dict[str, Any]:
    """A preset that ships (``paper``, ``onevision-0.5b``) with ``layers`` layers in each part, as YAML would say it."""
    bodies = {
        key: parse_yaml((files("coefvq") / "presets" / f"{key}.yaml").read_text(encoding="utf-8"), key, "")[key]
        for key in dict.fromkeys(("paper", name))
    }
    whole = {**bodies["paper"], **bodies[name], "weights": {**bodies["paper"]["weights"], **bodies[name]["weights"]}}
    body = {key: value for key, value in whole.items() if key != "extends"}
    for role, key in _LAYERS.items():
        body[role] = {**body[role], **(_NARROW[role] if narrow else {}), key: layers}
    for role in ("frames", "tower_frames"):
        body[role] = {**body[role], **(_NARROW[role] if narrow else {}), "depths": [1, 1, 1, 1]}
    pair = body["siglip"]["vision"]
    body["siglip"]["vision"] = {**pair, **(_NARROW["vision"] if narrow else {}), "num_hidden_layers": layers}
    body["weights"] = {
        role: {"hub": f"miniature/{role}", "revision": f"{at + 1:040x}"} for at, role in enumerate(whole["weights"])
    }
    return body


def write_weights(home: Path, definition: Mapping[str, Any], roles: Sequence[str], seed: int = 0) -> Preset:
    """Random checkpoints of ``roles`` below ``home`` (COEFVQ_WEIGHTS), as if they had been fetched from the hub."""
    preset = preset_from("miniature", dict(definition), "miniature")
    torch.manual_seed(seed)
    make = NetworkBuilder(preset, _MEDIA, weights=False)
    for role in roles:
        source = preset.weights[role]
        folder = home / source.name
        folder.mkdir(parents=True)
        _write(folder, role, preset, make)
        _mark(folder, source)
    return preset


def _write(folder: Path, role: str, preset: Preset, make: NetworkBuilder) -> None:
    if role in ("audio", "tower_audio"):
        encoder = AudioBranch(getattr(preset, role), _MEDIA.audio_seconds).encoder
        state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        return
    if role == "onevision":
        config = onevision_config(preset.vision, preset.language, 384)  # type: ignore[arg-type]
        LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
        write_json(folder / "chat_template.json", {"chat_template": _TEMPLATE})
        _tokenizer(["<|endoftext|>", "<video>", "<|im_start|>", "<|im_end|>"]).save(str(folder / "tokenizer.json"))
    elif role == "tower_text":
        XLMRobertaForMaskedLM(make.multitower(_IDS).text.encoder.config).save_pretrained(folder)
        _tokenizer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).save(str(folder / "tokenizer.json"))
    elif role == "siglip":
        SiglipModel(make.siglip(_IDS, hears=False).siglip.encoder.config).save_pretrained(folder)
        _tokenizer(["<pad>", "</s>", "<unk>"]).save(str(folder / "tokenizer.json"))
    elif role == "frames":
        ResNetForImageClassification(make.frames().frames.encoder.config).save_pretrained(folder)
    else:
        SwinForImageClassification(make.multitower(_IDS).frames.encoder.config).save_pretrained(folder)


def _tokenizer(special: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["user\n", "assistant\n", "watch till the end"] * 9, trainer)
    return made


def _mark(folder: Path, source: Source) -> None:
    hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    write_json(folder / "source.json", {"name": source.name, "licence": "none", "origin": "random", "sha256": hashes})
