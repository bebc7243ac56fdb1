"""Published weights as they lie in memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coefvq.models.pretrained import tensors_of


def resident(path: Path) -> int:
    """Bytes of the file that this process holds in memory by mapping it."""
    maps = Path("/proc/self/smaps").read_text().split("VmFlags:")
    return sum(int(found) for part in maps if str(path) in part for found in re.findall(r"^Rss: +(\d+) kB", part, re.M))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_weight_that_is_dropped_gives_its_memory_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    generator = torch.Generator().manual_seed(7)
    sizes = {"table": (4096, 256), "layer.weight": (1024, 1024), "layer.bias": (1024,)}
    save_file({name: torch.randn(size, generator=generator) for name, size in sizes.items()}, path)
    whole, state = load_file(path), tensors_of(tmp_path)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == sizes
    assert all(torch.equal(state[name], whole[name]) for name in sizes)
    both = resident(path)
    del whole["layer.weight"]
    assert resident(path) == both, "of one mapping nothing is given back while the table is held"
    del whole
    held = resident(path)
    del state["layer.weight"]
    assert held - resident(path) >= 4000
    assert torch.isfinite(state["table"]).all()
