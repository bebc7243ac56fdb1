"""Sound tracks, synthesised: voice, music, ambience, a re-recorded loudspeaker, screams, bangs, next to nothing.

Pure functions of a generator: each returns ``float64 [S]`` with peak 1 (``soundtrack``: float32, quieter).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from coefvq.simulation.synthetic.factors import Sound
from coefvq.simulation.synthetic.tones import (
    SAMPLE_RATE,
    Wave,
    band,
    bang,
    drum,
    echo,
    normalised,
    pluck,
    scream,
    syllable,
)

Synth = Callable[[np.random.Generator, int], Wave]

_SCALES = ((0, 3, 5, 7, 10, 12), (0, 4, 5, 7, 9, 12))  # semitones: minor and major pentatonic
_LOUDSPEAKER_BAND = (350.0, 2_600.0)  # Hz
_MUTED_PEAK = 0.01  # what is left of a muted track


def soundtrack(rng: np.random.Generator, sound: Sound, samples: int) -> NDArray[np.float32]:
    """A track of that kind, ``float32 [samples]`` at 16 kHz, peak between 0.28 and 0.7 (MUTED: 0.01)."""
    wave = normalised(_TRACKS[sound](rng, samples))
    peak = 0.7 * rng.uniform(0.4, 1.0) if sound is not Sound.MUTED else _MUTED_PEAK
    return (peak * wave).astype(np.float32)


def voice(rng: np.random.Generator, samples: int) -> Wave:
    """Syllables of a pulse train shaped by three formants, some unvoiced, with pauses between them."""
    pitch = rng.uniform(90, 240)
    wave = np.zeros(samples)
    start = 0
    while start < samples:
        length = min(int(rng.uniform(0.08, 0.2) * SAMPLE_RATE), samples - start)
        if rng.random() > 0.15:
            wave[start : start + length] = syllable(rng, pitch * (1 + 0.12 * rng.normal()), length)
        start += length
    return normalised(wave)


def music(rng: np.random.Generator, samples: int) -> Wave:
    """Plucked notes of one pentatonic scale on an even beat, a drum on every second one."""
    root = rng.uniform(110, 260)
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    beat = int(rng.uniform(0.14, 0.3) * SAMPLE_RATE)
    wave = np.zeros(samples + 2 * beat)
    for number, start in enumerate(range(0, samples, beat)):
        frequency = root * 2 ** (scale[int(rng.integers(len(scale)))] / 12)
        wave[start : start + 2 * beat] += pluck(frequency, 2 * beat)
        if number % 2 == 0:
            wave[start : start + beat] += drum(beat)
    return normalised(wave[:samples])


def ambient(rng: np.random.Generator, samples: int) -> Wave:
    """Rumble without a tune (noise that falls with frequency) and up to three knocks."""
    wave = _rumble(rng, samples)
    knock = min(1_500, samples)
    for _ in range(int(rng.integers(0, 4))):
        start = int(rng.integers(0, samples - knock + 1))
        wave[start : start + knock] += np.exp(-np.arange(knock) / 200) * rng.normal(0, 0.5, knock)
    return normalised(wave)


def rerecorded(rng: np.random.Generator, samples: int) -> Wave:
    """Music or voice through a small loudspeaker in a room: narrow band, overdriven, echoes and hiss on top."""
    played = (music if rng.random() < 0.6 else voice)(rng, samples)
    driven = np.tanh(3 * normalised(band(played, *_LOUDSPEAKER_BAND)))
    roomy = echo(echo(driven, rng.uniform(0.03, 0.08), 0.35), rng.uniform(0.09, 0.15), 0.2)
    return normalised(roomy + rng.uniform(0.05, 0.15) * rng.normal(size=samples))


def screams(rng: np.random.Generator, samples: int) -> Wave:
    """One to three screams or shouts of a crowd, over rumble."""
    return _events(rng, samples, scream, (0.5, 1.1), int(rng.integers(1, 4)))


def bangs(rng: np.random.Generator, samples: int) -> Wave:
    """Two to five shots or blasts with their reverberation, over rumble."""
    return _events(rng, samples, bang, (0.4, 0.6), int(rng.integers(2, 6)))


def muted(rng: np.random.Generator, samples: int) -> Wave:
    """Hiss."""
    return normalised(rng.normal(size=samples))


def _events(
    rng: np.random.Generator,
    samples: int,
    event: Callable[[np.random.Generator, int], Wave],
    seconds: tuple[float, float],
    times: int,
) -> Wave:
    wave = rng.uniform(0.05, 0.2) * _rumble(rng, samples)
    for _ in range(times):
        length = min(int(rng.uniform(*seconds) * SAMPLE_RATE), samples)
        start = int(rng.integers(0, samples - length + 1))
        wave[start : start + length] += rng.uniform(0.6, 1.0) * event(rng, length)
    return normalised(wave)


def _rumble(rng: np.random.Generator, samples: int) -> Wave:
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    return normalised(np.fft.irfft(spectrum * (frequency > 40) / np.maximum(frequency, 40), samples))


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
    Sound.SCREAM: screams,
    Sound.BANG: bangs,
    Sound.MUTED: muted,
}
