"""The aligned file of a preset: what it changes, what it refuses, and the one that ships."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from coefvq.errors import ConfigError, ModelError
from coefvq.files import sha256_file
from coefvq.models.aligned import frozen_weights, load_aligned, read_facts, save_aligned, trained_parts
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.card import model_card
from coefvq.models.classifier import Classifier
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig, mllm_config
from coefvq.models.parts import AlignedPart
from coefvq.models.presets import get_preset, read_presets
from coefvq.models.text import TextEncoder
from coefvq.shipped_recipes import shipped_recipe
from tests.described_clips import MEDIA, network, text

__all__ = ["text"]

FACTS: dict[str, Any] = {"saw": {"clips": 8, "labels": 0}}


@pytest.fixture
def part(text: TextEncoder, tmp_path: Path) -> AlignedPart:
    """The file of a network whose projectors and adapters were moved."""
    made = network(text)
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in trained_parts(made).values():
            parameter.copy_(torch.randn_like(parameter).half())
    path = tmp_path / "aligned.safetensors"
    return AlignedPart(path, save_aligned(path, made, FACTS))


def state(made: MultimodalLLM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def test_loading_changes_exactly_the_tensors_of_the_file(text: TextEncoder, part: AlignedPart) -> None:
    made, held = network(text), load_file(part.file)
    before = state(made)
    load_aligned(made, part, "mine")
    header = read_facts(part, "mine")
    after = state(made)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == held.keys() == trained_parts(made).keys()
    assert all(torch.equal(after[name], held[name].float()) for name in changed)
    assert header["saw"] == FACTS["saw"]
    # labels alone teach the head and its norm
    assert not changed & {name for name in before if name.startswith(("head.", "norm."))}


def test_the_same_network_gives_the_same_bytes(text: TextEncoder, part: AlignedPart, tmp_path: Path) -> None:
    made = network(text)
    load_aligned(made, part, "mine")
    assert save_aligned(tmp_path / "again.safetensors", made, FACTS) == part.sha256


def test_a_network_that_hears_nothing_leaves_the_projector_of_sound_alone(text: TextEncoder, part: AlignedPart) -> None:
    made = network(text)
    made.audio, made.audio_projector = None, None
    load_aligned(made, part, "mine")
    held = load_file(part.file)
    assert all(torch.equal(value, held[name].float()) for name, value in trained_parts(made).items())
    assert any(name.startswith("audio_projector.") for name in held)


def rewritten(part: AlignedPart, header: dict[str, Any] | None, drop: str = "") -> AlignedPart:
    """A file with the same tensors, pinned by its own hash."""
    tensors = {name: tensor for name, tensor in load_file(part.file).items() if name != drop}
    path = part.file.with_name(f"{len(list(part.file.parent.iterdir()))}.safetensors")
    save_file(tensors, path, None if header is None else {"coefvq": json.dumps(header)})
    return AlignedPart(path, sha256_file(path))


def test_what_does_not_fit_is_refused_by_one_line_and_changes_nothing(text: TextEncoder, part: AlignedPart) -> None:
    header = read_facts(part, "mine")
    cut = part.file.with_name("cut.safetensors")
    cut.write_bytes(part.file.read_bytes()[:5000])
    for name, seed, rank, wrong, expected in (
        ("another hash", 0, 4, replace(part, sha256="0" * 64), "has SHA-256 .*the preset says 000000000000"),
        ("no file", 0, 4, replace(part, file=part.file / "x"), "no such file"),
        ("cut off", 0, 4, AlignedPart(cut, sha256_file(cut)), "no aligned file"),
        ("no header", 0, 4, rewritten(part, None), "no aligned file"),
        ("another version", 0, 4, rewritten(part, {**header, "format": 99}), "another version"),
        ("other base weights", 1, 4, part, "aligned with other weights of "),
        ("another rank", 0, 8, part, "not of this network .*lora.rank"),
        ("no adapters", 0, 0, part, "not of this network|other weights"),
        ("a tensor is missing", 0, 4, rewritten(part, header, "vision.scale"), "not of this network .*vision.scale"),
    ):
        made = network(text, rank=rank, seed=seed)
        before = state(made)
        with pytest.raises(ModelError, match=expected) as error:
            load_aligned(made, wrong, "mine")
        assert "\n" not in str(error.value), name
        assert all(torch.equal(tensor, made.state_dict()[key]) for key, tensor in before.items()), name


def test_base_weights_are_told_apart_by_any_of_their_parameters(text: TextEncoder) -> None:
    made = network(text)
    before = frozen_weights(made)
    assert before.keys() == {"vision", "language"}  # the sound's encoder of the miniature trains
    frozen = next(p for name, p in made.named_parameters() if name.startswith("language.") and not p.requires_grad)
    with torch.no_grad():
        frozen.view(-1)[-1] += 1e-3
    after = frozen_weights(made)
    assert after["vision"] == before["vision"]
    assert after["language"] != before["language"]


def presets(folder: Path, body: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(body)
    return path


def test_a_users_preset_names_its_own_file(tmp_path: Path) -> None:
    pinned = "a" * 64
    found = read_presets(presets(tmp_path, f"mine: {{extends: tiny, aligned: {{file: a.st, sha256: {pinned}}}}}"))
    assert found["mine"].aligned == AlignedPart(tmp_path.resolve() / "a.st", pinned)
    for body, expected in (
        ("{file: a.st}", "mine.aligned.sha256: missing key"),
        (f"{{file: a.st, sha256: {'A' * 64}}}", "mine.aligned.sha256 = .*expected"),
        (f"{{file: 3, sha256: {pinned}}}", "mine.aligned.file = 3: expected"),
        (f"{{file: a.st, sha256: {pinned}, url: x}}", "mine.aligned.url: unknown key"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_presets(presets(tmp_path, f"mine: {{extends: tiny, aligned: {body}}}"))


def test_a_preset_of_other_parts_does_not_inherit_the_file(tmp_path: Path) -> None:
    shipped = get_preset("starter")
    found = read_presets(
        presets(
            tmp_path,
            "same: {extends: starter, max_text_tokens: 32}\n"
            "other: {extends: starter, vision: {kind: efficientnet-lite, width: 1.0, depth: 1.0}}\n"
            "random: {extends: starter, weights: {language: multilingual-e5-small}}\n"
            "base: {extends: starter, weights: {tower_text: smollm2-135m}}\n",
        )
    )
    assert shipped.aligned is not None
    kept = {name: preset.aligned for name, preset in found.items()}
    assert kept == {"same": shipped.aligned, "other": None, "random": None, "base": shipped.aligned}


def test_a_recipe_that_asks_for_a_file_the_preset_lacks_is_refused() -> None:
    from coefvq.config import parse_recipe
    from coefvq.documents import parse_yaml

    settings = parse_recipe(parse_yaml(shipped_recipe("tiny").text, "tiny", ""), "tiny").mllm
    with pytest.raises(ModelError, match=r"preset tiny: has no aligned file; set mllm\.aligned: false"):
        mllm_config("icd", settings.model_copy(update={"aligned": True}), MEDIA)


def test_the_file_that_ships_is_the_pinned_one_small_and_says_what_it_saw() -> None:
    aligned = get_preset("starter").aligned
    assert aligned is not None
    assert sha256_file(aligned.file) == aligned.sha256
    assert aligned.file.stat().st_size <= 8 * 2**20
    facts = read_facts(aligned, "starter")
    assert facts["saw"]["labels"] == 0
    assert facts["saw"]["clips"] >= 1000
    # figures are measured on world 7
    assert facts["saw"]["synthetic_world"]["seed"] != 7
    assert facts["fits"].keys() == {"vision", "language", "audio"}
    with safe_open(aligned.file, framework="pt") as file:
        assert list(file.metadata()) == ["coefvq"]
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    recipe = _starter()
    assert recipe.mllm.aligned
    with torch.device("meta"):
        made = NetworkBuilder(get_preset("starter"), recipe.media, weights=False).mllm(
            TokenIds(0, 1), lora=recipe.mllm.lora, fusion=recipe.mllm.fusion, motion=recipe.mllm.motion
        )
    assert {name: tuple(value.shape) for name, value in trained_parts(made).items()} == shapes


def _starter() -> Any:
    from coefvq.config import parse_recipe
    from coefvq.documents import parse_yaml

    return parse_recipe(parse_yaml(shipped_recipe("starter").text, "starter", ""), "starter")


def test_the_card_says_what_the_start_saw(text: TextEncoder) -> None:
    preset = get_preset("starter")
    assert preset.aligned is not None
    config = ModelConfig(
        issues=("ucc",), kind="mllm", preset="starter", architecture="mllm", media=MEDIA, aligned=preset.aligned.sha256
    )
    card = model_card(Classifier(config, network(text), text))
    assert re.search(rf"aligned file \(SHA-256 {preset.aligned.sha256}\).* it saw: clips \d+, labels 0", card)
    other = model_card(Classifier(config.model_copy(update={"aligned": "b" * 64}), network(text), text))
    assert "b" * 64 in other
    assert "it saw" not in other
    assert "aligned" not in model_card(Classifier(config.model_copy(update={"aligned": None}), network(text), text))
