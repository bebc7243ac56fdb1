"""The aligned file of an attention base: what it changes, what it refuses, and the one that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from coefvq.config import MediaSpec, parse_recipe
from coefvq.documents import parse_yaml
from coefvq.errors import ModelError
from coefvq.files import sha256_file
from coefvq.models.aligned import load_aligned, read_facts, save_aligned, start_aligned, trained_parts
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.card import model_card
from coefvq.models.classifier import Classifier
from coefvq.models.model_config import ModelConfig, base_config
from coefvq.models.parts import AlignedPart
from coefvq.models.presets import get_preset, read_presets
from coefvq.shipped_recipes import shipped_recipe
from tests.unit.frozen_models import MEDIA, frozen_model

STARTER = parse_recipe(parse_yaml(shipped_recipe("starter").text, "starter", ""), "starter")


def network(seed: int = 0, media: MediaSpec = MEDIA, members: int = 1) -> AttentionClassifier:
    made = frozen_model("attention", seed, media, members).network
    assert isinstance(made, AttentionClassifier)
    return made


def changed(made: Classifier, **update: object) -> Classifier:
    """The same network under another description, which has not looked at its preset yet."""
    return Classifier(ModelConfig(**(made.config.model_dump() | update)), made.network, made.text)


@pytest.fixture
def part(tmp_path: Path) -> AlignedPart:
    """The file of a base whose layers were moved."""
    made = network()
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in trained_parts(made).values():
            parameter.copy_(torch.randn_like(parameter).half())
    path = tmp_path / "base.safetensors"
    return AlignedPart(path, save_aligned(path, made, {"saw": {"clips": 8, "labels": 0}, "media": MEDIA.model_dump()}))


def test_every_head_starts_from_the_file_and_nothing_else_changes(part: AlignedPart) -> None:
    made, held = network(members=2), load_file(part.file)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    load_aligned(made, part, "mine")
    after = made.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"heads.{head}.{name}" for head in range(2) for name in held}
    assert all(torch.equal(after[f"heads.1.{name}"], tensor.float()) for name, tensor in held.items())
    # the outputs wait for labels, and scales are those of the training's own clips
    assert not {"out", "bias", "tokens.images.mean", "tokens.images.std"} & held.keys()


def test_a_base_that_hears_nothing_leaves_the_tokens_of_sound_alone(part: AlignedPart) -> None:
    made = network()
    made.audio = None
    del made.heads[0].tokens["sound"]  # type: ignore[union-attr]
    load_aligned(made, part, "mine")
    held = load_file(part.file)
    assert all(torch.equal(value, held[name].float()) for name, value in trained_parts(made).items())
    assert any(name.startswith("tokens.sound.") for name in held)


def test_what_does_not_fit_is_refused_and_changes_nothing(part: AlignedPart) -> None:
    for made, expected in (
        (network(media=MEDIA.model_copy(update={"frames": 2})), "not of this network .*keep .*motion and attention"),
        (network(seed=1), "aligned with other weights of (frames|text|audio)"),
    ):
        before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        with pytest.raises(ModelError, match=expected):
            load_aligned(made, part, "mine")
        assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in before.items())


def test_another_number_of_frames_has_its_places_between_those_of_the_file(part: AlignedPart) -> None:
    held = load_file(part.file)["tokens.images.place"].float()
    for frames in (MEDIA.frames, 7, 2):
        made = network(media=MEDIA.model_copy(update={"frames": frames}))
        load_aligned(made, part, "mine", frames)
        places = trained_parts(made)["tokens.images.place"]
        assert torch.equal(places[0], held[0])
        torch.testing.assert_close(places[frames], held[MEDIA.frames])  # the first of the motion images
        if frames == 7:
            torch.testing.assert_close(places[:frames:2], held[: MEDIA.frames])
            torch.testing.assert_close(places[1], (held[0] + held[1]) / 2)


def test_only_an_attention_base_asks_for_the_file() -> None:
    base = STARTER.base
    found = base_config("icd", base, STARTER.media)
    shipped = get_preset("starter").aligned_base
    assert shipped is not None
    assert found.aligned == shipped.sha256
    assert base_config("icd", base.model_copy(update={"aligned": False}), STARTER.media).aligned is None
    frames = base.model_copy(update={"architecture": "frames"})
    assert base_config("icd", frames, STARTER.media).aligned is None
    with pytest.raises(ModelError, match=r"preset tiny: has no aligned_base file; set base\.aligned: false"):
        base_config("icd", base.model_copy(update={"preset": "tiny"}), STARTER.media)


def test_a_fresh_model_starts_from_the_file_of_its_own_preset(part: AlignedPart, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"mine: {{extends: tiny, aligned_base: {{file: {part.file}, sha256: {part.sha256}}}}}\n")
    definition = read_presets(path)["mine"].definition
    held = load_file(part.file)
    for asked in (True, False):
        made = frozen_model("attention")
        start_aligned(changed(made, preset="mine", definition=definition, aligned=part.sha256 if asked else None))
        state = made.network.state_dict()
        assert all(torch.equal(state[f"heads.0.{name}"], tensor.float()) for name, tensor in held.items()) == asked


def test_a_preset_of_other_towers_does_not_inherit_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "same: {extends: starter, max_text_tokens: 32}\n"
        "text: {extends: starter, weights: {tower_text: smollm2-135m}}\n"
        "mllm: {extends: starter, vision: {kind: efficientnet-lite, width: 1.0, depth: 1.0}}\n"
    )
    shipped = get_preset("starter").aligned_base
    found = read_presets(path)
    kept = {name: found[name].aligned_base for name in ("same", "text", "mllm")}
    assert kept == {"same": shipped, "text": None, "mllm": shipped}


def test_the_file_that_ships_is_the_pinned_one_and_says_what_it_saw() -> None:
    preset = get_preset("starter")
    aligned, mllm = preset.aligned_base, preset.aligned
    assert aligned is not None
    assert mllm is not None
    assert sha256_file(aligned.file) == aligned.sha256
    assert aligned.file.stat().st_size + mllm.file.stat().st_size <= 8 * 2**20
    facts = read_facts(aligned, "starter")
    assert facts["saw"] == read_facts(mllm, "starter")["saw"]  # the same clips, described alike, and no label
    assert facts["fits"].keys() == {"frames", "text", "audio"}
    with safe_open(aligned.file, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    sizes = STARTER.base.attention
    assert sizes is not None
    with torch.device("meta"):
        made = NetworkBuilder(preset, STARTER.media, weights=False).attention(
            TokenIds(0, 1), sizes, hears=STARTER.base.audio, motion=STARTER.base.motion
        )
    assert {name: tuple(value.shape) for name, value in trained_parts(made).items()} == shapes


def test_the_card_says_what_the_start_saw() -> None:
    made = frozen_model("attention")
    shipped = get_preset("starter").aligned_base
    assert shipped is not None
    card = model_card(changed(made, preset="starter", aligned=shipped.sha256))
    assert f"- attention layers: started from an aligned file (SHA-256 {shipped.sha256})" in card
    assert "it saw: clips 2700, labels 0" in card
