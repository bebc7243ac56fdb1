"""Our composition against other people's code on the same random weights, fp32, max difference 1e-4."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from coefvq.config import Lora, MediaSpec
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.audio import AudioBranch
from coefvq.models.language import LanguageBranch, positions_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.parts import AudioPart
from coefvq.models.presets import get_preset
from coefvq.models.pretrained import load_whisper_encoder
from coefvq.models.towers import right_padded
from coefvq.models.vision import onevision_config, split_onevision, visual_tokens
from tests.settings import training_settings

NO_LORA = Lora(rank=0, alpha=0, dropout=0.0)
PRESET = get_preset("tiny")
VIDEO, PAD = 7, 0
TOLERANCE = 1e-4


def onevision(frame_size: int) -> Any:
    from transformers import LlavaOnevisionForConditionalGeneration

    torch.manual_seed(0)
    config = onevision_config(PRESET.vision, PRESET.language, frame_size)  # type: ignore[arg-type]
    config.video_token_id = VIDEO
    config.image_token_id = 6
    return LlavaOnevisionForConditionalGeneration(config).eval()


def ours(theirs: Any, frames: int) -> MultimodalLLM:
    vision, decoder = split_onevision(copy.deepcopy(theirs.model))
    language = LanguageBranch(decoder, VIDEO, NO_LORA)
    tokens = visual_tokens(vision, frames)
    return MultimodalLLM(vision, language, None, fusion="none", visual_tokens=tokens).eval()


def row(tokens: int, words: int, length: int, seed: int) -> tuple[list[int], list[int]]:
    random = torch.Generator().manual_seed(seed)
    ids = [VIDEO] * tokens + torch.randint(10, 2000, (words,), generator=random).tolist()
    fill = length - len(ids)
    return [PAD] * fill + ids, [0] * fill + [1] * len(ids)


def unpadded(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return ids[mask.bool()].unsqueeze(0), mask[mask.bool()].unsqueeze(0)


@pytest.mark.parametrize(("frames", "frame_size"), [(1, 64), (3, 64), (2, 80)])
def test_hidden_state_of_onevision(frames: int, frame_size: int) -> None:
    theirs = onevision(frame_size)
    mine = ours(theirs, frames)
    # an odd patch grid (5 x 5 at 80 px) pools to its upper half, as LLaVA-OneVision does
    length = mine.visual_tokens + 12
    rows = [row(mine.visual_tokens, words, length, seed) for seed, words in enumerate((1, 5, 12))]
    ids, mask = (torch.tensor(column) for column in zip(*rows, strict=True))
    pixels = torch.randn(3, frames, 3, frame_size, frame_size)
    with torch.inference_mode():
        expected = theirs.model(
            input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), pixel_values_videos=pixels
        ).last_hidden_state[:, -1]
        together = mine.hidden(mine.vision(pixels), ids, mask)
        alone = torch.cat([mine.hidden(mine.vision(pixels[i : i + 1]), *unpadded(ids[i], mask[i])) for i in range(3)])
    assert (together - expected).abs().max() <= TOLERANCE
    assert (alone - expected).abs().max() <= TOLERANCE
    # a test that could not fail: other text must give another state
    assert (expected[0] - expected[1]).abs().max() > 100 * TOLERANCE


def test_lora_merged_is_lora_unmerged() -> None:
    torch.manual_seed(1)
    make = NetworkBuilder(PRESET, MediaSpec(frames=2, frame_size=64, audio_seconds=1.0), weights=False)
    network = make.mllm(TokenIds(PAD, VIDEO), lora=Lora(rank=8, alpha=16, dropout=0.0), fusion="none").eval()
    for name, parameter in network.named_parameters():
        if "lora_B" in name:  # zero at the start, where a merge would be trivially right
            torch.nn.init.normal_(parameter, std=0.2)
    ids, mask = (torch.tensor([column]) for column in row(network.visual_tokens, 6, network.visual_tokens + 6, 3))
    pixels = torch.randn(1, 2, 3, 64, 64)
    with torch.inference_mode():
        apart = network(pixels, ids, mask)
        network.language.decoder.merge_adapter()
        merged = network(pixels, ids, mask)
        network.language.decoder.unmerge_adapter()
        with network.language.decoder.disable_adapter():
            without = network(pixels, ids, mask)
    assert (apart - merged).abs().max() <= TOLERANCE
    assert (apart - without).abs().max() > 100 * TOLERANCE


def test_audio_vector_of_transformers_and_of_whisper(tmp_path: Path) -> None:
    from transformers import WhisperConfig, WhisperModel
    from whisper.model import AudioEncoder

    torch.manual_seed(2)
    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_layers=1,
        decoder_attention_heads=4,
        max_source_positions=1500,
    )
    theirs = WhisperModel(config).eval()
    state = {f"model.{name}": value.contiguous() for name, value in theirs.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    branch = AudioBranch(AudioPart(n_state=32, n_head=4, n_layer=2), 30.0).eval()
    load_whisper_encoder(branch.encoder, tmp_path, "audio")
    whisper = AudioEncoder(80, 1500, 32, 4, 2).eval()
    whisper.load_state_dict(branch.encoder.state_dict())
    mel = torch.randn(2, 80, 3000)
    with torch.inference_mode():
        mine = branch(mel, torch.tensor([True, True]))
        assert (mine - theirs.encoder(mel).last_hidden_state.mean(1)).abs().max() <= TOLERANCE
        assert (mine - whisper(mel).mean(1)).abs().max() <= TOLERANCE
        assert not branch(mel, torch.tensor([False, True]))[0].any()


def test_a_shorter_window_uses_the_first_positions(tmp_path: Path) -> None:
    whole = AudioBranch(AudioPart(n_state=32, n_head=4, n_layer=1), 30.0)
    save_file({k: v.contiguous() for k, v in whole.encoder.state_dict().items()}, tmp_path / "model.safetensors")
    short = AudioBranch(AudioPart(n_state=32, n_head=4, n_layer=1), 3.0)
    load_whisper_encoder(short.encoder, tmp_path, "audio")
    assert torch.equal(short.encoder.positional_embedding, whole.encoder.positional_embedding[:150])


def test_siglip_baseline_is_siglip() -> None:
    torch.manual_seed(3)
    make = NetworkBuilder(PRESET, MediaSpec(frames=2, frame_size=64, audio_seconds=1.0), weights=False)
    tower = make.siglip(TokenIds(PAD, VIDEO), hears=False).siglip.eval()
    pixels = torch.randn(1, 2, 3, 64, 64)
    ids = torch.tensor([[PAD, PAD, 11, 12, 13]])
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    with torch.inference_mode():
        features = tower(pixels, ids, mask)
        image = tower.encoder.get_image_features(pixel_values=pixels[0], return_dict=True).pooler_output.mean(0)
        padded = right_padded(ids, mask, PRESET.siglip.text_positions, PAD)
        text = tower.encoder.get_text_features(input_ids=padded, return_dict=True).pooler_output[0]
    assert padded[0, :4].tolist() == [11, 12, 13, PAD]
    assert (features[0] - torch.cat([image, text])).abs().max() <= TOLERANCE


_FRESH = """
import json, sys, torch
from pathlib import Path
from coefvq.models.classifier import load
folder = Path(sys.argv[1])
batch = torch.load(folder / "batch.pt", weights_only=True)
ranks = sorted(folder.glob("rank*"))
with torch.inference_mode():
    print(json.dumps({rank.name: load(rank).network(**batch).tolist() for rank in ranks}))
"""
RANKS = (0, 2, 8, 32, 128, 512)  # the rows of Table 4 and two between them


def test_trained_models_of_every_rank_answer_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    from coefvq.config import MLLMParams
    from coefvq.models.classifier import build
    from coefvq.models.model_config import mllm_config
    from coefvq.models.text import train_text_encoder

    training = training_settings()
    text = train_text_encoder(["what a day", "otro dia"] * 9, 2048, 16)
    torch.manual_seed(4)
    batch = text.batch(["what a day"], visual_tokens=9)
    batch |= {"pixel_values": torch.randn(1, 2, 3, 64, 64), "log_mel": torch.randn(1, 80, 100)}
    batch["has_audio"] = torch.tensor([True])
    torch.save(batch, tmp_path / "batch.pt")
    expected = {}
    for rank in RANKS:
        lora = Lora(rank=rank, alpha=2 * rank, dropout=0.0)
        params = MLLMParams(
            preset="tiny", fusion="late", text=True, audio=True, motion=False, lora=lora, training=training
        )
        model = build(mllm_config("icd", params, MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)), text)
        network = model.network
        assert network.visual_tokens == 9
        assert network.language.decoder.peft_config["default"].lora_alpha == 2 * rank if rank else True
        for parameter in network.parameters():  # as after training: head, norm and adapters are not what they were
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
        model.save(tmp_path / f"rank{rank}")
        with torch.inference_mode():
            expected[f"rank{rank}"] = network.eval()(**batch)
    done = subprocess.run([sys.executable, "-c", _FRESH, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answered = {name: torch.tensor(value) for name, value in json.loads(done.stdout).items()}
    assert answered.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(answered[name], value), name
    assert not torch.equal(expected["rank0"], expected["rank2"])
