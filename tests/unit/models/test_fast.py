"""Switches: each exact one, and all together, give the plain path's logits; approximate ones do what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from coefvq.config import Approximate, Lora, MediaSpec
from coefvq.data.media.decode import Clip
from coefvq.errors import ModelError
from coefvq.models.assembly import TokenIds
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import Example
from coefvq.models.fast import approximate, attention, linear
from coefvq.models.fast.attention import blocked_attention
from coefvq.models.fast.layers import PatchMatmul
from coefvq.models.fast.linear import PackedLinear
from coefvq.models.fast.switches import approximate_switches, choose, exact_switches, prepare
from coefvq.models.language import LanguageBranch, decoder_config
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig
from coefvq.models.parts import LanguagePart, LitePart
from coefvq.models.text import TextEncoder, train_text_encoder
from coefvq.models.vision import CnnBranch, visual_tokens

MEDIA = MediaSpec(frames=3, frame_size=64, audio_seconds=1.0)
WORDS = ["a", "what a lovely day, watch till the very end " * 2, "", "mi video original"]
NOTHING = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
CPU_EXACT = [switch.name for switch in exact_switches() if switch.name != "flash_attention"]
MODELS = ["siglip", "siglip-early", "siglip-rank-0", "cnn", "cnn-early"]


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return train_text_encoder(["what a lovely day", "watch till the end", "mi video original"] * 20, 2048, 64)


def siglip(text: TextEncoder, fusion: str, rank: int) -> Classifier:
    config = ModelConfig(
        issues=("icd",),
        kind="mllm",
        preset="tiny",
        architecture="mllm",
        media=MEDIA,
        fusion=fusion,
        text=True,
        audio=True,
        lora_rank=rank,
        lora_alpha=2 * rank,
    )
    return build(config, text)


def cnn(text: TextEncoder, fusion: Any) -> Classifier:
    """As the preset starter: a CNN's grid and a Llama with grouped key heads, made small."""
    from transformers import AutoModel

    part = LanguagePart("llama", 48, 2, 6, 2, 96, vocab_size=2048)
    vision = CnnBranch(LitePart(0.3, 0.3, pooled_side=2), 48, motion=True)
    decoder = AutoModel.from_config(decoder_config(part))
    language = LanguageBranch(decoder, TokenIds(text.pad_id, text.video_id).video, Lora(rank=4, alpha=8, dropout=0.1))
    audio = siglip(text, "late", 0).network.audio
    tokens = visual_tokens(vision, MEDIA.frames)
    network = MultimodalLLM(vision, language, audio, fusion=fusion, visual_tokens=tokens)
    return replace(siglip(text, fusion, 4), network=network)


def model(kind: str, text: TextEncoder) -> Classifier:
    torch.manual_seed(0)
    fusion = "early" if kind.endswith("early") else "late"
    made = cnn(text, fusion) if kind.startswith("cnn") else siglip(text, fusion, 0 if kind.endswith("0") else 4)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:  # starts at zero, and would hide a lost adapter
            nn.init.normal_(parameter, std=0.1, generator=generator)
    made.network.eval()
    return made


def batch_of(classifier: Classifier) -> dict[str, torch.Tensor]:
    """Four rows of different length, one without sound."""
    random = np.random.default_rng(3)
    media = classifier.config.media
    rows = []
    for number, words in enumerate(WORDS):
        wave = random.integers(-9000, 9000, 0 if number == 2 else 16_000).astype(np.int16)
        frames = random.integers(0, 255, (media.frames, 3, 64, 64)).astype(np.uint8)
        rows.append(Example(Clip(frames, wave), words, label=None))
    return classifier.collator(rows)


def logits(classifier: Classifier) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = classifier.network(**batch_of(classifier))
    return found


def exact(*names: str) -> list[Any]:
    return [switch for switch in exact_switches() if switch.name in names]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", CPU_EXACT)
def test_an_exact_switch_alone_changes_nothing(name: str, kind: str, text: TextEncoder) -> None:
    expected = logits(model(kind, text))
    prepared, report = prepare(model(kind, text), exact(name), only_if_it_pays=False)
    assert [outcome.name for outcome in report] == [name]
    assert torch.allclose(logits(prepared), expected, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_all_exact_switches_together_change_nothing(kind: str, text: TextEncoder) -> None:
    expected = logits(model(kind, text))
    prepared, report = prepare(model(kind, text), exact(*CPU_EXACT), only_if_it_pays=False)
    on = {outcome.name for outcome in report if outcome.on}
    assert on >= {"blocked_attention", "packed_linears"}
    assert ("patch_matmul" in on) == kind.startswith("siglip")
    assert ("merge_lora" in on) == (kind != "siglip-rank-0")
    assert torch.allclose(logits(prepared), expected, atol=1e-5)


def test_the_switches_are_really_in_place(text: TextEncoder) -> None:
    prepared, _ = prepare(model("siglip", text), exact(*CPU_EXACT), only_if_it_pays=False)
    decoder = prepared.network.language.decoder
    assert decoder.config._attn_implementation == attention.PADDED  # the last of the two
    assert isinstance(prepared.network.vision.onevision.vision_tower.tower.embeddings.patch_embedding, PatchMatmul)
    assert not any(type(module) is nn.Linear for module in prepared.network.modules())
    assert any(isinstance(m, PackedLinear) and m.activation[0] == "swish" for m in decoder.modules())


def test_with_adapters_left_unmerged(text: TextEncoder) -> None:
    expected = logits(model("siglip", text))
    names = [name for name in CPU_EXACT if name != "merge_lora"]
    prepared, _ = prepare(model("siglip", text), exact(*names), only_if_it_pays=False)
    assert any("lora_A" in name for name, _ in prepared.network.named_modules())
    assert torch.allclose(logits(prepared), expected, atol=1e-5)


def test_preparing_twice_does_it_once(text: TextEncoder) -> None:
    switches = exact(*CPU_EXACT)
    once, _ = prepare(model("siglip", text), switches, only_if_it_pays=False)
    expected, modules = logits(once), [type(m) for m in once.network.modules()]
    twice, report = prepare(once, switches, only_if_it_pays=False)
    assert all(outcome.reason == "was on" for outcome in report if outcome.on)
    assert [type(m) for m in twice.network.modules()] == modules
    assert torch.equal(logits(twice), expected)


def test_without_the_private_operation_the_plain_one_is_used(text: TextEncoder, monkeypatch: Any) -> None:
    expected = logits(model("siglip", text))
    monkeypatch.setattr(linear, "private_op", lambda name: None)
    prepared, report = prepare(model("siglip", text), exact(*CPU_EXACT), only_if_it_pays=False)
    reasons = {outcome.name: outcome.reason for outcome in report if not outcome.on}
    assert "packs no weights" in reasons["packed_linears"]
    assert torch.allclose(logits(prepared), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_packed_only_where_the_processor_can(dtype: torch.dtype, monkeypatch: Any) -> None:
    layer = torch.nn.Linear(8, 4).to(dtype)
    x = torch.randn(3, 8, dtype=dtype)
    if linear.packs(dtype):
        assert torch.allclose(PackedLinear(layer)(x), layer(x), atol=1e-2)
    else:
        with pytest.raises(RuntimeError, match="cpu support"):
            linear.private_op("_reorder_linear_weight")(layer.weight.detach())  # type: ignore[misc]
    operations = linear.private_op
    monkeypatch.setattr(linear, "private_op", lambda name: (lambda: False) if "supported" in name else operations(name))
    plain = PackedLinear(layer, ("swish", ""))
    assert not plain.packed
    assert torch.equal(plain(x), torch.nn.functional.silu(layer(x)))


def test_int8_sums_do_not_saturate_without_vnni(monkeypatch: Any) -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(256, 64), torch.randn(100, 256) * 1.5
    for without in (True, approximate.sums_saturate()):
        monkeypatch.setattr(approximate, "sums_saturate", lambda without=without: without)
        assert (approximate.Int8Linear(layer)(x) - layer(x)).abs().max() < 0.1  # 0.45 where int16 sums clip


def test_a_private_operation_that_does_not_exist_is_none() -> None:
    assert linear.private_op("_no_such_operation_in_any_torch") is None


def test_a_prepared_model_is_neither_saved_nor_taken_for_the_trained_one(text: TextEncoder, tmp_path: Path) -> None:
    prepared, _ = prepare(model("siglip", text), exact("packed_linears"))
    with pytest.raises(ModelError, match="prepared for scoring"):
        prepared.save(tmp_path / "model")


def test_training_mode_is_left(text: TextEncoder) -> None:
    training = model("cnn", text)
    training.network.train()
    prepared, _ = prepare(training, exact("packed_linears"))
    assert not prepared.network.training


class TestBlockedAttention:
    @staticmethod
    def parts(length: int, heads: int = 6, groups: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(5)
        shapes = [(2, heads, length, 24), (2, groups, length, 24), (2, groups, length, 24)]
        return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    @staticmethod
    def expected(parts: list[torch.Tensor], **kwargs: Any) -> torch.Tensor:
        sdpa = nn.functional.scaled_dot_product_attention
        return sdpa(*parts, scale=0.3, enable_gqa=True, **kwargs).transpose(1, 2)

    @pytest.mark.parametrize("length", [1, 17, 149, 450, 801])
    @pytest.mark.parametrize("causal", [True, False])
    def test_equals_torch_over_several_blocks(self, length: int, causal: bool) -> None:
        parts = self.parts(length)
        found = blocked_attention(*parts, None, causal, 0.3)
        assert torch.allclose(found, self.expected(parts, is_causal=causal), atol=2e-6)

    @pytest.mark.parametrize("groups", [6, 5 * 1, 3])
    def test_any_number_of_key_heads(self, groups: int) -> None:
        parts = self.parts(40, heads=groups * 2, groups=groups)
        assert torch.allclose(
            blocked_attention(*parts, None, True, 0.3), self.expected(parts, is_causal=True), atol=2e-6
        )

    def test_padded_rows_are_masked_and_stay_finite(self) -> None:
        parts = self.parts(300)
        causal = torch.ones(300, 300, dtype=torch.bool).tril()
        mask = torch.stack([causal, causal])[:, None].clone()
        mask[1, :, :, :70] = False  # the second row is padded on its left by 70
        found = blocked_attention(*parts, mask, True, 0.3)
        expected = self.expected(parts, attn_mask=mask)
        assert found.isfinite().all()
        assert torch.allclose(found[0], expected[0], atol=2e-6)
        assert torch.allclose(found[1, 70:], expected[1, 70:], atol=2e-6)

    def test_bfloat16_rounds_as_the_eager_attention_of_transformers(self) -> None:
        from transformers.models.llama.modeling_llama import eager_attention_forward

        query, key, value = self.parts(500, dtype=torch.bfloat16)
        truth = self.expected([query.float(), key.float(), value.float()], is_causal=True)
        module = nn.Module()
        module.num_key_value_groups = 3
        mask = torch.full((500, 500), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16).triu(1)
        eager, _ = eager_attention_forward(module, query, key, value, mask, scaling=0.3)
        ours = blocked_attention(query, key, value, None, True, 0.3)
        assert (ours.float() - truth).abs().mean() <= 1.05 * (eager.float() - truth).abs().mean()


def test_bfloat16_scores_are_near(text: TextEncoder) -> None:
    expected = logits(model("siglip", text))
    prepared, _ = prepare(model("siglip", text), choose("exact", "bfloat16", NOTHING))
    assert next(prepared.network.vision.parameters()).dtype == torch.bfloat16
    found = logits(prepared)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.1)
    assert not torch.equal(found, expected)


def asked(**changes: Any) -> Approximate:
    return NOTHING.model_copy(update=changes)


@pytest.mark.parametrize(
    ("kind", "changes", "check"),
    [
        ("siglip", {"int8": True}, lambda c: c.config.media == MEDIA),
        ("cnn", {"int8": True}, lambda c: c.config.media == MEDIA),
        ("siglip", {"frames": 2}, lambda c: c.config.media.frames == 2 and c.network.visual_tokens == 2 * 4 + 1),
        ("cnn", {"frames": 2}, lambda c: c.config.media.frames == 2 and c.network.visual_tokens == 3 * 4),
        ("siglip", {"pool_tokens": 2}, lambda c: c.network.visual_tokens == 3 + 1),
        ("cnn", {"pool_tokens": 2}, lambda c: c.network.visual_tokens == 4),
        ("siglip", {"audio_seconds": 0.5}, lambda c: c.collator.audio_seconds == 0.5),
        ("siglip", {"int8": True, "frames": 1, "pool_tokens": 2, "audio_seconds": 0.5}, lambda c: True),
    ],
)
def test_an_approximate_switch_changes_the_answer_and_little_else(
    kind: str, changes: dict[str, Any], check: Callable[[Any], bool], text: TextEncoder
) -> None:
    expected = logits(model(kind, text))
    prepared, report = prepare(model(kind, text), choose("exact", "float32", asked(**changes)))
    assert {outcome.name for outcome in report if outcome.kind == "approximate"} == set(changes)
    found = logits(prepared)
    assert check(prepared)
    assert found.shape == expected.shape
    assert found.isfinite().all()
    assert not torch.allclose(found, expected, atol=1e-6)


def test_int8_is_near_the_plain_answer(text: TextEncoder) -> None:
    expected = logits(model("siglip", text))
    prepared, _ = prepare(model("siglip", text), approximate_switches(asked(int8=True)))
    assert torch.allclose(logits(prepared), expected, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 3}, "frames is 3, the model sees 3 already"),
        ({"audio_seconds": 2.0}, "audio_seconds is 2, the model hears 1"),
    ],
)
def test_an_approximation_that_saves_nothing_is_refused(
    changes: dict[str, Any], message: str, text: TextEncoder
) -> None:
    with pytest.raises(ModelError, match=message):
        prepare(model("siglip", text), approximate_switches(asked(**changes)))
