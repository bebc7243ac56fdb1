"""Sound tracks, synthesised: speech-like voice, music, ambience, and a re-recorded loudspeaker.

Pure functions of a generator: each returns ``float64 [S]`` with peak 1 (``soundtrack``: float32, quieter).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from coefvq.data.synthetic.factors import Sound

SAMPLE_RATE = 16_000

Wave = NDArray[np.float64]
Synth = Callable[[np.random.Generator, int], Wave]

_SCALES = ((0, 3, 5, 7, 10, 12), (0, 4, 5, 7, 9, 12))  # semitones: minor and major pentatonic
_HARMONICS = ((1, 1.0), (2, 0.4), (3, 0.2))
_THIRD_FORMANT = 2_700.0  # Hz
_BANDWIDTHS = (80.0, 110.0, 160.0)  # of the formants, Hz
_LOUDSPEAKER_BAND = (350.0, 2_600.0)  # Hz


def soundtrack(rng: np.random.Generator, sound: Sound, samples: int) -> NDArray[np.float32]:
    """A track of that kind, ``float32 [samples]`` at 16 kHz, peak between 0.28 and 0.7 (never clipped)."""
    wave = _TRACKS[sound](rng, samples)
    return (0.7 * rng.uniform(0.4, 1.0) * _normalised(wave)).astype(np.float32)


def voice(rng: np.random.Generator, samples: int) -> Wave:
    """Syllables of a pulse train shaped by three formants, some unvoiced, with pauses between them."""
    pitch = rng.uniform(90, 240)
    wave = np.zeros(samples)
    start = 0
    while start < samples:
        length = min(int(rng.uniform(0.08, 0.2) * SAMPLE_RATE), samples - start)
        if rng.random() > 0.15:
            wave[start : start + length] = _syllable(rng, pitch * (1 + 0.12 * rng.normal()), length)
        start += length
    return _normalised(wave)


def music(rng: np.random.Generator, samples: int) -> Wave:
    """Plucked notes of one pentatonic scale on an even beat, a drum on every second one."""
    root = rng.uniform(110, 260)
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    beat = int(rng.uniform(0.14, 0.3) * SAMPLE_RATE)
    wave = np.zeros(samples + 2 * beat)
    for number, start in enumerate(range(0, samples, beat)):
        frequency = root * 2 ** (scale[int(rng.integers(len(scale)))] / 12)
        wave[start : start + 2 * beat] += _pluck(frequency, 2 * beat)
        if number % 2 == 0:
            wave[start : start + beat] += _drum(beat)
    return _normalised(wave[:samples])


def ambient(rng: np.random.Generator, samples: int) -> Wave:
    """Rumble without a tune (noise that falls with frequency) and up to three knocks."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    wave = _normalised(np.fft.irfft(spectrum * (frequency > 40) / np.maximum(frequency, 40), samples))
    knock = min(1_500, samples)
    for _ in range(int(rng.integers(0, 4))):
        start = int(rng.integers(0, samples - knock + 1))
        wave[start : start + knock] += np.exp(-np.arange(knock) / 200) * rng.normal(0, 0.5, knock)
    return _normalised(wave)


def rerecorded(rng: np.random.Generator, samples: int) -> Wave:
    """Music or voice through a small loudspeaker: narrow band, overdriven, an echo and hiss on top."""
    played = (music if rng.random() < 0.6 else voice)(rng, samples)
    spectrum = np.fft.rfft(played)
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    low, high = _LOUDSPEAKER_BAND
    narrow = _normalised(np.fft.irfft(spectrum * ((frequency > low) & (frequency < high)), samples))
    driven = np.tanh(3 * narrow)
    delay = min(int(rng.uniform(0.03, 0.08) * SAMPLE_RATE), samples)
    driven[delay:] += 0.35 * driven[: samples - delay]
    return _normalised(driven + rng.uniform(0.05, 0.15) * rng.normal(size=samples))


def _voice_over(rng: np.random.Generator, samples: int) -> Wave:
    behind = (music if rng.random() < 0.5 else ambient)(rng, samples)
    return voice(rng, samples) + rng.uniform(0, 0.5) * behind


def _music_in_a_room(rng: np.random.Generator, samples: int) -> Wave:
    return music(rng, samples) + rng.uniform(0, 0.15) * ambient(rng, samples)


_TRACKS: Mapping[Sound, Synth] = {
    Sound.VOICE: _voice_over,
    Sound.MUSIC: _music_in_a_room,
    Sound.AMBIENT: ambient,
    Sound.RERECORDED: rerecorded,
}


def _syllable(rng: np.random.Generator, pitch: float, length: int) -> Wave:
    glide = pitch * (1 + 0.05 * np.sin(np.linspace(0, 3, length)))
    pulses = np.diff(np.floor(np.cumsum(glide / SAMPLE_RATE)), prepend=0.0)
    breath = rng.normal(size=length)
    source = 0.12 * breath if rng.random() < 0.2 else pulses + 0.02 * breath
    formants = (rng.uniform(300, 850), rng.uniform(900, 2300), _THIRD_FORMANT)
    size = 2 ** (2 * length).bit_length()  # zero-padded: the filter's tail must not wrap around
    delay = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)  # one sample, on the unit circle
    response = np.ones_like(delay)
    for centre, bandwidth in zip(formants, _BANDWIDTHS, strict=True):
        response *= _resonance(delay, centre, bandwidth)
    shaped = np.fft.irfft(np.fft.rfft(source, size) * response, size)[:length]
    return shaped * np.hanning(length) ** 0.4


def _resonance(delay: NDArray[np.complex128], centre: float, bandwidth: float) -> NDArray[np.complex128]:
    """Frequency response of a two-pole resonator, the classic formant filter; centre and width in Hz."""
    radius = math.exp(-math.pi * bandwidth / SAMPLE_RATE)
    turn = 2 * radius * math.cos(2 * math.pi * centre / SAMPLE_RATE)
    return (1 - radius) / (1 - turn * delay + radius**2 * delay**2)


def _pluck(frequency: float, length: int) -> Wave:
    time = np.arange(length) / SAMPLE_RATE
    tones = [gain * np.sin(2 * np.pi * k * frequency * time) for k, gain in _HARMONICS]
    return np.asarray(np.exp(-4 * time) * np.sum(tones, axis=0), dtype=np.float64)


def _drum(length: int) -> Wave:
    time = np.arange(length) / SAMPLE_RATE
    return np.asarray(1.2 * np.exp(-40 * time) * np.sin(2 * np.pi * 60 * time), dtype=np.float64)


def _normalised(wave: Wave) -> Wave:
    return wave / max(float(np.abs(wave).max(initial=0.0)), 1e-9)
