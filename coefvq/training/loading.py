"""What a training or scoring run reads: datasets from cached features where that pays, from clips elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coefvq.config import Runtime
from coefvq.data.media.claims import fill_together
from coefvq.data.media.clip_room import GIB
from coefvq.data.media.clips import ClipStore, default_cache
from coefvq.errors import DataError
from coefvq.files import storage_errors
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import Collator, Label, VideoDataset, text_of
from coefvq.models.frozen import FrozenPart
from coefvq.records import VideoInput
from coefvq.terminal import progress, say
from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.cost import CachePlan, Mode, choose, free_bytes, measure
from coefvq.training.features.keys import cached_model
from coefvq.training.features.reader import FeatureReader, feature_collator, reader
from coefvq.training.features.store import FeatureStore
from coefvq.training.ranks import from_first, rank
from coefvq.training.settings import ReadingSettings

Tokens = NDArray[np.int64]
_NAMED = 5  # bad clips spelled out in a message


@dataclass(frozen=True)
class ReadableVideos:
    """Datasets of the videos that could be read, and the collator they need; ``skipped`` says why others could not.

    The collator leaves normalisation and log-mel to ``models.dataset.ready``. Clips of ``later`` are decoded when they
    are first read. ``tokens`` of each video's text were counted for all videos, in the order they were asked for.
    """

    clips: ClipStore
    collator: Collator
    features: FeatureReader | None = None
    reads_clips: bool = True
    skipped: Mapping[str, str] = field(default_factory=dict)
    later: frozenset[str] = frozenset()
    tokens: Tokens | None = None

    def lengths(self, rows: Sequence[int]) -> list[int]:
        """How long the rows of some of the videos that were asked for are, up to a constant."""
        if self.tokens is None or not self.collator.groups_by_text:
            return [1] * len(rows)
        return self.tokens[rows].tolist()  # type: ignore[no-any-return]

    def readable(self, videos: Sequence[VideoInput]) -> list[int]:
        """Indices of the videos that can be read."""
        return [at for at, video in enumerate(videos) if video.video_id not in self.skipped]

    def unread(self, videos: Sequence[VideoInput]) -> int:
        """How many of those that were left for later the store has no clip of, after all of them were read."""
        return sum(video.video_id in self.later and not self.clips.holds(self.clips.hashed(video)) for video in videos)

    def dataset(self, videos: Sequence[VideoInput], labels: Sequence[Label] | None = None) -> VideoDataset:
        """The readable ones of ``videos`` with their labels."""
        rows = self.readable(videos)
        return VideoDataset(
            [videos[at] for at in rows],
            self.clips,
            None if labels is None else [labels[at] for at in rows],
            self.features,
            self.reads_clips,
        )


def feature_store(runtime: Runtime) -> FeatureStore:
    """The store beside the clips, bounded by ``runtime.features_gib``."""
    return FeatureStore(default_cache() / "features", round(runtime.features_gib * 2**30))


def clip_store(reading: ReadingSettings, classifier: Classifier) -> ClipStore:
    """Decoded clips as the classifier sees them, within the limits of ingest and of ``runtime.clips_gib``."""
    max_bytes = round(reading.runtime.clips_gib * GIB)
    return ClipStore(default_cache(), classifier.config.media, reading.limits, max_bytes)


@contextmanager
def opened(
    reading: ReadingSettings,
    classifier: Classifier,
    videos: Sequence[VideoInput],
    passes: float,
    title: str,
    later: Sequence[VideoInput] = (),
) -> Iterator[ReadableVideos]:
    """Decode, and compute features where ``runtime.features`` says so; ``passes`` is how often each video is read.

    Clips of ``later`` are left to whoever reads them first, where no features are computed.
    What is used of the cache is safe from eviction until the block ends.

    Raises:
        DataError: more clips than ``loading.max_bad_share`` cannot be read.
        StorageError: the disk is full.
    """
    clips, model, runtime = clip_store(reading, classifier), cached_model(classifier), reading.runtime
    tokens = _tokens(classifier, videos, title)
    if not model.parts or runtime.features == "off":
        reason = "off by runtime.features" if model.parts else "off, nothing in this model is frozen"
        say(f"features [{title}]: {reason}")
        yield replace(_from_clips(reading, clips, model.collator, videos, title, later), tokens=tokens)
        return
    store = feature_store(runtime)
    with store.lease() as lease:
        builder = FeatureBuilder(model, store, clips, lease, runtime.workers)
        if parts := _decided(builder, videos, passes, runtime.features, title):
            found = _from_features(reading, replace(builder, model=replace(model, parts=parts)), videos, title)
        else:
            found = _from_clips(reading, clips, model.collator, videos, title, later)
        yield replace(found, tokens=tokens)


def _tokens(classifier: Classifier, videos: Sequence[VideoInput], title: str) -> Tokens | None:
    """Tokens of each video's text; says how many texts are cut."""
    if (text := classifier.text) is None:
        return None
    counts = np.fromiter(text.counts([text_of(video) for video in videos]), np.int64, len(videos))
    if cut := int((counts > text.max_tokens).sum()):
        say(f"texts [{title}]: {cut} of {len(videos)} are longer than {text.max_tokens} tokens and are cut")
    return np.minimum(counts, text.max_tokens)


def _decided(
    builder: FeatureBuilder,
    videos: Sequence[VideoInput],
    passes: float,
    features: Mode,
    title: str,
) -> tuple[FrozenPart, ...]:
    """The parts that are kept, as rank 0 decides for all: ranks that measured for themselves could differ."""
    parts, mask = builder.model.parts, 0
    if rank() == 0:
        chosen, reason = decide(builder, videos, passes, features)
        say(f"features [{title}]: {reason}")
        mask = sum(1 << at for at, part in enumerate(parts) if part.name in chosen)
    mask = from_first(mask, builder.model.device)
    return tuple(part for at, part in enumerate(parts) if mask >> at & 1)


def decide(
    builder: FeatureBuilder, videos: Sequence[VideoInput], passes: float, features: Mode
) -> tuple[frozenset[str], str]:
    """The parts whose cache pays, measured on a few videos, and why in one line; ``on`` and ``off`` are obeyed."""
    store, model, index = builder.store, builder.model, builder.lookup(videos)
    missing = [video for video, _ in builder.missing(videos, index)]
    every = frozenset(part.name for part in model.parts)
    if not missing:
        return (every if features != "off" else frozenset()), f"on: all {len(videos)} videos are there"
    with storage_errors(store.root, "free some space or set runtime.features: off"):
        store.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".measure-", dir=store.root) as scratch:
            costs = measure(model, missing, builder.clips, Path(scratch))
    if costs is None:
        return frozenset(), "off, the first clips do not decode"
    free = free_bytes(store.root, store.max_bytes, store.size())
    plans = {}
    for part in model.parts:
        lacking = len({entry for video in videos if (entry := model.entry(part, video)) not in index[part.name]})
        plans[part.name] = CachePlan(len(videos), lacking, passes, costs[part.name], free)
    return choose(plans, features)


def decoded(
    reading: ReadingSettings, classifier: Classifier, videos: Sequence[VideoInput], title: str
) -> ReadableVideos:
    """As ``opened`` without features: for a model that sees other clips than the one that was trained.

    Raises:
        DataError: more clips than ``loading.max_bad_share`` cannot be read.
        StorageError: the disk is full.
    """
    return _from_clips(reading, clip_store(reading, classifier), classifier.collator, videos, title)


def _from_clips(
    reading: ReadingSettings,
    clips: ClipStore,
    collator: Collator,
    videos: Sequence[VideoInput],
    title: str,
    later: Sequence[VideoInput] = (),
) -> ReadableVideos:
    left = frozenset(video.video_id for video in later)
    now = [video for video in videos if video.video_id not in left]
    with progress(f"decoding [{title}]", len(now)) as advance:
        failed = fill_together(clips, now, reading.runtime.workers, advance)
    skipped = {now[at].video_id: str(error) for at, error in failed.items()}
    checked(skipped, len(videos), reading.loading.max_bad_share, title)
    return ReadableVideos(clips, replace(collator, raw=True), skipped=skipped, later=left)


def _from_features(
    reading: ReadingSettings, builder: FeatureBuilder, videos: Sequence[VideoInput], title: str
) -> ReadableVideos:
    with progress(f"features [{title}]", len(videos)) as advance:
        built = builder.build(videos, advance)
    features, there = reader(builder.model, built.index, videos)
    failed = {name: str(error) for name, error in built.skipped.items()}
    missing = [video.video_id for video, is_there in zip(videos, there, strict=True) if not is_there]
    skipped = {name: failed.get(name, f"{name}: its clip does not decode") for name in missing}
    return ReadableVideos(
        builder.clips,
        replace(feature_collator(builder.model), raw=True),
        features,
        builder.model.reads_clips,
        checked(skipped, len(videos), reading.loading.max_bad_share, title),
    )


def checked(skipped: dict[str, str], total: int, max_bad_share: float, title: str) -> dict[str, str]:
    """Print the skipped videos by name.

    Raises:
        DataError: the share is above the limit.
    """
    if not skipped:
        return skipped
    named = "; ".join(list(skipped.values())[:_NAMED])
    more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    story = f"{len(skipped)} of {total} clips cannot be read: {named}{more}"
    if len(skipped) > max_bad_share * total:
        raise DataError(f"{story}; more than loading.max_bad_share ({max_bad_share:g}): run ingest again or raise it")
    say(f"skipped [{title}]: {story}")
    return skipped
