"""From a package's own file format to safetensors that the model parts load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.errors import ModelError
from coefvq.models.weights.formats import PackedE5, read_ctranslate2, read_e5
from coefvq.models.weights.legacy_torch import read_legacy_state

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]

# names of a CTranslate2 layer -> names of openai-whisper's ResidualAttentionBlock
_NORMS = {
    "self_attention/layer_norm": "attn_ln",
    "ffn/layer_norm": "mlp_ln",
}
_LINEARS = {"self_attention/linear_1": "attn.out", "ffn/linear_0": "mlp.0", "ffn/linear_1": "mlp.2"}


def convert(kind: str, files: list[Path], folder: Path) -> None:
    """Write ``model.safetensors`` (and what else the part needs) of the raw ``files`` into ``folder``.

    Raises:
        ModelError: a file does not hold what its name says.
    """
    _CONVERTERS[kind](files, folder)


def _save(tensors: Mapping[str, Any], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


def _efficientnet_lite(files: list[Path], folder: Path) -> None:
    import torch

    state = read_legacy_state(files[0].read_bytes(), files[0].name)
    _save({efficientnet_name(key): torch.from_numpy(value.copy()) for key, value in state.items()}, folder)


def efficientnet_name(key: str) -> str:
    """A key of the published state dict -> the same tensor's key in ``EfficientNetLite``."""
    top = {"_conv_stem": "stem.1", "_bn0": "stem.2", "_conv_head": "head.1", "_bn1": "head.2", "_fc": "classifier"}
    inner = {
        "_expand_conv": "expand.1",
        "_bn0": "expand.2",
        "_depthwise_conv": "depthwise.1",
        "_bn1": "depthwise.2",
        "_project_conv": "project.1",
        "_bn2": "project.2",
    }
    if not key.startswith("_blocks."):
        module, rest = key.split(".", 1)
        return f"{top[module]}.{rest}"
    _, index, module, rest = key.split(".", 3)
    return f"blocks.{index}.{inner[module]}.{rest}"


def _whisper_encoder(files: list[Path], folder: Path) -> None:
    variables = read_ctranslate2(b"".join(path.read_bytes() for path in files), files[0].name)
    _save(whisper_encoder_state(variables), folder)


def whisper_encoder_state(variables: Mapping[str, Any]) -> Tensors:
    """Encoder variables of a CTranslate2 Whisper -> openai-whisper ``AudioEncoder`` state dict, float32."""
    import torch

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(variables[f"encoder/{name}"], dtype=np.float32))

    state = {"positional_embedding": tensor("position_encodings/encodings")}
    for name in ("conv1", "conv2"):
        state |= {f"{name}.weight": tensor(f"{name}/weight"), f"{name}.bias": tensor(f"{name}/bias")}
    state |= {"ln_post.weight": tensor("layer_norm/gamma"), "ln_post.bias": tensor("layer_norm/beta")}
    layers = {key.split("/")[1] for key in variables if key.startswith("encoder/layer_") and key.count("/") > 2}
    for layer in layers:
        block = f"blocks.{layer.removeprefix('layer_')}"
        for source, target in _NORMS.items():
            state[f"{block}.{target}.weight"] = tensor(f"{layer}/{source}/gamma")
            state[f"{block}.{target}.bias"] = tensor(f"{layer}/{source}/beta")
        for source, target in _LINEARS.items():
            state[f"{block}.{target}.weight"] = tensor(f"{layer}/{source}/weight")
            state[f"{block}.{target}.bias"] = tensor(f"{layer}/{source}/bias")
        # CTranslate2 keeps query, key and value as one matrix; Whisper's key has no bias
        weights = tensor(f"{layer}/self_attention/linear_0/weight").chunk(3)
        biases = tensor(f"{layer}/self_attention/linear_0/bias").chunk(3)
        for name, weight in zip(("query", "key", "value"), weights, strict=True):
            state[f"{block}.attn.{name}.weight"] = weight.clone()
        state[f"{block}.attn.query.bias"], state[f"{block}.attn.value.bias"] = biases[0].clone(), biases[2].clone()
    return state


def _e5(files: list[Path], folder: Path) -> None:
    packed = read_e5(files[0].read_bytes(), files[0].name)
    _save(e5_state(packed), folder)
    e5_tokenizer(packed).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(e5_config(packed), indent=2), encoding="utf-8")


def e5_config(packed: PackedE5) -> dict[str, Any]:
    """transformers.BertConfig of the encoder: e5-small is a BERT with XLM-R's vocabulary."""
    sizes = packed.sizes
    return {
        "model_type": "bert",
        "hidden_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["intermediate"],
        "vocab_size": sizes["vocabulary"],
        "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["types"],
        "pad_token_id": packed.special["pad"],
    }


def e5_state(packed: PackedE5) -> Tensors:
    """Tensors under the names of transformers.BertModel."""
    import torch

    hidden, inner = packed.sizes["hidden"], packed.sizes["intermediate"]

    def tensor(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(np.array(packed.tensors[name])).reshape(*shape)

    state = {
        "embeddings.word_embeddings.weight": tensor("emb.word", -1, hidden),
        "embeddings.position_embeddings.weight": tensor("emb.pos", -1, hidden),
        "embeddings.token_type_embeddings.weight": tensor("emb.type", -1, hidden),
        "embeddings.LayerNorm.weight": tensor("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": tensor("emb.ln.b", hidden),
    }
    shapes = {"q": (hidden, hidden), "k": (hidden, hidden), "v": (hidden, hidden), "ao": (hidden, hidden)}
    shapes |= {"fi": (inner, hidden), "fo": (hidden, inner)}
    names = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "ao": "attention.output.dense",
        "fi": "intermediate.dense",
        "fo": "output.dense",
    }
    norms = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
    for layer in range(packed.sizes["layers"]):
        for short, name in names.items():
            state[f"encoder.layer.{layer}.{name}.weight"] = tensor(f"l{layer}.{short}.w", *shapes[short])
            state[f"encoder.layer.{layer}.{name}.bias"] = tensor(f"l{layer}.{short}.b", shapes[short][0])
        for short, name in norms.items():
            state[f"encoder.layer.{layer}.{name}.weight"] = tensor(f"l{layer}.{short}.w", hidden)
            state[f"encoder.layer.{layer}.{name}.bias"] = tensor(f"l{layer}.{short}.b", hidden)
    return state


def e5_tokenizer(packed: PackedE5) -> Any:
    """XLM-R's unigram tokenizer with <s> … </s> around the text, as a ``tokenizers.Tokenizer``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=packed.special["unk"], byte_fallback=False))
    # the file lists a replacement per character; NFKC covers all but the control characters it drops
    dropped = "".join(source for source, target in packed.normalisation.items() if not target)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(f"[{_escaped(dropped)}]"), ""),
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    bos, eos = packed.special["bos"], packed.special["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    return tokenizer


def _escaped(characters: str) -> str:
    return "".join(f"\\x{{{ord(character):X}}}" for character in characters)


def _gguf(files: list[Path], folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        where: dict[str, Any] = {"gguf_file": files[0].name, "local_files_only": True}
        model = AutoModelForCausalLM.from_pretrained(files[0].parent, dtype=torch.float32, **where)
        tokenizer = AutoTokenizer.from_pretrained(files[0].parent, **where)
    except ImportError as error:
        raise ModelError(
            "GGUF weights need the package gguf; install the extra: pip install 'coefvq[starter]'"
        ) from error
    # the decoder without its language-model head is what the classifier uses; the head is tied anyway
    decoder = model.model
    decoder.config.quantization_config = None  # what is written is float32
    decoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _copied(files: list[Path], folder: Path) -> None:
    for path in files:
        shutil.copyfile(path, folder / path.name)


_CONVERTERS: dict[str, Callable[[list[Path], Path], None]] = {
    "efficientnet_lite": _efficientnet_lite,
    "whisper_encoder": _whisper_encoder,
    "e5": _e5,
    "gguf": _gguf,
    "none": _copied,
}
