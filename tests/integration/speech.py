"""Speech made on the spot by eSpeak NG (the library and its voices come as the package espeakng-loader)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

_SYNCHRONOUS, _UTF8, _RATE, _PITCH = 2, 1, 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@cache
def _library() -> tuple[Any, int]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    assert rate > 0, "eSpeak NG does not start"
    return library, rate


def speak(text: str, voice: str = "en-us", words_per_minute: int = 160, pitch: int = 50) -> npt.NDArray[np.float32]:
    """A sentence as float32 [N] in [-1, 1], mono 16 kHz."""
    library, rate = _library()
    pieces: list[npt.NDArray[np.int16]] = []

    @_CALLBACK
    def collect(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, f"no voice {voice}"
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    said = text.encode()
    assert library.espeak_Synth(said, len(said) + 1, 0, 1, 0, _UTF8, None, None) == 0
    wave = np.concatenate(pieces).astype(np.float64) / 32768.0
    return resample_poly(wave, 16_000, rate).astype(np.float32)
