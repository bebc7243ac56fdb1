"""High dynamic range and wide gamut to what an ordinary (SDR, BT.709) screen shows, in plain formulas.

signal → light, where 203 nits are white → BT.709 primaries → highlights rolled off → gamma 2.4.

Sources: SMPTE ST 2084 and ITU-R BT.2100 table 4 (PQ), BT.2100 table 5 (HLG), BT.2408 (reference white),
BT.2087 (primaries), BT.1886 (gamma).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# numbers of H.273
_HDR: dict[int, Literal["pq", "hlg"]] = {16: "pq", 18: "hlg"}
_BT709, _UNSPECIFIED, _BT2020 = 1, 2, 9
_SILENT = (0, _UNSPECIFIED)  # of a matrix, 0 means RGB

_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_GAMMA, _HLG_GAMMA = 2.4, 1.2
# light above this share of white is rolled off, so that highlights do not become flat
_KNEE = 0.9
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


@dataclass(frozen=True)
class Colours:
    """Colour tags of a container, as numbers of H.273: transfer, primaries, matrix."""

    transfer: int = _UNSPECIFIED
    primaries: int = _UNSPECIFIED
    matrix: int = _UNSPECIFIED

    def of(self, frame: Any) -> Colours:
        """Those of a frame; where it says nothing, those of the container."""
        return Colours(
            self.transfer if frame.color_trc in _SILENT else frame.color_trc,
            self.primaries if frame.color_primaries in _SILENT else frame.color_primaries,
            self.matrix if frame.colorspace == _UNSPECIFIED else frame.colorspace,
        )

    @property
    def hdr(self) -> Literal["pq", "hlg"] | None:
        """How the clip is high dynamic range; None: it is not."""
        return _HDR.get(self.transfer)

    @property
    def needs_mapping(self) -> bool:
        """Whether an ordinary screen would show other colours than were meant."""
        return self.hdr is not None or self.primaries == _BT2020


def to_sdr(image: npt.NDArray[np.uint16], colours: Colours) -> npt.NDArray[np.uint8]:
    """RGB uint16 [H, W, 3] as coded to RGB uint8 [H, W, 3] in BT.709 primaries with gamma 2.4.

    HDR without primaries is taken as BT.2020, its only kind.
    """
    light = _light(colours.hdr)[image]
    if colours.primaries != _BT709:
        light = light @ _BT2020_TO_BT709.T
    if colours.hdr is not None:
        light = _rolled_off(light)
    return (np.clip(light, 0, 1) ** (1 / _GAMMA) * 255 + 0.5).astype(np.uint8)


@cache
def _light(hdr: Literal["pq", "hlg"] | None) -> Floats:
    """Light, as a share of white, of each of the 65,536 signals."""
    signal = np.linspace(0, 1, 65_536)
    if hdr is None:
        return (signal**_GAMMA).astype(np.float32)
    nits = _pq_nits(signal) if hdr == "pq" else _hlg_nits(signal)
    return (nits / _WHITE_NITS).astype(np.float32)


def _pq_nits(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _hlg_nits(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    # BT.2100 applies the gamma to the luminance; per channel, as most software does, colours keep their saturation
    return _PEAK_NITS * scene**_HLG_GAMMA


def _rolled_off(light: Floats) -> Floats:
    """Light relative to white into 0 … 1 by its brightest channel, which keeps the hue."""
    peak, room = _PEAK_NITS / _WHITE_NITS, 1 - _KNEE
    brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    above = np.minimum(brightest, peak) - _KNEE
    # from slope 1 at the knee to white at the peak
    squeezed = _KNEE + room * above / (above + room * (1 - above / (peak - _KNEE)))
    return light * np.where(brightest > _KNEE, squeezed / brightest, np.float32(1))
