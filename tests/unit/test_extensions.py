"""Parts from another package: examples/extend, written outside the repository and run as docs/extend.md names them."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coefvq import extensions
from coefvq.config import Gate, Lora, MediaSpec, parse_params, read_mapping
from coefvq.errors import ConfigError, ModelError
from coefvq.extensions import (
    FRAME_TOWERS,
    LOSSES,
    METRICS,
    RULE_FIELDS,
    SOUND_TOWERS,
    TEXT_TOWERS,
    extension,
    registered,
)
from tests.unit.registry_samples import METRICS as FIGURES
from tests.unit.registry_samples import candidate

Install = Callable[[str, str, str], None]


@pytest.fixture
def blocks(repository: Path) -> dict[str, list[str]]:
    """Code blocks of the page by language."""
    page = (repository / "docs" / "extend.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        found.setdefault(language, []).append(text)
    return found


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a module and its metadata onto the path, as pip does."""
    cached = (extensions.extension, extensions._loaded)
    before = set(sys.modules)

    def write(name: str, pyproject: str, code: str) -> None:
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        project = tomllib.loads(pyproject)["project"]
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
        groups = project["entry-points"].items()
        sections = ["\n".join([f"[{group}]", *(f"{k} = {v}" for k, v in points.items())]) for group, points in groups]
        (info / "entry_points.txt").write_text("\n".join(sections))
        (folder / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))

    for function in cached:
        function.cache_clear()
    yield write
    for function in cached:
        function.cache_clear()
    for name in set(sys.modules) - before:
        if name in ("my_coefvq", "broken"):
            del sys.modules[name]


@pytest.fixture
def source(repository: Path) -> tuple[str, str]:
    """pyproject.toml and code of the example."""
    folder = repository / "examples" / "extend"
    return (folder / "pyproject.toml").read_text(), (folder / "my_coefvq.py").read_text()


@pytest.fixture
def package(install: Install, source: tuple[str, str]) -> None:
    install("my_coefvq", *source)


def tower_config(definition: Any) -> Any:
    """A multi-tower base model of a user's preset, with text and sound."""
    from coefvq.config import BaseModelParams
    from coefvq.models.model_config import base_config
    from tests.settings import training_settings

    settings = BaseModelParams(
        preset="mine",
        architecture="multitower",
        audio=True,
        motion=False,
        freeze_towers=False,
        training=training_settings(),
    )
    return base_config("ucc", settings, MediaSpec(frames=2, frame_size=32, audio_seconds=1.0), definition)


def points(group: str, **named: str) -> str:
    lines = "\n".join(f'{name} = "{value}"' for name, value in named.items())
    return f'[project]\nname = "broken"\nversion = "1.0"\n[project.entry-points."{group}"]\n{lines}\n'


@pytest.mark.usefixtures("package")
def test_the_package_is_found_and_not_imported() -> None:
    assert registered(LOSSES) == ["smoothed"]
    assert "my_coefvq" not in sys.modules
    parts = {FRAME_TOWERS: "small_vit", TEXT_TOWERS: "small_bert", SOUND_TOWERS: "small_cnn"}
    for group, name in {**parts, METRICS: "balanced_accuracy", RULE_FIELDS: "shouting"}.items():
        assert registered(group) == [name]
        assert callable(extension(group, name))


@pytest.mark.usefixtures("package")
def test_an_own_tower_learns_is_saved_and_is_loaded_again(tmp_path: Path, blocks: dict[str, list[str]]) -> None:
    import torch

    from coefvq.config import BaseModelParams
    from coefvq.models.classifier import build, load
    from coefvq.models.model_config import base_config
    from coefvq.models.presets import get_preset
    from tests.settings import training_settings

    (tmp_path / "presets.yaml").write_text(blocks["yaml"][0])
    definition = get_preset("mine", tmp_path / "presets.yaml").definition
    settings = BaseModelParams(
        preset="mine",
        architecture="frames",
        audio=False,
        motion=True,
        freeze_towers=False,
        training=training_settings(),
    )
    media = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)
    made = build(base_config("icd", settings, media, definition), None)
    pixels = torch.rand(3, 2, 3, 32, 32)
    logits = made.network(pixel_values=pixels)
    logits.sum().backward()
    assert logits.shape == (3, 2)
    assert all(p.grad is not None for name, p in made.network.named_parameters() if "encoder.layer" in name)
    made.network.eval()
    made.save(tmp_path / "model")
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "model").network(pixel_values=pixels), made.network(pixel_values=pixels))
    (tmp_path / "presets.yaml").write_text(blocks["yaml"][0].replace("width: 16, options", "width: 17, options"))
    wrong = get_preset("mine", tmp_path / "presets.yaml").definition
    with pytest.raises(ModelError, match=r"returned \(9, 16\); expected \[9, 17\] \(width\)"):
        build(base_config("icd", settings, media, wrong), None).network(pixel_values=pixels)


@pytest.mark.usefixtures("package")
def test_own_text_and_sound_towers_learn_are_saved_and_are_loaded_again(
    tmp_path: Path, blocks: dict[str, list[str]]
) -> None:
    import torch

    from coefvq.models.classifier import build, load
    from coefvq.models.presets import get_preset
    from coefvq.models.vocabulary import text_encoder

    (tmp_path / "presets.yaml").write_text(blocks["yaml"][0])
    config = tower_config(get_preset("mine", tmp_path / "presets.yaml").definition)
    torch.manual_seed(0)
    text = text_encoder(config, ["a long title about cats", "dogs"])
    made = build(config, text)
    assert text is not None
    batch = {
        "pixel_values": torch.rand(2, 2, 3, 32, 32),
        **text.batch(["a long title about cats", "dogs"], 0),
        **{"log_mel": torch.rand(2, 80, 100), "has_audio": torch.tensor([True, False])},
    }
    made.network(**batch).sum().backward()
    trained = {name for name, p in made.network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"text.encoder.encoder.layer.0.output.dense.weight", "audio.encoder.0.weight"} <= trained
    made.network.eval()
    made.save(tmp_path / "model")
    alone = text.batch(["dogs"], 0)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "model").network(**batch), made.network(**batch))
        padded: Any = made.network.text
        torch.testing.assert_close(padded(batch["input_ids"], batch["attention_mask"])[1:], padded(**alone))
        sound: Any = made.network.audio
        assert not sound(batch["log_mel"], batch["has_audio"])[1].any()


@pytest.mark.usefixtures("package")
def test_an_own_text_tower_takes_published_weights_and_their_tokenizer(
    tmp_path: Path, blocks: dict[str, list[str]]
) -> None:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from coefvq.models.classifier import build
    from coefvq.models.presets import get_preset
    from coefvq.models.text import train_text_encoder
    from coefvq.models.vocabulary import text_encoder

    raw = yaml.safe_load(blocks["yaml"][0])
    part = raw["mine"]["tower_text"]
    part["options"] |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    published = BertForMaskedLM(BertConfig(vocab_size=part["vocab_size"], **part["options"]))  # with another head
    published.save_pretrained(tmp_path / "hub")
    train_text_encoder(["cats and dogs"], part["vocab_size"], 16).save(tmp_path / "hub")
    raw["mine"]["weights"] = {"tower_text": {"folder": "hub"}}
    (tmp_path / "presets.yaml").write_text(yaml.safe_dump(raw))
    config = tower_config(get_preset("mine", tmp_path / "presets.yaml").definition)
    text = text_encoder(config, [])
    made: Any = build(config, text).network
    assert torch.equal(made.text.encoder.embeddings.word_embeddings.weight, published.get_input_embeddings().weight)
    part["options"]["hidden_size"] = 32
    (tmp_path / "presets.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ModelError, match=r"hub: does not fit Tower .*correct the sizes of preset mine: tower_text"):
        build(tower_config(get_preset("mine", tmp_path / "presets.yaml").definition), text)


@pytest.mark.usefixtures("package")
def test_an_own_loss_counts_labelled_examples_by_class() -> None:
    import torch

    from coefvq.training.losses import ClassificationLoss, LossSpec

    logits, labels = (
        torch.tensor([[0.2, 1.0], [0.3, -1.0], [9.0, -9.0]], requires_grad=True),
        torch.tensor([1, 0, -100]),
    )
    loss = ClassificationLoss(LossSpec("smoothed", 3.0), torch.full((1, 2), 0.5))
    each = torch.nn.functional.cross_entropy(logits[:2], labels[:2], label_smoothing=0.1, reduction="none")
    assert loss(logits, labels).item() == pytest.approx(((3 * each[0] + each[1]) / 4).item())
    assert loss(logits, torch.tensor([-100, -100, -100])).item() == 0.0
    loss(logits, labels).backward()


@pytest.mark.usefixtures("package")
def test_an_own_metric_reaches_evaluation_table_and_gate(blocks: dict[str, list[str]], repository: Path) -> None:
    from coefvq.config import load_recipe
    from coefvq.evaluation.report import cascade_report, evaluation_report
    from coefvq.evaluation.table import markdown_table, result_rows
    from coefvq.registry.gates import check
    from tests.unit.report_world import scored

    raw = read_mapping(repository / "params.yaml")
    asked: dict[str, Any] = yaml.safe_load(blocks["yaml"][2])
    raw = raw | {section: raw[section] | asked[section] for section in asked}
    params = parse_params(raw, load_recipe(repository / "recipe.yaml"))
    names, scores = params.evaluate.metrics, scored(600)
    evaluation = evaluation_report(scores, "icd", (60.0,), names)
    found = cascade_report(scores, "icd", [40], 0.03, None, (60.0,), own=names)
    chosen = next(entry for entry in found["policies"] if entry["selected"])
    assert 0.5 < chosen["test"]["balanced_accuracy"] <= 1.0
    assert "balanced_accuracy" in markdown_table(result_rows(evaluation, found))
    gate = Gate(min_average_precision_gain=0.0, max_qps_ratio=60.0, max_f1_drop=0.05, max_flip_rate=0.02)
    gate = gate.model_copy(update={"min_metrics": params.gate.min_metrics})
    for value, passed in ((0.59, False), (0.6, True)):
        cascade = {**FIGURES["cascade"], "balanced_accuracy": value}
        report = check(candidate(metrics=FIGURES | {"cascade": cascade}), None, gate)
        assert {item.name: item.passed for item in report.checks}["balanced_accuracy"] is passed
    with pytest.raises(ConfigError, match=r"gate\.min_metrics\.balanced_accuracy: .* add it there"):
        parse_params(raw | {"evaluate": raw["evaluate"] | {"metrics": []}}, load_recipe(repository / "recipe.yaml"))


@pytest.mark.usefixtures("package")
def test_an_own_rule_field_decides(blocks: dict[str, list[str]]) -> None:
    from coefvq.records import ScoredVideo
    from coefvq.vmp.records import Candidate, Event
    from coefvq.vmp.rules import parse_rules
    from coefvq.vmp.ruling import decide

    rules = parse_rules(blocks["yaml"][3], "rules.yaml")
    score = ScoredVideo("v", "icd", 0.1, None, positive=False, decided_by="base", bundle_version="1-ab")
    for title, rule in (("LOOK HERE", "loud"), ("look here", "default"), ("123", "default")):
        made = decide(Candidate(Event("v", title=title), (score,)), rules, datetime(2026, 2, 1, tzinfo=UTC))
        assert made.rule == rule, title
    with pytest.raises(ConfigError, match="shouting takes a number"):
        parse_rules(blocks["yaml"][3].replace("0.8", "loud"), "rules.yaml")
    with pytest.raises(ConfigError, match="did you mean 'shouting'"):
        parse_rules(blocks["yaml"][3].replace("shouting", "shoutin"), "rules.yaml")


def test_lora_adapts_the_layers_that_are_named() -> None:
    import torch

    from coefvq.models.assembly import NetworkBuilder, TokenIds
    from coefvq.models.presets import get_preset

    make = NetworkBuilder(get_preset("tiny"), MediaSpec(frames=2, frame_size=32, audio_seconds=1.0))
    lora = Lora(rank=2, alpha=4, dropout=0.0, target_modules=("q_proj", "v_proj"))
    torch.manual_seed(0)
    network = make.mllm(TokenIds(0, 1), lora=lora, fusion="none")
    adapted = {re.sub(r".*\.(\w+)\.lora_.*", r"\1", name) for name, _ in network.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj", "v_proj"}
    named = r"mllm\.lora\.target_modules: 'qkv' is no linear layer of that network; it has down_proj, gate_proj"
    with pytest.raises(ModelError, match=named):
        make.mllm(TokenIds(0, 1), lora=lora.model_copy(update={"target_modules": ("qkv",)}), fusion="none")


def test_what_fails_is_one_line_with_the_remedy(install: Install) -> None:
    code = "def bad(*a):\n    raise ValueError('no\\nluck')\ndef text(*a):\n    return 'x'\nthing = 3\n"
    install(
        "broken",
        points(METRICS, bad="broken:bad", text="broken:text", gone="broken:nothing", thing="broken:thing"),
        code,
    )
    column = np.ones(2)
    with pytest.raises(
        ConfigError, match=r"'bad' of coefvq\.metrics failed: ValueError: no; correct broken:bad in package"
    ):
        extension(METRICS, "bad")(column)
    with pytest.raises(ConfigError, match=r"'gone' of coefvq\.metrics does not import: AttributeError"):
        extension(METRICS, "gone")
    with pytest.raises(ConfigError, match="is not callable"):
        extension(METRICS, "thing")
    with pytest.raises(ConfigError, match=r"'nix': no installed package registers it .* \(registered: bad, gone"):
        extension(METRICS, "nix")
    from coefvq.evaluation.own_metrics import own_metrics

    with pytest.raises(ConfigError, match="metric 'text': returned 'x'; expected a finite number"):
        own_metrics(["text"], column, column, column)


def test_a_tower_that_raises_or_answers_otherwise_is_one_line(tmp_path: Path, install: Install) -> None:
    import torch

    from coefvq.models.presets import get_preset
    from coefvq.models.towers import TextTower

    code = (
        "from torch import nn\n"
        "class Raises(nn.Module):\n    def forward(self, *a):\n        raise ValueError('no\\nluck')\n"
        "def raises(**k):\n    return Raises()\n"
        "class Ids(nn.Module):\n    def forward(self, ids, mask):\n        return ids\n"
        "def ids(**k):\n    return Ids()\n"
        "def nothing(**k):\n    return None\n"
    )
    install("broken", points(TEXT_TOWERS, raises="broken:raises", ids="broken:ids", nothing="broken:nothing"), code)
    tokens = torch.ones(2, 5, dtype=torch.int64)
    for name, error, message in (
        (
            "raises",
            ConfigError,
            r"'raises' of coefvq\.text_towers failed: ValueError: no; correct broken:raises in pack",
        ),
        ("ids", ModelError, r"text tower 'ids': returned \(2, 5\); expected \[2, 7\] \(width\)"),
        ("nothing", ModelError, r"text tower 'nothing': returned NoneType; expected a torch module"),
        ("nix", ConfigError, r"'nix': no installed package registers it in coefvq\.text_towers"),
    ):
        part = f"{{kind: own, name: {name}, width: 7, vocab_size: 9}}"
        (tmp_path / "presets.yaml").write_text(f"mine: {{extends: tiny, tower_text: {part}}}\n")
        with pytest.raises(error, match=message):
            TextTower(get_preset("mine", tmp_path / "presets.yaml").tower_text, 0)(tokens, tokens)


def test_two_packages_with_one_name_are_refused(install: Install, source: tuple[str, str]) -> None:
    install("my_coefvq", *source)
    install("broken", points(LOSSES, smoothed="broken:other"), "def other(*a): ...\n")
    with pytest.raises(ConfigError, match=r"registered twice in coefvq\.losses, by package .*; uninstall one"):
        extension(LOSSES, "smoothed")
