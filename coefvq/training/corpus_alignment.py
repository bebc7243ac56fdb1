"""Align the parts of a preset on described clips, without any label: what ``coefvq models align`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coefvq.config import Alignment, Loading, Recipe, Runtime
from coefvq.data.descriptions import read_descriptions
from coefvq.data.importers import import_table
from coefvq.data.manifest import to_inputs
from coefvq.data.media.clips import ClipStore, default_cache
from coefvq.data.media.limits import kept_limits
from coefvq.errors import DataError, ModelError
from coefvq.files import sha256_json
from coefvq.models.aligned import save_aligned
from coefvq.models.assembly import device
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import text_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import mllm_config
from coefvq.models.presets import get_preset
from coefvq.models.vocabulary import text_encoder
from coefvq.records import VideoInput
from coefvq.training.alignment_steps import AlignmentSteps, StepReport
from coefvq.training.arguments import use_bf16
from coefvq.training.loading import opened
from coefvq.training.loop import seed_everything
from coefvq.training.noise import FeatureNoise
from coefvq.training.objective import CollatedRows
from coefvq.training.settings import ReadingSettings

_LIBRARIES = ("coefvq", "torch", "transformers", "peft")
_NO_ISSUE = "none"


@dataclass(frozen=True)
class Corpus:
    """Clips that have descriptions, and these."""

    videos: list[VideoInput]
    descriptions: list[tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Over the hash of each clip, its text and its descriptions."""
        rows = zip(self.videos, self.descriptions, strict=True)
        return sha256_json([[video.sha256, text_of(video), *options] for video, options in rows])


def read_corpus(data: Path, recipe: Recipe) -> Corpus:
    """The described clips of a folder or table; no label is read.

    Raises:
        DataError: the table does not fit, or no clip has a description.
        MediaError: a clip is not there.
    """
    table = import_table(data)
    videos = to_inputs(table.frame.assign(sha256=None), table.root, ())
    options = read_descriptions(table.frame, data)
    described = [row for row, texts in enumerate(options) if any(texts)]
    if not described:
        raise DataError(
            f"{data}: no clip has a description; add a column `caption`, or descriptions.jsonl beside the table"
        )
    clips = ClipStore(default_cache(), recipe.media, kept_limits(None))
    return Corpus([clips.hashed(videos[row]) for row in described], [options[row] for row in described])


def align_corpus(
    recipe: Recipe,
    corpus: Corpus,
    settings: Alignment,
    seed: int,
    out: Path,
    origin: Mapping[str, Any],
    workers: int,
    report: StepReport,
) -> dict[str, Any]:
    """Train on the corpus and write the aligned file; returns its facts, with ``sha256`` and ``bytes``.

    ``origin`` says more about the clips, for the file's header.

    Raises:
        DataError: a clip does not decode.
        ModelError: the preset's MLLM cannot describe, or a loss is not finite.
    """
    classifier, bf16 = _fresh(recipe, corpus, seed), use_bf16(recipe.mllm.training.bf16)
    network, text = classifier.network, classifier.text
    noise = FeatureNoise(recipe.mllm.feature_noise, recipe.mllm.feature_dropout)
    if not isinstance(network, MultimodalLLM) or text is None:
        raise ModelError(f"preset {recipe.mllm.preset}: its MLLM cannot describe; choose another")
    curve: list[list[Any]] = []

    def on_epoch(step: str, row: dict[str, float]) -> None:
        curve.append([step, row["epoch"], round(row["loss"], 4)])
        report(step, row)

    passes = settings.projector_epochs + settings.epochs
    with _rows(classifier, corpus.videos, passes, workers) as inputs:
        AlignmentSteps(network, text, inputs, corpus.descriptions, settings, seed, bf16, noise).run(on_epoch)
    facts = {
        "preset": recipe.mllm.preset,
        "saw": {**origin, "clips": len(corpus.videos), "labels": 0, "sha256": corpus.sha256},
        "alignment": settings.model_dump(),
        "model": recipe.mllm.model_dump(include={"fusion", "pooling", "text", "audio", "motion", "lora"}),
        "media": recipe.media.model_dump(),
        "noise": asdict(noise),
        "seed": seed,
        "bf16": bf16,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "losses": curve,
    }
    digest = save_aligned(out, network, facts)
    return {**facts, "sha256": digest, "bytes": out.stat().st_size}


def _fresh(recipe: Recipe, corpus: Corpus, seed: int) -> Classifier:
    """The preset's MLLM as it starts without an aligned file."""
    seed_everything(seed)
    settings = recipe.mllm.model_copy(update={"aligned": False})
    preset = get_preset(settings.preset, Path(recipe.models.presets) if Path(recipe.models.presets).is_file() else None)
    config = mllm_config(_NO_ISSUE, settings, recipe.media, preset.definition)
    classifier = build(config, text_encoder(config, map(text_of, corpus.videos)), settings.lora.dropout)
    classifier.network.to(device())
    return classifier


@contextmanager
def _rows(classifier: Classifier, videos: list[VideoInput], passes: int, workers: int) -> Iterator[CollatedRows]:
    """Rows of the corpus, with what the frozen towers say of each clip from the cache.

    Raises:
        DataError: a clip cannot be read; a file whose header counts its clips must have seen all of them.
    """
    with opened(_reading(workers), classifier, videos, passes, "alignment") as source:
        for reason in source.skipped.values():
            raise DataError(f"{len(source.skipped)} clips cannot be read, first: {reason}; mend them or take them out")
        where = next(classifier.network.parameters()).device
        yield CollatedRows(source.dataset(videos), source.collator, where)


def _reading(workers: int) -> ReadingSettings:
    """As in a workspace, except that nothing is evicted from the cache and that the caller refuses bad clips."""
    runtime = Runtime(
        workers=workers,
        engine="local",
        save_steps=None,
        save_total_limit=1,
        resume_from=None,
        features="on",
        features_gib=1024.0,
        clips_gib=1024.0,
    )
    loading = Loading(max_bad_share=1.0, group_by_length=False)
    return ReadingSettings(limits=kept_limits(None), loading=loading, runtime=runtime)
