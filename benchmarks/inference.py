"""Stage 2 at LLaVA-OneVision-0.5B's shapes: coefvq's exact and approximate paths against transformers'.

    python benchmarks/inference.py                  half the layers (13 of 26, 12 of 24), bfloat16, one thread
    python benchmarks/inference.py --scale 1        every layer
    python benchmarks/inference.py --rows exact     without the approximate paths
    python benchmarks/inference.py --rows each      after every exact switch, in their order
    python benchmarks/inference.py --dtype float32  the type a CPU without bfloat16 has to use

The peer is ``LlavaOnevisionForConditionalGeneration`` as its users call it, without a cache, with
``logits_to_keep=1`` and with its default of logits for every token. Same random weights, same 8 frames of 384 px and
30 text tokens, one video a batch, one thread. CPU time of interleaved rounds; a ratio is the median over rounds of
peer / ours. Differences are of the lm_head's logits at the last token: ours come from our hidden state and the
peer's lm_head. Each row is a JSON line, the last is the exact path. Exit code 1: it is below its target, or its
difference is more than rounding.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from coefvq.config import Approximate, Lora, MediaSpec
from coefvq.models.classifier import Classifier
from coefvq.models.fast.switches import Outcome, approximate_switches, choose, exact_switches, prepare
from coefvq.models.language import LanguageBranch
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig
from coefvq.models.parts import SiglipPart
from coefvq.models.presets import get_preset
from coefvq.models.vision import onevision_config, split_onevision, visual_tokens

FRAMES, SIDE, TEXT = 8, 384, 30
VIDEO = 1  # stands for the frames' tokens
TARGET = 1.3
_OFF = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
# what rounding may do to logits whose standard deviation is 1
_ROUNDING = {torch.bfloat16: 0.15, torch.float32: 1e-3}
_PRESET = get_preset("onevision-0.5b")
assert isinstance(_PRESET.vision, SiglipPart)  # noqa: S101 - as that preset says
_VISION = _PRESET.vision


@dataclass(frozen=True)
class Runner:
    """One way to score: ``call`` is timed, ``hidden`` gives the last token's state for the comparison."""

    name: str
    call: Callable[[], Any]
    logits: Callable[[], torch.Tensor]
    outcomes: tuple[Outcome, ...] = ()
    flags: str = ""


def peer_model(scale: float, dtype: torch.dtype) -> Any:
    """transformers' model with random weights and a share of the layers."""
    from transformers import LlavaOnevisionForConditionalGeneration

    config = onevision_config(_VISION, _PRESET.language, SIDE)
    config.vision_config.num_hidden_layers = round(_VISION.num_hidden_layers * scale)
    config.text_config.num_hidden_layers = round(_PRESET.language.num_hidden_layers * scale)
    config.text_config.layer_types = config.text_config.layer_types[: config.text_config.num_hidden_layers]
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = True
    config.video_token_id, config.image_token_id = VIDEO, VIDEO + 1
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return LlavaOnevisionForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)


def our_model(peer: Any) -> Classifier:
    """The same weights as coefvq's MLLM without sound, with nothing switched on."""
    vision, decoder = split_onevision(copy.deepcopy(peer.model))
    language = LanguageBranch(decoder, VIDEO, Lora(rank=0, alpha=0, dropout=0.0))
    tokens = visual_tokens(vision, FRAMES)
    network = MultimodalLLM(vision, language, None, fusion="none", visual_tokens=tokens).eval()
    media = MediaSpec(frames=FRAMES, frame_size=SIDE, audio_seconds=1.0)
    config = ModelConfig(
        issues=("icd",), kind="mllm", preset=_PRESET.name, architecture="mllm", media=media, text=True, merged=True
    )
    return Classifier(config, network, None)


def inputs(visual: int, frames: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One video: pixel_values [1,F,3,S,S], ids and mask [1,L]."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(1, FRAMES, 3, SIDE, SIDE, generator=generator)[:, :frames] * 2 - 1
    words = torch.randint(10, _PRESET.language.vocab_size, (1, TEXT), generator=generator)
    ids = torch.cat([torch.full((1, visual), VIDEO), words], dim=1)
    return {"pixel_values": pixels.to(dtype), "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def peer_runner(name: str, peer: Any, batch: dict[str, torch.Tensor], **options: Any) -> Runner:
    """transformers."""
    given = {"pixel_values_videos": batch["pixel_values"], **{k: batch[k] for k in ("input_ids", "attention_mask")}}

    def call() -> torch.Tensor:
        found: torch.Tensor = peer(**given, use_cache=False, **options).logits[:, -1]
        return found

    return Runner(name, call, call)


def our_runner(name: str, classifier: Classifier, peer: Any, switches: Any, dtype: torch.dtype) -> Runner:
    """coefvq with ``switches``."""
    prepared, report = prepare(classifier, switches)
    network: Any = prepared.network
    batch = inputs(network.visual_tokens, prepared.config.media.frames, dtype)
    flags = ", ".join(item.name for item in report if item.kind == "approximate")

    def state() -> torch.Tensor:
        visual, sound = network.tokens(**batch)
        hidden: torch.Tensor = network.hidden(visual, batch["input_ids"], batch["attention_mask"], sound)
        return hidden

    return Runner(
        name,
        lambda: network(**batch),
        lambda: peer.lm_head(state()),
        tuple(report),
        flags,
    )


def measure(runners: list[Runner], rounds: int) -> dict[str, list[float]]:
    """CPU seconds by runner and round, after one round that warms up."""
    found: dict[str, list[float]] = {runner.name: [] for runner in runners}
    with torch.inference_mode():
        for _ in range(rounds):
            for runner in runners:
                start = time.process_time()
                runner.call()
                found[runner.name].append(time.process_time() - start)
    return found


def row(runner: Runner, seconds: dict[str, list[float]], difference: float, facts: dict[str, Any]) -> dict[str, Any]:
    """The JSON line of one of our paths."""

    def ratio(peer: str) -> float:
        pairs = zip(seconds[peer], seconds[runner.name], strict=True)
        return round(statistics.median(theirs / ours for theirs, ours in pairs), 3)

    exact = runner.name == "exact"
    line: dict[str, Any] = {
        "name": f"inference/{runner.name}",
        "ratio": ratio("peer, logits_to_keep=1"),
        "target": TARGET if exact else None,
        "pass": None,
        "ratio_full_logits": ratio("peer, all logits"),
        "seconds": round(statistics.median(seconds[runner.name]), 2),
        "peer_seconds": round(statistics.median(seconds["peer, logits_to_keep=1"]), 2),
        "max_logit_difference": float(f"{difference:.3g}"),
        "on": [item.name for item in runner.outcomes if item.on],
    }
    if exact:
        line["off"] = {item.name: item.reason for item in runner.outcomes if not item.on}
        line["pass"] = line["ratio"] >= TARGET and difference <= facts["rounding"]
        line |= facts
    return line


def ladder(peer: Any, dtype: torch.dtype) -> list[Runner]:
    """Nothing on, then one exact switch more each time."""
    found, on = [our_runner("plain", our_model(peer), peer, (), dtype)], []
    for switch in exact_switches():
        on.append(switch)
        runner = our_runner(f"+{switch.name}", our_model(peer), peer, on, dtype)
        if runner.outcomes[-1].on:
            found.append(runner)
    return found


def approximations(peer: Any, dtype: torch.dtype) -> list[Runner]:
    """Exact path and one approximation each, as predict.approximate has them."""
    asked = {
        "int8": _OFF.model_copy(update={"int8": True}),
        "frames=4": _OFF.model_copy(update={"frames": 4}),
        "pool_tokens=2": _OFF.model_copy(update={"pool_tokens": 2}),
    }
    return [
        our_runner(name, our_model(peer), peer, choose("exact", "float32", flags), dtype)
        for name, flags in asked.items()
        if all(not switch.possible(our_model(peer)) for switch in approximate_switches(flags))
    ]


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.5, help="share of the layers of both parts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rows", choices=["all", "exact", "each"], default="all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    peer = peer_model(options.scale, dtype)
    batch = inputs(visual_tokens(split_onevision(copy.deepcopy(peer.model))[0], FRAMES), FRAMES, dtype)
    peers = [
        peer_runner("peer, logits_to_keep=1", peer, batch, logits_to_keep=1),
        peer_runner("peer, all logits", peer, batch),
    ]
    paths = {"all": approximations, "each": ladder, "exact": lambda *_: []}
    ours = paths[options.rows](peer, dtype)
    ours.append(our_runner("exact", our_model(peer), peer, choose("exact", "float32", _OFF), dtype))
    with torch.inference_mode():
        truth = peers[0].logits()
        differences = {runner.name: float((runner.logits() - truth).abs().max()) for runner in ours}
    seconds = measure([*peers, *ours], options.rounds)
    layers = peer.config.vision_config.num_hidden_layers, peer.config.text_config.num_hidden_layers
    facts = {
        "layers": f"{layers[0]} of 26 vision, {layers[1]} of 24 language",
        "dtype": options.dtype,
        "threads": options.threads,
        "rounds": options.rounds,
        "logit_std": float(f"{truth.float().std():.3g}"),
        "rounding": _ROUNDING[dtype] * float(truth.float().std()),
        "amx": torch.cpu._is_amx_tile_supported(),
    }
    for runner in ours:
        line = row(runner, seconds, differences[runner.name], facts)
        print(json.dumps(line), flush=True)
    return 0 if line["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
