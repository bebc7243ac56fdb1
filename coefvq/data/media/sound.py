"""The sound of a clip as int16 mono 16 kHz."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coefvq.config import MediaLimits
from coefvq.data.media.container import opened, sound_packets
from coefvq.data.media.streams import decode_or_none, is_sane_rate

if TYPE_CHECKING:
    from av import AudioFrame

SAMPLE_RATE = 16_000
Samples = npt.NDArray[np.int16]


def read_sound(path: Path, seconds: float, limits: MediaLimits) -> Samples:
    """First ``seconds`` of a clip's sound, int16 [N] mono 16 kHz; [0] where there is none that can be read.

    A packet that does not decode is left out, as players do. If that is half of them or more, nothing is heard.

    Raises:
        MediaError: the clip does not open, or its sound is above a limit.
    """
    wanted, mixer = round(seconds * SAMPLE_RATE), _Mixer()
    heard = lost = 0
    with opened(path, limits) as clip:
        stream = clip.choose_sound()
        if stream is None:
            return np.zeros(0, np.int16)
        for packet in chain(sound_packets(clip, stream), [None]):
            frames = decode_or_none(stream.codec_context, packet)
            if frames is None:
                lost += 1
                continue
            for frame in frames:
                mixer.add(frame)
                heard += 1
            if mixer.samples >= wanted:
                break
        return mixer.rest()[:wanted] if heard > lost else np.zeros(0, np.int16)


class _Mixer:
    """Resamples frames to mono 16 kHz, whatever each one's layout, rate and format."""

    def __init__(self) -> None:
        self.samples = 0
        self._pieces: list[Samples] = []
        self._resampler: Any = None
        self._kind: tuple[str, str, int] | None = None

    def add(self, frame: AudioFrame) -> None:
        """Take a frame; one whose parameters differ from the last one's gets a resampler of its own."""
        import av

        if not is_sane_rate(frame.sample_rate):
            raise ValueError(f"sound at {frame.sample_rate} Hz")
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._flush()
            self._resampler, self._kind = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE), kind
        self._push(self._resampler, frame)

    def rest(self) -> Samples:
        """All samples, those that the resampler still holds included."""
        self._flush()
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._push(self._resampler, None)
            self._resampler = None

    def _push(self, resampler: Any, frame: AudioFrame | None) -> None:
        for piece in resampler.resample(frame):
            self._pieces.append(piece.to_ndarray().reshape(-1))
            self.samples += self._pieces[-1].size
