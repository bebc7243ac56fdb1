"""Videos near the thresholds, scored again in other ways -> stability.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.policy import CascadePolicy
from coefvq.compute.threads import torch_threads
from coefvq.config import Scoring
from coefvq.data.locations import media_root
from coefvq.data.manifest import read_table, to_inputs
from coefvq.data.media.clips import ClipStore, default_cache
from coefvq.data.splits.rows import split_manifest
from coefvq.errors import MediaError
from coefvq.evaluation.stability import Rescored, near_thresholds, stability_report
from coefvq.files import read_json, write_json
from coefvq.inference import Scores, load_for_scoring, score_batches
from coefvq.models.fast.conditions import has_bfloat16
from coefvq.models.memo import Memo
from coefvq.models.shared import TowerPool
from coefvq.records import REQUIRED_SCORE_COLUMNS, VideoInput
from coefvq.registry.bundle import PART_KINDS, PartKind
from coefvq.stages.inputs import StabilityInputs
from coefvq.terminal import say
from coefvq.training.loading import checked
from coefvq.training.settings import ReadingSettings

if TYPE_CHECKING:
    import pandas as pd

    from coefvq.models.classifier import Classifier

_LONG_TITLE = "what a long title this is " * 100


def run(inputs: StabilityInputs) -> None:
    """Score the band again and count who changes sides."""
    issue, paths = inputs.issue, inputs.paths
    scores = read_table(paths.report(issue, "scores.parquet"), REQUIRED_SCORE_COLUMNS)
    path = paths.report(issue, "policy.json")
    policy = CascadePolicy.from_dict(read_json(path), str(path))
    folders = {kind: paths.model_dir(kind, issue) for kind in PART_KINDS}
    report = measure(inputs, policy, scores, folders)
    write_json(paths.report(issue, "stability.json"), {"issue": issue, **report})
    say(f"[{issue}] {report['n']} videos near a threshold: {100 * report['flip_rate']:.2f} % change sides")


def measure(
    inputs: StabilityInputs, policy: CascadePolicy, scores: pd.DataFrame, folders: Mapping[PartKind, Path]
) -> dict[str, Any]:
    """``stability_report`` of a policy on the workspace's clips.

    Args:
        inputs: where the clips are and how they are read and scored.
        policy: the thresholds around which videos are scored again.
        scores: video_id, base and mllm of videos that the manifest has, as these models scored them.
        folders: both models.

    Raises:
        MediaError: too many of the clips no longer decode.
        ModelError: a folder holds no model.
    """
    issue, paths, predict = inputs.issue, inputs.paths, inputs.predict
    manifest = split_manifest(paths).set_index("video_id", drop=False)
    # some traffic is scored by the base model alone, and a video may have left the splits since
    scores = scores.dropna(subset="mllm")
    scores = scores[scores["video_id"].isin(manifest.index)]
    known = scores[["base", "mllm"]].to_numpy(dtype=np.float64)
    band = near_thresholds(policy, known[:, 0], known[:, 1], inputs.stability.videos_per_threshold)
    rows = manifest.loc[scores["video_id"].iloc[band]].reset_index(drop=True)
    videos = to_inputs(rows, media_root(paths), inputs.protocols)
    towers = TowerPool()
    models = _pair(folders, predict, towers)
    # where a processor has to emulate it, nobody serves in half precision
    half = _pair(folders, predict.model_copy(update={"dtype": "bfloat16"}), towers) if has_bfloat16() else None
    with TemporaryDirectory() as folder:
        anew = ClipStore(Path(folder), inputs.media, inputs.reading.limits)
        readable = decodable(inputs.reading, [_of(model, anew) for model in models], videos, issue)
        band = band[readable]
        store, chosen = replace(anew, root=default_cache()), [videos[index] for index in readable]
        ways = _ScoringPath(issue, models, half, store, anew, chosen, predict.batch_size, towers.memo)
        variants = list(ways.variants(inputs.seed))
    return stability_report(policy, known[band, 0], known[band, 1], variants, len(scores))


def _of(model: Classifier, store: ClipStore) -> ClipStore:
    """The store as the model sees clips; an approximation may see fewer frames than were trained on."""
    return replace(store, spec=model.config.media)


def decodable(
    reading: ReadingSettings, stores: Sequence[ClipStore], videos: Sequence[VideoInput], issue: str
) -> list[int]:
    """Decode the band for all models, within limits; which clips still decode, the others are named."""
    failed: dict[int, MediaError] = {}
    for store in stores:
        failed |= store.try_fill(videos, reading.runtime.workers)
    named = {videos[at].video_id: str(error) for at, error in failed.items()}
    checked(named, len(videos), reading.loading.max_bad_share, f"{issue} stability")
    return [at for at in range(len(videos)) if at not in failed]


def _pair(folders: Mapping[PartKind, Path], scoring: Scoring, towers: TowerPool) -> tuple[Classifier, ...]:
    """Base model and MLLM as they are served, with the towers that both have."""
    return tuple(load_for_scoring(folders[kind], scoring, towers) for kind in PART_KINDS)


@dataclass(frozen=True)
class _ScoringPath:
    """Both models and the videos of the band; each method call scores all of them.

    ``anew`` holds the same clips as ``store``, decoded just now; ``memo`` is of the towers that both models have.
    """

    issue: str
    models: tuple[Classifier, ...]
    in_half: tuple[Classifier, ...] | None
    store: ClipStore
    anew: ClipStore
    videos: Sequence[VideoInput]
    batch_size: int
    memo: Memo

    def variants(self, seed: int) -> Iterator[Rescored]:
        """The ways in which serving may score a video, and half precision, if the processor has it, unasked for."""
        order = np.random.default_rng(seed).permutation(len(self.videos))
        yield self._made("batches of 1", True, self._scores(self.models, batch_size=1))
        yield self._made("other neighbours", True, self._scores(self.models, order, batch_size=7))
        yield self._made("padded by a long text", True, self._scores(self.models, padding=True))
        with torch_threads(1):
            yield self._made("one thread", True, self._scores(self.models))
        yield self._made("decoded anew", True, self._scores(self.models, store=self.anew))
        if self.in_half is not None:
            yield self._made("bfloat16", False, self._scores(self.in_half))

    @staticmethod
    def _made(name: str, gated: bool, scores: list[Scores]) -> Rescored:
        return Rescored(name, gated, *scores)

    def _scores(
        self,
        models: Sequence[Classifier],
        order: Any = None,
        batch_size: int | None = None,
        padding: bool = False,
        store: ClipStore | None = None,
    ) -> list[Scores]:
        order = np.arange(len(self.videos)) if order is None else order
        size = batch_size or self.batch_size
        scores_by_model = [np.zeros(len(order)) for _ in models]
        for start in range(0, len(order), size):
            part = order[start : start + size]
            batch = [self.videos[i] for i in part]
            # a neighbour with a long text makes every row of the batch be padded
            batch += [replace(batch[0], title=_LONG_TITLE)] if padding else []
            with self.memo.group():
                for model, scores in zip(models, scores_by_model, strict=True):
                    clips = _of(model, store or self.store)
                    scores[part] = score_batches(model, batch, clips, len(batch), issue=self.issue)[: len(part)]
        return scores_by_model
