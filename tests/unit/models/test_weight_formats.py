"""Readers of foreign weight files: what they read, and that damaged files end in one line."""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from coefvq.errors import ModelError
from coefvq.models.weights.convert import efficientnet_name, whisper_encoder_state
from coefvq.models.weights.formats import dequantise_q4, read_ctranslate2, read_e5
from coefvq.models.weights.legacy_torch import read_legacy_state


def legacy(state: dict[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(OrderedDict(state), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def test_a_legacy_state_dict_is_read_as_torch_reads_it() -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "weight": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1],
        "half": torch.ones(3, dtype=torch.float16),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 5),
    }
    found = read_legacy_state(legacy(state))
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert np.array_equal(found[name], tensor.numpy())
        assert found[name].dtype == tensor.numpy().dtype


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must never run",)


def test_a_call_in_a_pickle_is_never_made(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    torch.save(OrderedDict(weight=Harmful()), stream, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="not a state dict of plain tensors"):
        read_legacy_state(stream.getvalue(), "bad.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [0, 10, 200, -9])
def test_a_cut_legacy_file_is_refused(keep: int) -> None:
    with pytest.raises(ModelError, match=r"cut\.pth"):
        read_legacy_state(legacy({"weight": torch.ones(50)})[:keep], "cut.pth")


def ctranslate2(variables: dict[str, np.ndarray[Any, Any]], version: int = 6) -> bytes:
    codes = {np.dtype(np.float32): 0, np.dtype(np.int16): 2, np.dtype(np.float16): 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    body = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        body += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        body += struct.pack("<BI", codes[value.dtype], value.nbytes) + value.tobytes()
    return body


def test_ctranslate2_variables() -> None:
    wanted = {"a/weight": np.arange(6, dtype=np.float16).reshape(2, 3), "n": np.array(3, np.int16)}
    found = read_ctranslate2(ctranslate2(wanted))
    assert all(np.array_equal(found[name], value) for name, value in wanted.items())
    with pytest.raises(ModelError, match="format 5, expected 6"):
        read_ctranslate2(ctranslate2(wanted, version=5))
    for cut in (3, 20, 60):
        with pytest.raises(ModelError, match="ends in the middle"):
            read_ctranslate2(ctranslate2(wanted)[:cut])


def test_query_key_and_value_are_taken_apart() -> None:
    joint = np.arange(12, dtype=np.float32).reshape(6, 2)
    layer = "encoder/layer_0"
    ones = np.ones(2, np.float32)
    square = np.ones((2, 2), np.float32)
    linears = ("self_attention/linear_1", "ffn/linear_0", "ffn/linear_1")
    variables = {
        "encoder/position_encodings/encodings": square,
        **{f"encoder/{c}/{p}": ones for c in ("conv1", "conv2") for p in ("weight", "bias")},
        **{f"encoder/layer_norm/{p}": ones for p in ("gamma", "beta")},
        **{f"{layer}/{n}/layer_norm/{p}": ones for n in ("self_attention", "ffn") for p in ("gamma", "beta")},
        **{f"{layer}/{n}/{p}": square for n in linears for p in ("weight", "bias")},
        f"{layer}/self_attention/linear_0/weight": joint,
        f"{layer}/self_attention/linear_0/bias": np.arange(6, dtype=np.float32),
    }
    state = whisper_encoder_state(variables)
    assert state["blocks.0.attn.key.weight"].tolist() == joint[2:4].tolist()
    assert state["blocks.0.attn.value.bias"].tolist() == [4.0, 5.0]
    assert "blocks.0.attn.key.bias" not in state


def test_four_bit_blocks() -> None:
    nibbles = bytes(range(16))
    block = np.float16(0.5).tobytes() + nibbles
    values = dequantise_q4(memoryview(block), 32)
    assert values[:16].tolist() == [((n & 15) - 8) * 0.5 for n in nibbles]
    assert values[16:].tolist() == [((n >> 4) - 8) * 0.5 for n in nibbles]


def test_another_file_is_not_an_e5() -> None:
    with pytest.raises(ModelError, match="not an E5S1 file"):
        read_e5(b"GGUF" + bytes(100))


def test_names_of_the_published_efficientnet() -> None:
    assert efficientnet_name("_conv_stem.weight") == "stem.1.weight"
    assert efficientnet_name("_blocks.12._bn2.running_mean") == "blocks.12.project.2.running_mean"
