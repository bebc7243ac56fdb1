"""``coefvq models align``: teach a preset's MLLM or base to describe, before any label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coefvq.cli.options import JsonOption
from coefvq.terminal import echo, echo_json, say

if TYPE_CHECKING:
    from coefvq.config import Alignment, Recipe


def align(
    data: Annotated[Path, typer.Option(help="Folder or table of clips with descriptions; labels are not read.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    recipe: Annotated[str, typer.Option(help="tiny, starter, onevision-0.5b, paper, or a recipe file.")] = "starter",
    model: Annotated[
        Literal["mllm", "base"], typer.Option(help="mllm: projectors and adapters; base: attention layers.")
    ] = "mllm",
    projector_epochs: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Projectors alone, towards words; 4, none for a base.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=0, max=1000, help="All that is trained together; 5, for a base 30.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same bytes on one kind of CPU.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=2**10, help="Processes that decode.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train what a preset's aligned file holds, on descriptions alone; its SHA-256 goes into the preset.

    Batch, rate and objective are those of mllm.alignment in the recipe; a base learns the words in batches of 32.

    Example: coefvq data synth --out clips --videos 2700 --seed 11
             coefvq models align --recipe starter --data clips --out starter-aligned.safetensors
             coefvq models align --model base --data clips --out starter-aligned-base.safetensors
    """
    from coefvq.models.parts import ALIGNED_KEYS
    from coefvq.training.corpus_alignment import CorpusRun, align_base, align_mllm, read_corpus

    chosen = _recipe(recipe)
    settings = _settings(chosen, recipe, model, projector_epochs, epochs)
    corpus = read_corpus(data, chosen)

    def on_epoch(step: str, row: dict[str, float]) -> None:
        say(f"[{step}] epoch {row['epoch']:g}: loss {row['loss']:.4f}")

    run = CorpusRun(chosen, corpus, seed, out, _origin(data), workers, on_epoch)
    is_base = model == "base"
    facts = align_base(run, settings.epochs, settings.learning_rate) if is_base else align_mllm(run, settings)
    if as_json:
        echo_json(facts, indent=2)
        return
    echo(f"{out}: {facts['bytes'] / 2**20:.1f} MiB, of {facts['saw']['clips']} described clips and no label")
    echo(f"{ALIGNED_KEYS[model]}: {{file: {out.name}, sha256: {facts['sha256']}}}")


def _recipe(name: str) -> Recipe:
    """A recipe that ships, or one of a file."""
    from coefvq.config import load_recipe, parse_recipe
    from coefvq.documents import parse_yaml
    from coefvq.shipped_recipes import RECIPES, shipped_recipe

    if name in RECIPES or not Path(name).is_file():
        return parse_recipe(parse_yaml(shipped_recipe(name).text, f"recipe {name}", "reinstall coefvq"), name)
    return load_recipe(Path(name))


def _settings(recipe: Recipe, name: str, model: str, projector_epochs: int | None, epochs: int | None) -> Alignment:
    from coefvq.errors import ConfigError

    settings = recipe.mllm.alignment
    if settings is None:
        raise ConfigError(f"recipe {name}: mllm.alignment is null; write it out in a recipe file and name that")
    if model == "base" and projector_epochs:
        raise ConfigError("--projector-epochs: a base has no projectors; leave it out")
    usual = {"mllm": (4, 5), "base": (0, 30)}[model]
    first, all_together = (
        own if given is None else given for given, own in zip((projector_epochs, epochs), usual, strict=True)
    )
    if first + all_together == 0:
        raise ConfigError("--projector-epochs 0 --epochs 0: nothing would be trained; give one of them more")
    return settings.model_copy(update={"projector_epochs": first, "epochs": all_together})


def _origin(data: Path) -> dict[str, Any]:
    """Of clips of the synthetic world: its seed and version."""
    from coefvq.files import read_json
    from coefvq.simulation.synthetic.generate import MARKER

    # a table may name some of the clips beside it
    path = (data if data.is_dir() else data.parent) / MARKER
    if not path.is_file():
        return {}
    marker = read_json(path)
    return {"synthetic_world": {name: marker.get(name) for name in ("seed", "version")}}
