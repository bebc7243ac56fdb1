"""Parameters on the meta device beside Table 1 of the paper; differences are explained in docs/models.md."""

from __future__ import annotations

import pytest

from coefvq.config import Lora, MediaSpec
from coefvq.models.counting import Counted, count_base, count_mllm, meta_mllm
from coefvq.models.mllm import Fusion
from coefvq.models.presets import get_preset

PAPER = get_preset("paper")
MEDIA = MediaSpec(frames=8, frame_size=384, audio_seconds=30.0)
LORA = Lora(rank=32, alpha=64, dropout=0.0)
MILLION = 1_000_000

# what the published checkpoints hold and a classifier does not: ImageNet's classes on ResNet-50
IMAGENET_HEAD = 2048 * 1000 + 1000
# Whisper-base's decoder: 71.8 M in all, 19.8 M in the encoder (the only part that is used)
WHISPER_BASE_DECODER = 52_003_328


def mllm(fusion: Fusion, lora: Lora = LORA) -> Counted:
    return count_mllm(meta_mllm(PAPER, MEDIA, lora, fusion), PAPER)


def near(counted: int, table_millions: float) -> bool:
    return abs(counted / MILLION - table_millions) <= 0.05 * table_millions


def test_resnet50_is_the_icd_base() -> None:
    counted = count_base(PAPER, "frames", MEDIA)
    assert counted.total == 23_512_130
    assert near(counted.total + IMAGENET_HEAD, 25)
    assert not near(counted.total, 25)  # 6 % below: the table counts the published classifier


def test_multi_tower_is_the_ucc_base() -> None:
    counted = count_base(PAPER, "multitower", MEDIA)
    assert counted.parts["frames"] > 195 * MILLION
    assert near(counted.total + WHISPER_BASE_DECODER, 564)
    assert not near(counted.total, 564)  # 12 % below: the table seems to count Whisper-base whole


def test_the_decoder_of_whisper_base_is_what_whisper_says() -> None:
    import torch
    from whisper.model import TextDecoder

    with torch.device("meta"):
        decoder = TextDecoder(n_vocab=51865, n_ctx=448, n_state=512, n_head=8, n_layer=6)
    assert sum(p.numel() for p in decoder.parameters()) == WHISPER_BASE_DECODER


@pytest.mark.parametrize(("audio", "table"), [(False, 679), (True, 699)])
def test_siglip_large(audio: bool, table: float) -> None:
    assert near(count_base(PAPER, "siglip", MEDIA, audio=audio).total, table)


def test_the_difference_of_the_two_siglip_rows_is_whisper_base() -> None:
    silent, hears = (count_base(PAPER, "siglip", MEDIA, audio=audio) for audio in (False, True))
    assert hears.parts["audio"] / MILLION == pytest.approx(699 - 679, abs=0.5)
    assert hears.total - silent.total > hears.parts["audio"]


@pytest.mark.parametrize(("fusion", "table"), [("none", 8.3), ("late", 8.4)])
def test_mllm(fusion: Fusion, table: float) -> None:
    counted = mllm(fusion)
    # the published checkpoint holds an lm_head, which the classifier never computes
    assert near(counted.total + counted.left_out_lm_head, table * 1000)
    assert counted.left_out_lm_head > 0.5e9
    assert counted.trainable < 0.012 * counted.total


def test_lora_counts_by_rank() -> None:
    ranks = (2, 512)
    counts = [mllm("none", Lora(rank=rank, alpha=2 * rank, dropout=0.0)) for rank in ranks]
    per_rank = {count.parts["LoRA"] / rank for count, rank in zip(counts, ranks, strict=True)}
    assert per_rank == {2_523_136.0}  # 28 layers of Qwen2-7B, seven linear layers each
    assert mllm("none", Lora(rank=0, alpha=0, dropout=0.0)).parts["LoRA"] == 0
