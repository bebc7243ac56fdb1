"""What sound tracks are made of: single syllables, notes, screams, bangs, and what a room does to them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000

Wave = NDArray[np.float64]

_HARMONICS = ((1, 1.0), (2, 0.4), (3, 0.2))
_THIRD_FORMANT = 2_700.0  # Hz
_BANDWIDTHS = (80.0, 110.0, 160.0)  # of the formants, Hz
_SCREAM_HARMONICS = 6


def syllable(rng: np.random.Generator, pitch: float, length: int) -> Wave:
    """A pulse train (at times only breath) through three formants; ``pitch`` in Hz, ``length`` in samples."""
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


def scream(rng: np.random.Generator, length: int) -> Wave:
    """A high, rough, gliding tone: many harmonics of 600 to 1,300 Hz, its loudness shaken at 40 to 90 Hz."""
    time = np.arange(length) / SAMPLE_RATE
    bend = np.sin(np.linspace(0, math.pi, length)) * rng.uniform(0.1, 0.35)
    pitch = rng.uniform(600, 1300) * (1 + bend + 0.02 * np.sin(math.tau * rng.uniform(5, 9) * time))
    phase = math.tau * np.cumsum(pitch) / SAMPLE_RATE
    # harmonics above half the sample rate would fold back
    audible = [(k, (k * pitch < 0.47 * SAMPLE_RATE) / k) for k in range(1, _SCREAM_HARMONICS + 1)]
    tone = np.sum([gain * np.sin(k * phase) for k, gain in audible], axis=0)
    rough = 1 + 0.6 * np.sin(math.tau * rng.uniform(40, 90) * time)
    return normalised((tone * rough + 0.15 * rng.normal(size=length)) * np.hanning(length) ** 0.3)


def bang(rng: np.random.Generator, length: int) -> Wave:
    """A burst of noise with a low thump, and the noise of a room that dies away."""
    time = np.arange(length) / SAMPLE_RATE
    noise = rng.normal(size=length)
    crack = np.exp(-time / rng.uniform(0.008, 0.02)) * noise
    thump = np.exp(-12 * time) * np.sin(math.tau * rng.uniform(50, 90) * time)
    return normalised(crack + thump + 0.25 * np.exp(-time / rng.uniform(0.08, 0.2)) * noise)


def pluck(frequency: float, length: int) -> Wave:
    """A plucked note."""
    time = np.arange(length) / SAMPLE_RATE
    tones = [gain * np.sin(2 * np.pi * k * frequency * time) for k, gain in _HARMONICS]
    return np.asarray(np.exp(-4 * time) * np.sum(tones, axis=0), dtype=np.float64)


def drum(length: int) -> Wave:
    """A bass drum."""
    time = np.arange(length) / SAMPLE_RATE
    return np.asarray(1.2 * np.exp(-40 * time) * np.sin(2 * np.pi * 60 * time), dtype=np.float64)


def band(wave: Wave, low: float, high: float) -> Wave:
    """Only what lies between ``low`` and ``high`` Hz."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * ((frequency > low) & (frequency < high)), len(wave))


def echo(wave: Wave, seconds: float, gain: float) -> Wave:
    """The wave with itself added once, later and quieter."""
    delay = min(int(seconds * SAMPLE_RATE), len(wave))
    late = np.zeros_like(wave)
    late[delay:] = gain * wave[: len(wave) - delay]
    return wave + late


def normalised(wave: Wave) -> Wave:
    """Scaled to peak 1; silence stays silence."""
    return wave / max(float(np.abs(wave).max(initial=0.0)), 1e-9)
