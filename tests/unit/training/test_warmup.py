"""Alignment warm-up on the miniature of `starter`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from coefvq.config import Alignment
from coefvq.errors import DataError, ModelError
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.text import TextEncoder
from coefvq.training.warmup import (
    Batch,
    Describing,
    Vocabulary,
    WarmUpFolder,
    describing,
    description_targets,
    description_vocabulary,
    warm_up,
)
from tests.described_clips import DESCRIPTIONS, PRESET, WORDS, batch, feed, network, text

__all__ = ["batch", "text"]

#: all rows of the embedding, those without a token too
EVERYTHING = Vocabulary(torch.arange(PRESET.language.vocab_size))
PARAMS = Alignment(epochs=20, per_device_train_batch_size=4, learning_rate=1e-2, max_tokens=16)


def trained(text: TextEncoder, batch: Batch, seed: int = 0) -> tuple[MultimodalLLM, list[dict[str, float]]]:
    made = network(text)

    inputs = feed(batch)
    vocabulary = description_vocabulary(made, text, inputs, DESCRIPTIONS, 16)
    curve = warm_up(made, text, inputs, DESCRIPTIONS, vocabulary, PARAMS, seed)
    return made, curve


def described_loss(made: MultimodalLLM, text: TextEncoder, batch: Batch, descriptions: list[str]) -> float:
    made.eval()
    with describing(made, EVERYTHING) as decoder, torch.inference_mode():
        decoder.targets = description_targets(text, descriptions, 16)
        made(**batch)
        assert decoder.loss is not None
        return float(decoder.loss)


def test_the_loss_falls_and_the_right_description_becomes_the_likely_one(text: TextEncoder, batch: Batch) -> None:
    made, curve = trained(text, batch)
    assert [row["epoch"] for row in curve] == list(range(1, 21))
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    right = described_loss(made, text, batch, [options[0] for options in DESCRIPTIONS])
    wrong = described_loss(made, text, batch, [WORDS[(n + 1) % 2] for n in range(8)])
    assert right < wrong - 0.1


def test_the_vocabulary_is_the_descriptions_words_and_tames_loud_logits(text: TextEncoder, batch: Batch) -> None:
    made = network(text)
    found = description_vocabulary(made, text, feed(batch), DESCRIPTIONS, 16)
    words = {i for option in WORDS for i in text.tokenizer.encode(option, add_special_tokens=False).ids}
    assert found.ids.tolist() == sorted({*words, text.end_id})
    with torch.no_grad():
        made.language.decoder.get_input_embeddings().weight *= 1000.0
    loud = description_vocabulary(made, text, feed(batch), DESCRIPTIONS, 16)
    assert loud.scale < 0.1 * found.scale


def test_the_loss_is_the_mean_over_the_words_and_the_end_of_descriptions(text: TextEncoder, batch: Batch) -> None:
    """Against the plain formula, row by row and without padding."""
    made = network(text).eval()
    descriptions = ["a red ball", "sky", "a blue sky", "", "ball", "red", "a", "blue"]
    sums, count = 0.0, 0
    with torch.inference_mode():
        sound = made.audio(batch["log_mel"], batch["has_audio"])  # type: ignore[misc]
        seen = made.vision(batch["pixel_values"])
        table = made.language.decoder.get_input_embeddings().weight.detach()
        for row, description in enumerate(descriptions):
            if not description:
                continue
            target = [*text.tokenizer.encode(description, add_special_tokens=False).ids, text.end_id]
            prompt = batch["input_ids"][row][batch["attention_mask"][row].bool()]
            embedded = torch.nn.functional.embedding(prompt, table)
            embedded[prompt == text.video_id] = seen[row]
            last = made.audio_projector(sound[row])[None]  # type: ignore[misc]
            whole = torch.cat([embedded, last, table[target]])[None]
            states = made.language.decoder(inputs_embeds=whole).last_hidden_state[0]
            logits = states[len(embedded) : -1] @ table.T
            sums += float(torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum"))
            count += len(target)
    assert described_loss(made, text, batch, descriptions) == pytest.approx(sums / count, abs=1e-5)


def test_descriptions_do_not_reach_the_classifier(text: TextEncoder, batch: Batch) -> None:
    made = network(text).eval()
    with torch.inference_mode():
        plain = made(**batch)
        with describing(made, EVERYTHING) as decoder:
            decoder.targets = description_targets(text, [options[0] for options in DESCRIPTIONS], 16)
            beside = made(**batch)
        after = made(**batch)
    assert (plain - beside).abs().max() < 1e-5
    assert torch.equal(plain, after)
    assert not isinstance(made.language.decoder, Describing)


def test_same_seed_same_bits_and_head_and_frozen_weights_stay(text: TextEncoder, batch: Batch) -> None:
    before = network(text).state_dict()
    (one, curve), (two, again), (other, _) = (trained(text, batch, seed) for seed in (0, 0, 1))
    assert curve == again
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    still = [n for n, p in one.named_parameters() if not p.requires_grad or n.startswith(("head.", "norm."))]
    assert len(still) > 4
    assert all(torch.equal(one.state_dict()[name], before[name]) for name in still)


def test_a_saved_warm_up_is_the_same_network_and_is_found_by_its_facts(
    text: TextEncoder, batch: Batch, tmp_path: Path
) -> None:
    made, curve = trained(text, batch)
    folder = WarmUpFolder(tmp_path, {"preset": "x", "rows": ["a", "b"]})
    assert not folder.exists
    folder.save(made, curve)
    fresh = network(text)
    assert folder.restore(fresh) == curve
    restored = dict(fresh.named_parameters())
    assert all(torch.equal(p, restored[name]) for name, p in made.named_parameters() if p.requires_grad)
    assert WarmUpFolder(tmp_path, {"rows": ["a", "b"], "preset": "x"}).exists
    assert not WarmUpFolder(tmp_path, {"rows": ["a", "c"], "preset": "x"}).exists


def test_a_warm_up_of_another_network_or_a_cut_file_is_refused(text: TextEncoder, tmp_path: Path) -> None:
    folder = WarmUpFolder(tmp_path, {"n": 1})
    folder.save(network(text), [])
    with pytest.raises(ModelError, match="not of this network"):
        folder.restore(network(text, rank=2))
    weights = folder.path / "warmup.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="not readable"):
        folder.restore(network(text))


def test_what_cannot_be_described_is_said(text: TextEncoder, batch: Batch) -> None:
    inputs = feed(batch)
    with pytest.raises(DataError, match="no video has a description"):
        warm_up(network(text), text, inputs, [()] * 8, EVERYTHING, PARAMS, 0)
    wild = PARAMS.model_copy(update={"learning_rate": math.inf})
    with pytest.raises(ModelError, match="not finite at rows"):
        warm_up(network(text), text, inputs, DESCRIPTIONS, EVERYTHING, wild, 0)
    frozen = network(text)
    frozen.requires_grad_(False)
    with pytest.raises(ModelError, match="are frozen"):
        warm_up(frozen, text, inputs, DESCRIPTIONS, EVERYTHING, PARAMS, 0)


def test_rows_without_a_description_are_left_out(text: TextEncoder, batch: Batch) -> None:
    asked: list[int] = []

    def inputs(rows: object) -> Batch:
        asked.extend(rows)  # type: ignore[arg-type]
        return {k: v[list(rows)] for k, v in batch.items()}  # type: ignore[call-overload]

    some = [*DESCRIPTIONS[:3], (), ("",), *DESCRIPTIONS[5:]]
    warm_up(network(text), text, inputs, some, EVERYTHING, PARAMS.model_copy(update={"epochs": 2}), 0)
    assert sorted(asked) == sorted([0, 1, 2, 5, 6, 7] * 2)


def test_new_tokens_are_as_long_as_the_language_models_own(text: TextEncoder, batch: Batch) -> None:
    """Also for a Whisper vector, which is long and nearly the same for all clips."""
    made = network(text).eval()
    embedding = made.language.decoder.get_input_embeddings().weight.detach()
    loud = 24.0 * torch.nn.functional.normalize(torch.randn(5, 32) + 5.0, dim=1)
    with torch.inference_mode():
        heard = made.audio_projector(loud)  # type: ignore[misc]
        seen = made.vision(batch["pixel_values"])
    assert float(heard.std()) == pytest.approx(float(embedding.std()), rel=0.05)
    assert float(seen.std()) == pytest.approx(float(made.vision.scale.detach()), rel=0.05)
