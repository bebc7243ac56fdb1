"""From videos to model batches: a map-style dataset and one collator for every model.

Shapes: frames uint8 [F,3,S,S] -> pixel_values float32 [B,F,3,S,S] in [-1,1] · waveform int16 [N] ->
log_mel float32 [B,80,T] · text -> input_ids [B,L] left-padded (paper, section 3.1.2).

Frames and sound may travel to the model's device as they were decoded (``Collator.raw``); ``ready`` then computes
there what the networks read: a quarter of the bytes on the way, and no floats made by loader processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import SAMPLE_RATE, Clip
from coefvq.models.audio import without_autocast
from coefvq.models.text import STICKER, TextEncoder
from coefvq.records import VideoInput

#: 0 or 1 of one issue, or of each of several; -100 where an issue has none
Label = int | tuple[int, ...]


def text_of(video: VideoInput) -> str:
    """Title and on-screen text as one string; the separators tell the model which is which."""
    return "".join([video.title, *(f"{STICKER}{sticker}]" for sticker in video.stickers)]).strip()


@dataclass(frozen=True)
class Example:
    """One video ready to be collated; ``label`` is one per issue where there are several, None when only scored.

    ``features`` are outputs of frozen parts of the model, by name, each without the batch dimension; ``clip`` may
    be None where they stand in for it.
    """

    clip: Clip | None
    text: str
    label: Label | None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)


#: features of one video by name, as a cache has them
FeatureLookup = Callable[[VideoInput], Mapping[str, torch.Tensor]]


class VideoDataset(Dataset[Example]):
    """Videos with optional labels; decoding goes through the clip store.

    With ``features`` the outputs of frozen parts come from a cache, and no clip is read unless ``reads_clips``.
    """

    def __init__(
        self,
        videos: Sequence[VideoInput],
        store: ClipStore,
        labels: Sequence[Label] | None = None,
        features: FeatureLookup | None = None,
        reads_clips: bool = True,
    ) -> None:
        self._videos = list(videos)
        self._store = store
        self._labels = None if labels is None else list(labels)
        self._features, self._reads_clips = features, reads_clips or features is None

    @property
    def texts(self) -> list[str]:
        """Text of each video, in order."""
        return [text_of(video) for video in self._videos]

    @property
    def video_ids(self) -> list[str]:
        """Which video each row is."""
        return [video.video_id for video in self._videos]

    @property
    def labels(self) -> list[Label] | None:
        """Labels as given: one per video, or one per video and issue."""
        return self._labels

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> Example:
        video = self._videos[index]
        return Example(
            clip=self._store.get(video) if self._reads_clips else None,
            text=text_of(video),
            label=None if self._labels is None else self._labels[index],
            features={} if self._features is None else self._features(video),
        )


@dataclass(frozen=True)
class Collator:
    """Examples -> one batch of tensors, with only the inputs that the model uses.

    ``replaced`` names the inputs in whose place the examples carry features. With ``raw`` frames and sound stay
    integers (``frames`` uint8 [B,F,3,S,S], ``waveform`` int16 [B,N]), for ``ready`` on the model's device.
    """

    text: TextEncoder | None
    visual_tokens: int
    audio_seconds: float | None
    use_text: bool = True
    replaced: frozenset[str] = frozenset()
    raw: bool = False

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = {}
        if "pixel_values" not in self.replaced:
            batch["frames"] = torch.from_numpy(np.stack([clip.frames for clip in _clips(examples)]))
        if self.text is not None and "input_ids" not in self.replaced:
            batch |= self.text.batch([self._text(example.text) for example in examples], self.visual_tokens)
        if self.audio_seconds is not None and "log_mel" not in self.replaced:
            batch |= _audio(examples, self.audio_seconds)
        for name in examples[0].features if examples else ():
            batch[name] = torch.stack([example.features[name] for example in examples])
        if examples and examples[0].label is not None:
            batch["labels"] = torch.tensor([example.label for example in examples])
        return batch if self.raw else ready(batch)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text's row in a batch, for samplers that put rows of like length together."""
        if self.text is None or not self.groups_by_text:
            return [1] * len(texts)
        return self.text.lengths([self._text(text) for text in texts], self.visual_tokens)

    @property
    def groups_by_text(self) -> bool:
        """Whether texts make rows of different length."""
        return self.text is not None and self.use_text and "input_ids" not in self.replaced

    def _text(self, text: str) -> str:
        # without text the MLLM still reads its end token, whose state is H
        return text if self.use_text else ""


def _clips(examples: Sequence[Example]) -> list[Clip]:
    clips = [example.clip for example in examples if example.clip is not None]
    if len(clips) != len(examples):
        raise TypeError("an example without a clip needs features in its place: Collator(replaced=...)")
    return clips


def _audio(examples: Sequence[Example], seconds: float) -> dict[str, torch.Tensor]:
    from whisper.audio import pad_or_trim

    samples = round(seconds * SAMPLE_RATE)
    waves = [torch.from_numpy(clip.waveform) for clip in _clips(examples)]
    present = torch.tensor([bool(wave.numel()) for wave in waves])
    return {"waveform": torch.stack([pad_or_trim(wave, samples) for wave in waves]), "has_audio": present}


def ready(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What networks read of a batch: decoded frames and sound become pixel_values and log_mel, on their device.

    The rest, and a batch that is ready, stays as it is.
    """
    inputs = dict(batch)
    with torch.no_grad():
        if (frames := inputs.pop("frames", None)) is not None:
            # SigLIP's normalisation: mean 0.5, std 0.5
            inputs["pixel_values"] = frames.float().div_(127.5).sub_(1.0)
        if (waveform := inputs.pop("waveform", None)) is not None:
            inputs["log_mel"] = _log_mel(waveform)
    return inputs


def _log_mel(waveform: torch.Tensor) -> torch.Tensor:
    """int16 [B,N] -> Whisper's log-mel spectrogram [B,80,T], float32."""
    from whisper.audio import log_mel_spectrogram

    # one by one: the function cuts 80 dB below the loudest value of all it is given, and a clip's features
    # must not depend on its neighbours in the batch
    with without_autocast(waveform.device.type):
        return torch.stack([log_mel_spectrogram(wave) for wave in waveform.float() / 32768.0])
