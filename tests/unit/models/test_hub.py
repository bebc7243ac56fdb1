"""Hugging Face conventions: Auto classes, processor, card, merged folders."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForVideoClassification

from coefvq.config import Lora, MediaSpec, MLLMParams
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.errors import DataError, MediaError, ModelError
from coefvq.models.classifier import Classifier, build
from coefvq.models.hub import CoefVQConfig, CoefVQForVideoClassification, CoefVQProcessor, register
from coefvq.models.model_config import mllm_config
from coefvq.models.text import train_text_encoder
from coefvq.simulation.synthetic.encode import write_mp4
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    training = training_settings()
    params = MLLMParams(
        preset="tiny",
        fusion="late",
        text=True,
        audio=True,
        motion=False,
        lora=Lora(rank=4, alpha=8, dropout=0.0),
        training=training,
    )
    torch.manual_seed(0)
    made = build(mllm_config("ucc", params, MEDIA), train_text_encoder(["my title", "otro"] * 9, 2048, 16))
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    made.network.eval()
    return made


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3)).astype(np.uint8)
    write_mp4(path, frames, 8, np.zeros(16_000, np.float32), 16_000)
    return path


def model_of(classifier: Classifier) -> CoefVQForVideoClassification:
    return CoefVQForVideoClassification(CoefVQConfig(**classifier.config.model_dump()), classifier)


@pytest.mark.parametrize("merged", [False, True])
def test_auto_classes_load_what_was_saved(
    classifier: Classifier, clip_file: Path, tmp_path: Path, merged: bool
) -> None:
    register()
    model_of(classifier).save_pretrained(tmp_path, merged=merged)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, CoefVQConfig)
    assert config.id2label == {0: "negative", 1: "positive"}
    model = AutoModelForVideoClassification.from_pretrained(tmp_path)
    inputs = CoefVQProcessor.from_pretrained(tmp_path)([clip_file], ["my title"])
    with torch.inference_mode():
        expected = classifier.network(**inputs)
        answer = model(**inputs, labels=torch.tensor([1]))
    assert torch.allclose(answer.logits, expected, atol=1e-5)
    assert answer.loss.item() == pytest.approx(torch.nn.functional.cross_entropy(expected, torch.tensor([1])).item())
    assert merged is not any("lora_" in name for name, _ in model.named_parameters())


def test_paths_bytes_and_arrays_are_the_same_to_the_processor(
    classifier: Classifier, clip_file: Path, tmp_path: Path
) -> None:
    model_of(classifier).save_pretrained(tmp_path)
    processor = CoefVQProcessor.from_pretrained(tmp_path)
    by_path, by_name, by_bytes = (processor([v]) for v in (clip_file, str(clip_file), clip_file.read_bytes()))
    pixels = by_path["pixel_values"]
    frames = ((pixels[0] + 1.0) * 127.5).round().to(torch.uint8).numpy()
    by_array = processor([Clip(frames, np.zeros(16_000, np.int16))])
    for batch in (by_name, by_bytes, by_array):
        assert torch.equal(batch["pixel_values"], pixels)
    assert processor([clip_file, clip_file], ["a", "b"], [["SALE"], []])["input_ids"].shape[0] == 2


def test_what_does_not_fit_is_refused_in_one_line(classifier: Classifier, clip_file: Path, tmp_path: Path) -> None:
    model_of(classifier).save_pretrained(tmp_path)
    processor = CoefVQProcessor.from_pretrained(tmp_path)
    with pytest.raises(DataError, match="give as many"):
        processor([clip_file], ["a", "b"])
    with pytest.raises(DataError, match="expected uint8 \\(2, 3, 64, 64\\)"):
        processor([Clip(np.zeros((1, 3, 64, 64), np.uint8), np.zeros(0, np.int16))])


def test_hostile_truncated_and_frameless_files_are_refused_within_limits(
    classifier: Classifier, clip_file: Path, tmp_path: Path
) -> None:
    whole = clip_file.read_bytes()
    small = DEFAULT_LIMITS.model_copy(update={"megabytes": len(whole) / 2**20 / 2})
    processor = CoefVQProcessor(classifier.collator, classifier.config)
    frameless = tmp_path / "sound.mp4"
    with av.open(str(frameless), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for bad in (b"", b"no video at all", whole[: len(whole) // 3], frameless, tmp_path / "nowhere.mp4", tmp_path):
        with pytest.raises(MediaError) as caught:
            processor([clip_file, bad])
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match=r"above ingest\.limits\.megabytes"):
        CoefVQProcessor(classifier.collator, classifier.config, small)([whole])
    few = DEFAULT_LIMITS.model_copy(update={"frames": 3})
    with pytest.raises(MediaError, match="frames"):
        CoefVQProcessor(classifier.collator, classifier.config, few)([whole])


@pytest.mark.parametrize(
    "clip",
    [
        Clip(np.zeros((0, 3, 64, 64), np.uint8), np.zeros(0, np.int16)),
        Clip(np.zeros((2, 3, 64, 64), np.float32), np.zeros(0, np.int16)),  # type: ignore[arg-type]
        Clip(np.zeros((2, 3, 64, 64), np.uint8), np.full(9, np.nan)),  # type: ignore[arg-type]
    ],
)
def test_arrays_of_no_frames_or_other_types_are_refused(classifier: Classifier, clip: Clip) -> None:
    with pytest.raises(DataError, match=r"expected u?int"):
        CoefVQProcessor(classifier.collator, classifier.config)([clip])


def test_the_card_says_what_the_model_is(classifier: Classifier, tmp_path: Path) -> None:
    model_of(classifier).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: coefvq\n")
    for fact in ("ucc", "LoRA rank 4", "2 frames of 64 px", "hears 1 s", "0 = negative"):
        assert fact in card


def test_a_saved_processor_needs_no_weights_and_notices_another_model(
    classifier: Classifier, clip_file: Path, tmp_path: Path
) -> None:
    model_of(classifier).save_pretrained(tmp_path / "model")
    whole = CoefVQProcessor.from_pretrained(tmp_path / "model")
    whole.save_pretrained(tmp_path / "processor")
    names = {path.name for path in (tmp_path / "processor").iterdir()}
    assert names == {"config.json", "preprocessor_config.json", "tokenizer.json"}
    again = CoefVQProcessor.from_pretrained(tmp_path / "processor")
    expected, found = whole([clip_file], ["my title"]), again([clip_file], ["my title"])
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    config = tmp_path / "processor" / "config.json"
    config.write_text(config.read_text().replace('"audio_seconds": 1.0', '"audio_seconds": 2.0'))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        CoefVQProcessor.from_pretrained(tmp_path / "processor")
