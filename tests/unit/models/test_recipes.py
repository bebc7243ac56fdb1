"""Recipes that ship: they fit the schema, say what they said when figures were measured, and repeat nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from coefvq.config import Params, load_params, parse_params, parse_recipe
from coefvq.errors import ConfigError
from coefvq.models.classifier import build
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.planning import plan
from coefvq.models.presets import get_preset
from coefvq.models.text import train_text_encoder
from coefvq.overrides import difference, merged
from coefvq.shipped_recipes import RECIPES, shipped_recipe
from tasks.templates import template
from tasks.workspace import change_params, create, recipe_differs, write_pipeline

#: settings of both issues that the figures of README and docs were measured with
MEASURED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("recipe_settings.json").read_text())


def written(root: Path, recipe: str) -> Params:
    write_pipeline(root, {}, recipe)
    return load_params(root / "params.yaml")


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    return {key: leaf for name, value in values.items() for key, leaf in flat(value, f"{prefix}{name}.").items()}


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_and_the_schema_agree(name: str) -> None:
    recipe = shipped_recipe(name)
    raw = yaml.safe_load(recipe.text)
    settings = parse_recipe(raw, name)
    # nothing is left to a default
    assert flat(raw).keys() == flat(settings.model_dump(mode="json")).keys()
    get_preset(settings.base.preset)
    params = parse_params(yaml.safe_load(template("params.yaml")) | recipe.overrides, settings)
    assert {part.preset for part in params.base.values()} | {part.preset for part in params.mllm.values()} == {name}


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_settings_are_those_that_figures_were_measured_with(tmp_path: Path, name: str) -> None:
    made = written(tmp_path, name).model_dump(mode="json", include={"media", "base", "mllm"})
    assert flat(made) == MEASURED[name]


@pytest.mark.parametrize("name", RECIPES)
def test_both_files_are_short_and_keep_their_comments(tmp_path: Path, name: str) -> None:
    written(tmp_path, name)
    texts = [(tmp_path / file).read_text() for file in ("params.yaml", "recipe.yaml")]
    assert sum(len(text.splitlines()) for text in texts) <= 150
    assert texts[1].count("#") == shipped_recipe(name).text.count("#") > 8
    assert texts[0].count("#") == template("params.yaml").count("#")
    assert not recipe_differs(tmp_path, name)


def test_the_top_of_the_checkout_is_what_init_writes_for_tiny(tmp_path: Path, repository: Path) -> None:
    written(tmp_path, "tiny")
    for name in ("params.yaml", "recipe.yaml", "presets.yaml"):
        assert (tmp_path / name).read_text() == (repository / name).read_text()


def test_starter_is_the_same_for_both_issues_so_that_they_share_the_alignment(tmp_path: Path) -> None:
    params = written(tmp_path, "starter")
    assert params.mllm["icd"] == params.mllm["ucc"]
    assert params.media["icd"] == params.media["ucc"]
    assert params.mllm["icd"].alignment is not None


def test_a_recipe_that_is_there_stays(tmp_path: Path) -> None:
    written(tmp_path, "starter")
    write_pipeline(tmp_path, {}, "tiny")
    assert recipe_differs(tmp_path, "tiny")
    assert not recipe_differs(tmp_path, "starter")
    assert load_params(tmp_path / "params.yaml").mllm["icd"].preset == "starter"


def test_paper_says_what_the_paper_says(tmp_path: Path) -> None:
    params = written(tmp_path, "paper")
    icd, ucc = params.mllm["icd"], params.mllm["ucc"]
    assert (params.media["icd"].frames, params.media["ucc"].frames) == (8, 16)
    assert {(media.frame_size, media.audio_seconds) for media in params.media.values()} == {(384, 30.0)}
    for mllm in (icd, ucc):
        assert (mllm.lora.rank, mllm.lora.alpha) == (32, 64)
        assert (mllm.fusion, mllm.pooling, mllm.alignment, mllm.description_weight) == ("late", "last", None, 0.0)
        assert (mllm.training.deepspeed, mllm.training.bf16) == ("zero2", "auto")
        assert mllm.training.activation_checkpointing
    assert (icd.audio, ucc.audio) == (False, True)
    assert [params.base[issue].architecture for issue in ("icd", "ucc")] == ["frames", "multitower"]


def test_paper_builds_and_plans_on_the_meta_device(tmp_path: Path) -> None:
    params = written(tmp_path, "paper")
    preset = get_preset("paper")
    tokenizer = train_text_encoder(["a title"] * 9, 512, 16)
    mllm, media = params.mllm["ucc"], params.media["ucc"]
    with torch.device("meta"):
        base = build(base_config("ucc", params.base["ucc"], media), tokenizer, weights=False)
        made = build(mllm_config("ucc", mllm, media), tokenizer, mllm.lora.dropout, weights=False)
    assert made.network.visual_tokens == media.frames * 196 + 1
    assert {p.device.type for p in (*base.network.parameters(), *made.network.parameters())} == {"meta"}
    result = plan(preset, media, mllm.lora, made.config.fusion, gpus=8, memory_gib=80.0)
    assert result.memory.fits
    assert result.visual_tokens == made.network.visual_tokens
    assert result.trainable == sum(p.numel() for p in made.network.parameters() if p.requires_grad)


def test_an_unknown_recipe_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--recipe big: unknown recipe; expected one of tiny, starter"):
        create(tmp_path / "w", {}, "big")
    assert not (tmp_path / "w").exists()


def test_override_and_difference_are_inverse() -> None:
    shared = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {"g": 4}, "n": None}
    wanted = {"a": 1, "b": {"c": 5, "d": {"e": 3}}, "f": None, "n": {"m": 1}}
    changes = difference(shared, wanted)
    assert changes == {"b": {"c": 5}, "f": None, "n": {"m": 1}}
    assert merged(shared, changes) == wanted
    assert difference(shared, shared) == {}


def test_a_changed_key_below_an_issue_makes_its_section(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"base.icd.training.learning_rate": 0.5, "mllm.icd.lora.rank": 2}, "tiny")
    params = load_params(tmp_path / "params.yaml")
    assert params.base["icd"].training.learning_rate == 0.5
    assert params.base["ucc"].training.learning_rate == 0.002
    assert (params.mllm["icd"].lora.rank, params.mllm["icd"].lora.alpha) == (2, 16 * 2)
    with pytest.raises(ConfigError, match="no section gates"):
        change_params(tmp_path / "params.yaml", {"gates.max_qps_ratio": 1.0})
