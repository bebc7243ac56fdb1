"""The CNN tower of `starter`: channels_last and in pieces, against the same network and weights as PyTorch makes it.

    python benchmarks/lite_tower.py                  clips of 11 images of 160 px; 1 and 8 clips at once
    python benchmarks/lite_tower.py --threads 1 --rounds 9
    python benchmarks/lite_tower.py --types float32  where bfloat16 would be emulated

Wall seconds of interleaved rounds without a gradient; a ratio is the median over rounds of peer / ours.
One JSON line per number of clips and type; the last one is 8 clips in float32. Exit code 1: that is below
its target, or the outputs differ by more than rounding.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from coefvq.models.efficientnet_lite import ConvNorm, EfficientNetLite, EfficientNetLiteSizes
from coefvq.models.parts import LitePart
from coefvq.models.presets import get_preset

IMAGES, SIDE = 11, 160
TARGET = 1.3
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}  # of outputs whose deviation is about 1, against float32


def peer_of(tower: EfficientNetLite) -> Any:
    """The same layers in PyTorch's usual layout, everything at once, each convolution and norm by itself."""
    plain = copy.deepcopy(tower).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, ConvNorm):
                setattr(module, name, nn.Sequential(*child))
    return lambda images: plain.head(plain.blocks(plain.stem(images)))


def measure(tower: EfficientNetLite, clips: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """One JSON line."""
    images = torch.rand(clips * IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    runners = {"peer": peer_of(tower), "coefvq": tower}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    outputs = {}
    with torch.inference_mode():
        exact = runners["peer"](images)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        for number in range(rounds + 1):  # the first one warms up
            for name, run in runners.items():
                start = time.perf_counter()
                outputs[name] = run(images).float()
                seconds[name] += [time.perf_counter() - start] if number else []
    ratio = statistics.median(p / o for p, o in zip(seconds["peer"], seconds["coefvq"], strict=True))
    differences = {name: float((found - exact).abs().max() / exact.std()) for name, found in outputs.items()}
    return {
        "name": "lite_tower",
        "ratio": round(ratio, 3),
        "target": TARGET,
        "pass": ratio >= TARGET and differences["coefvq"] <= max(_ROUNDING[dtype], differences["peer"]),
        "max_difference": {name: float(f"{difference:.2g}") for name, difference in differences.items()},
        "clips": clips,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "ms_per_clip": {name: round(1e3 * statistics.median(found) / clips, 1) for name, found in seconds.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--types", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    part = get_preset("starter").vision
    if not isinstance(part, LitePart):
        raise SystemExit("starter's vision is no CNN any more")
    tower = EfficientNetLite(EfficientNetLiteSizes(part.width, part.depth)).eval()
    line: dict[str, Any] = {}
    for name in options.types:
        for clips in (1, 8):
            line = measure(tower, clips, getattr(torch, name), options.rounds)
            print(json.dumps(line), flush=True)
    return 0 if line["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
