"""The sound encoder of ``starter`` hears what is said: real weights, real speech, and random weights as control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from filelock import FileLock
from whisper.audio import log_mel_spectrogram, pad_or_trim

from coefvq.models.audio import AudioBranch
from coefvq.models.presets import get_preset
from coefvq.models.pretrained import load_whisper_encoder
from coefvq.models.weights import fetch as weights
from coefvq.models.weights.sources import WHISPER_BASE
from tests.integration.speech import speak

SECONDS = 5.0
SENTENCES = (
    "Watch this video until the very end.",
    "My cat sleeps on the kitchen table every morning.",
    "Five thousand people lost their money yesterday.",
    "Please wash your hands before you cook dinner.",
    "The train to London leaves at half past nine.",
    "Nobody knows why the ocean is so blue.",
)
#: how a sentence is said again: higher, faster, by another voice, and both
AGAIN = (
    {"pitch": 80},
    {"words_per_minute": 190},
    {"voice": "en-gb-scotland"},
    {"voice": "en-gb-scotland", "words_per_minute": 170, "pitch": 70},
)
Wave = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def published() -> AudioBranch:
    folder = weights.weights_home()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".test.lock"):
        found = weights.fetch(WHISPER_BASE)
    branch = untrained()
    load_whisper_encoder(branch.encoder, found, "audio")
    return branch


def untrained() -> AudioBranch:
    torch.manual_seed(0)
    return AudioBranch(get_preset("starter").audio, SECONDS).eval()


def heard(branch: AudioBranch, waves: list[Wave]) -> torch.Tensor:
    """H_a of each sound, scaled to length 1: [n, 512]."""
    padded = torch.stack([pad_or_trim(torch.from_numpy(wave), round(SECONDS * 16_000)) for wave in waves])
    with torch.inference_mode():
        vectors = branch(log_mel_spectrogram(padded), torch.ones(len(waves), dtype=torch.bool))
    return torch.nn.functional.normalize(vectors, dim=1)


def recognised(branch: AudioBranch) -> int:
    """How many of 24 sentences said again are nearest to the same sentence among the six."""
    first = heard(branch, [speak(sentence) for sentence in SENTENCES])
    found = [heard(branch, [speak(sentence, **how) for sentence in SENTENCES]) @ first.T for how in AGAIN]  # type: ignore[arg-type]
    return sum(int((near.argmax(dim=1) == torch.arange(len(SENTENCES))).sum()) for near in found)


def test_a_sentence_is_nearest_to_itself_in_another_voice_and_speed(published: AudioBranch) -> None:
    assert recognised(published) == len(SENTENCES) * len(AGAIN)


def test_random_weights_do_not_recognise_sentences() -> None:
    assert recognised(untrained()) <= 18


def gap(branch: AudioBranch) -> float:
    """Smallest similarity of two spoken sentences less the greatest of one to noise or a tone as loud as it."""
    spoken = [speak(sentence) for sentence in SENTENCES]
    random, loud = np.random.default_rng(0), np.ones(400) / 400
    envelopes = [np.convolve(np.abs(wave), loud, "same") for wave in spoken]
    noise = [(random.normal(size=len(e)) * e).astype(np.float32) for e in envelopes]
    tones = [(np.sin(2 * np.pi * 220 * np.arange(len(e)) / 16_000) * e).astype(np.float32) for e in envelopes]
    speech, others = heard(branch, spoken), heard(branch, noise + tones)
    return float((speech @ speech.T).min() - (speech @ others.T).max())


def test_speech_is_not_like_noise_or_a_tone_of_the_same_loudness(published: AudioBranch) -> None:
    assert gap(published) > 0.05
    assert gap(untrained()) < 0.01


def test_the_sound_of_a_file_reaches_the_encoder_as_it_was_made(published: AudioBranch, tmp_path: Path) -> None:
    from coefvq.data.media.decode import decode_audio
    from coefvq.simulation.synthetic.encode import write_mp4

    spoken = [speak(sentence) for sentence in SENTENCES[:3]]
    frames = np.zeros((50, 64, 64, 3), np.uint8)
    decoded = []
    for number, wave in enumerate(spoken):
        path = tmp_path / f"{number}.mp4"
        write_mp4(path, frames, 10, wave, 16_000)
        decoded.append(decode_audio(path, SECONDS).astype(np.float32) / 32768.0)
    near = heard(published, decoded) @ heard(published, spoken).T
    assert near.argmax(dim=1).tolist() == [0, 1, 2]
    assert near.diag().min() > 0.97
