"""``coefvq models``: what scripts read, what people read, and that every figure has a counterpart in the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coefvq.cli.models import app, gibibytes
from coefvq.cli.models_text import plan_text, show_text
from coefvq.errors import ConfigError, ModelError
from coefvq.models.presets import shipped_presets
from tasks.workspace import write_pipeline

MLLM_PARTS = ("onevision", "vision", "language", "audio")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_list_names_every_preset() -> None:
    assert json.loads(run("list", "--json")).keys() == shipped_presets().keys()
    assert all(name in run("list") for name in shipped_presets())


@pytest.mark.parametrize("preset", list(shipped_presets()))
def test_show_names_sizes_licence_source_memory_and_disk(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run("show", preset, "--json"))
    assert facts["licence"]
    assert all(part["parameters"] > 0 and part["licence"] and part["weights"] for part in facts["parts"])
    if shipped_presets()[preset].weights:
        assert all(part["megabytes"] > 0 and part["disk_megabytes"] > 0 for part in facts["parts"])
        # a file that serves several parts counts once
        assert facts["disk_megabytes"] <= sum(part["disk_megabytes"] for part in facts["parts"])
    memory = facts["memory_gib"]
    weights = sum(part["parameters"] for part in facts["parts"] if part["part"] in MLLM_PARTS)
    # projector, LoRA and head are no parts of their own here
    assert 4 * weights / 1024**3 - 1e-3 <= memory["score_fp32"] <= 4 * (1.08 * weights + 200_000) / 1024**3 + 1e-3
    assert memory["train"] > memory["score_bf16"] > 0
    show_text(facts)
    text = capsys.readouterr().out
    for word in ("parameters", "disk", "licence", "memory", *(part["part"] for part in facts["parts"])):
        assert word in text


def test_show_prints_for_people() -> None:
    assert run("show", "tiny").startswith("tiny: ")


def test_plan_says_all_that_a_buyer_asks() -> None:
    facts = json.loads(run("plan", "--preset", "paper", "--gpus", "8", "--memory", "80GiB", "--json"))
    text = plan_text(facts, 80.0)
    for word in ("vision encoder", "projector", "language model", "LoRA", "audio encoder", "head", "of them trained"):
        assert word in text
    for word in ("tokens per video", "FLOPs per video", "per million videos", "ZeRO-2", "fits in 80.0 GiB"):
        assert word in text
    assert facts["visual_tokens"] == 8 * 196 + 1
    assert facts["template_tokens"] == 9
    assert facts["not_pinned"] == ["tower_frames"]
    assert "not pinned: tower_frames; give a commit in a preset of your own (extends: paper)" in text
    assert facts["forward_flops_per_million_videos"] == pytest.approx(1e6 * sum(facts["flops_per_video"].values()))
    # a decoder costs about two FLOPs per weight and token; attention comes on top
    layers = facts["parameters"]["language model"] - 152_128 * 3584 + facts["parameters"]["LoRA"]
    least = 2 * layers * (1569 + 64 + 9)
    assert least <= facts["flops_per_video"]["language"] <= 1.1 * least


def test_more_ranks_share_and_small_memory_does_not_fit() -> None:
    asked = ("plan", "--preset", "onevision-0.5b", "--rank", "512", "--json")
    one, eight = (json.loads(run(*asked, "--gpus", ranks))["memory"] for ranks in "18")
    # alone two fp32 moments per weight; under ZeRO-2 an fp32 copy of the weights as well, shared by the ranks
    assert one["optimizer"] / 2 == pytest.approx(8 * eight["optimizer"] / 3)
    assert one["frozen_weights"] == eight["frozen_weights"]
    text = run("plan", "--memory", "8GiB")
    assert "does NOT fit in 8.0 GiB" in text
    assert "--batch-size" in text


def test_rank_zero_plans_the_head_alone() -> None:
    facts = json.loads(run("plan", "--preset", "onevision-0.5b", "--rank", "0", "--json"))
    assert facts["parameters"]["LoRA"] == 0
    assert facts["trainable"] == facts["parameters"]["head"]


@pytest.mark.parametrize("size", ["80", "-1GiB", "0GiB", "much"])
def test_a_memory_size_without_sense_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="expected a size such as 80GiB"):
        gibibytes(size)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown; expected one of"):
        run("show", "nope")


@pytest.mark.parametrize("command", ["list", "show", "fetch", "plan"])
def test_help_has_an_example(command: str) -> None:
    assert f"Example: coefvq models {command}" in " ".join(run(command, "--help").split())


def test_a_users_presets_are_listed_shown_and_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {
        "extends": "tiny",
        "summary": "wider",
        "audio": {"kind": "whisper", "n_state": 96, "n_head": 4, "n_layer": 1},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"mine": mine}))  # JSON is YAML
    given = ("--presets", str(path))
    assert json.loads(run("list", *given, "--json"))["mine"] == "wider"
    facts = json.loads(run("show", "mine", *given, "--json"))
    tiny = json.loads(run("show", "tiny", "--json"))
    sizes, usual = ({part["part"]: part["parameters"] for part in shown["parts"]} for shown in (facts, tiny))
    assert {part for part in sizes if sizes[part] != usual[part]} == {"audio"}
    assert {part["weights"] for part in facts["parts"]} == {"random"}
    planned = json.loads(run("plan", "--preset", "mine", *given, "--json"))
    assert planned["parameters"]["audio encoder"] == sizes["audio"]
    # in a workspace the recipe names the file
    write_pipeline(tmp_path / "w", {}, "tiny")
    path.rename(tmp_path / "w" / "presets.yaml")
    monkeypatch.chdir(tmp_path / "w")
    assert json.loads(run("show", "mine", "--json")) == facts
    assert "mine: random weights, nothing to fetch" in run("fetch", "mine")
