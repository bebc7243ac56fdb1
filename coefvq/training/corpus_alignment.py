"""Align the models of a preset on described clips, without any label: what ``coefvq models align`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
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
from coefvq.models.aligned import AlignedNetwork, save_aligned
from coefvq.models.assembly import device
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import text_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig, base_config, mllm_config
from coefvq.models.parts import Preset
from coefvq.models.presets import get_preset
from coefvq.models.vocabulary import text_encoder
from coefvq.records import VideoInput
from coefvq.training.alignment_steps import AlignmentSteps, StepReport
from coefvq.training.arguments import use_bf16
from coefvq.training.distilling import standardise
from coefvq.training.loading import opened
from coefvq.training.loop import seed_everything
from coefvq.training.noise import FeatureNoise
from coefvq.training.objective import CollatedRows
from coefvq.training.settings import ReadingSettings
from coefvq.training.word_alignment import description_words, teach_base

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


@dataclass(frozen=True)
class CorpusRun:
    """What both kinds of model are aligned with; ``origin`` says more about the clips, for the file's header."""

    recipe: Recipe
    corpus: Corpus
    seed: int
    out: Path
    origin: Mapping[str, Any]
    workers: int
    report: StepReport


def align_mllm(run: CorpusRun, settings: Alignment) -> dict[str, Any]:
    """Train projectors and adapters and write their file; returns its facts, with ``sha256`` and ``bytes``.

    Raises:
        DataError: a clip does not decode.
        ModelError: the preset's MLLM cannot describe, or a loss is not finite.
    """
    model = run.recipe.mllm
    bf16, noise = use_bf16(model.training.bf16), FeatureNoise(model.feature_noise, model.feature_dropout)
    definition = _preset(run.recipe, model.preset).definition
    config = mllm_config(_NO_ISSUE, model.model_copy(update={"aligned": False}), run.recipe.media, definition)
    classifier = _fresh(config, run, model.lora.dropout)
    network, text = classifier.network, classifier.text
    if not isinstance(network, MultimodalLLM) or text is None:
        raise ModelError(f"preset {model.preset}: its MLLM cannot describe; choose another")
    curve: list[list[Any]] = []
    passes = settings.projector_epochs + settings.epochs
    with _rows(classifier, run.corpus.videos, passes, run.workers) as inputs:
        descriptions = run.corpus.descriptions
        AlignmentSteps(network, text, inputs, descriptions, settings, run.seed, bf16, noise).run(
            _kept(curve, run.report)
        )
    facts = {
        "alignment": settings.model_dump(),
        "model": model.model_dump(include={"fusion", "pooling", "text", "audio", "motion", "lora"}),
        "noise": asdict(noise),
        "bf16": bf16,
    }
    return _saved(run, model.preset, network, facts, curve)


def align_base(run: CorpusRun, epochs: int, learning_rate: float) -> dict[str, Any]:
    """Train the layers of an attention base and write their file; returns its facts, as ``align_mllm``.

    Raises:
        DataError: a clip does not decode.
        ModelError: the recipe's base is no attention base, or a loss is not finite.
    """
    model = run.recipe.base
    definition = _preset(run.recipe, model.preset).definition
    config = base_config(_NO_ISSUE, model.model_copy(update={"aligned": False}), run.recipe.media, definition)
    classifier = _fresh(config, run, 0.0)
    network, text = classifier.network, classifier.text
    if not isinstance(network, AttentionClassifier) or text is None:
        raise ModelError(f"base.architecture = {model.architecture}: only attention can be aligned; choose it")
    curve: list[list[Any]] = []
    with _rows(classifier, run.corpus.videos, epochs, run.workers) as inputs:
        standardise(network, inputs.dataset, inputs.collator)
        words = description_words(text, run.corpus.descriptions)
        on_epoch = partial(_kept(curve, run.report), "words")
        teach_base(network, inputs, words, epochs, learning_rate, run.seed, on_epoch)
    facts = {
        "alignment": {"epochs": epochs, "learning_rate": learning_rate},
        "model": model.model_dump(include={"audio", "motion", "attention"}),
    }
    return _saved(run, model.preset, network, facts, curve)


def _kept(curve: list[list[Any]], report: StepReport) -> StepReport:
    """Reports, and keeps the losses for the file's header."""

    def on_epoch(step: str, row: dict[str, float]) -> None:
        curve.append([step, row["epoch"], round(row["loss"], 4)])
        report(step, row)

    return on_epoch


def _saved(
    run: CorpusRun, preset: str, network: AlignedNetwork, facts: Mapping[str, Any], curve: list[list[Any]]
) -> dict[str, Any]:
    header = {
        "preset": preset,
        "saw": {**run.origin, "clips": len(run.corpus.videos), "labels": 0, "sha256": run.corpus.sha256},
        "media": run.recipe.media.model_dump(),
        "seed": run.seed,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "losses": curve,
        **facts,
    }
    digest = save_aligned(run.out, network, header)
    return {**header, "sha256": digest, "bytes": run.out.stat().st_size}


def _fresh(config: ModelConfig, run: CorpusRun, lora_dropout: float) -> Classifier:
    """The preset's model as it starts without an aligned file."""
    seed_everything(run.seed)
    classifier = build(config, text_encoder(config, map(text_of, run.corpus.videos)), lora_dropout)
    classifier.network.to(device())
    return classifier


def _preset(recipe: Recipe, name: str) -> Preset:
    return get_preset(name, Path(recipe.models.presets) if Path(recipe.models.presets).is_file() else None)


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
