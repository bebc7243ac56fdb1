"""From videos to model batches: a map-style dataset and one collator for every model.

Shapes: frames uint8 [F,3,S,S] -> pixel_values float32 [B,F,3,S,S] in [-1,1] · waveform int16 [N] ->
log_mel float32 [B,80,T] · text -> input_ids [B,L] left-padded (paper, section 3.1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from coefvq.data.clips import ClipStore
from coefvq.data.media import SAMPLE_RATE, Clip
from coefvq.data.text import TextEncoder
from coefvq.records import VideoInput


def text_of(video: VideoInput) -> str:
    """Title and on-screen text as one string; the separators tell the model which is which."""
    return "\n".join([video.title, *(f"[{sticker}]" for sticker in video.stickers)]).strip()


@dataclass(frozen=True)
class Example:
    """One video ready to be collated; ``label`` is None when it is only scored."""

    clip: Clip
    text: str
    label: int | None


class VideoDataset(Dataset[Example]):
    """Videos with optional labels; decoding goes through the clip store."""

    def __init__(
        self,
        videos: Sequence[VideoInput],
        store: ClipStore,
        labels: Sequence[int] | None = None,
    ) -> None:
        self._videos = list(videos)
        self._store = store
        self._labels = None if labels is None else list(labels)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> Example:
        video = self._videos[index]
        return Example(
            clip=self._store.get(video),
            text=text_of(video),
            label=None if self._labels is None else int(self._labels[index]),
        )


@dataclass(frozen=True)
class Collator:
    """Examples -> one batch of tensors; what a model does not use is left out."""

    text: TextEncoder | None
    visual_tokens: int
    audio_seconds: float | None
    use_text: bool = True

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        batch = {"pixel_values": _pixels(examples)}
        if self.text is not None:
            batch |= self.text.batch([self._text(example) for example in examples], self.visual_tokens)
        if self.audio_seconds is not None:
            batch |= _audio(examples, self.audio_seconds)
        if examples and examples[0].label is not None:
            batch["labels"] = torch.tensor([example.label for example in examples])
        return batch

    def _text(self, example: Example) -> str:
        # without text the MLLM still reads its end token, whose state is H
        return example.text if self.use_text else ""


def _pixels(examples: Sequence[Example]) -> torch.Tensor:
    # SigLIP's normalisation: mean 0.5, std 0.5
    stacked = torch.from_numpy(np.stack([example.clip.frames for example in examples]))
    return stacked.float().div_(127.5).sub_(1.0)


def _audio(examples: Sequence[Example], seconds: float) -> dict[str, torch.Tensor]:
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    samples = round(seconds * SAMPLE_RATE)
    waves = [torch.from_numpy(example.clip.waveform).float() / 32768.0 for example in examples]
    padded = torch.stack([pad_or_trim(wave, samples) for wave in waves])
    present = torch.tensor([bool(wave.numel()) for wave in waves])
    return {"log_mel": log_mel_spectrogram(padded), "has_audio": present}


def steps(total: int, batch_size: int) -> list[tuple[int, int]]:
    """Half-open index ranges of consecutive batches."""
    return [(start, min(start + batch_size, total)) for start in range(0, total, batch_size)]
