"""Sections about data: where it is, how it is read, checked and split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from coefvq.config.values import Count, Fraction, IssueName, KeptShare, Positive, Section


class Paths(Section):
    """Where stages read and write, relative to the workspace."""

    raw: str
    media: str | None
    manifest: str
    splits: str
    reference: str
    models: str
    reports: str

    def model_dir(self, kind: Literal["base", "mllm"], issue: str) -> Path:
        """Folder of one trained model."""
        return Path(self.models) / issue / kind

    def run_record(self, kind: Literal["base", "mllm"], issue: str) -> Path:
        """The ids of a training in the tracking store."""
        return Path(self.models) / issue / f"{kind}_run.json"

    def teacher(self, issue: str) -> Path:
        """The table of the MLLM's scores that a base model is distilled from."""
        return Path(self.models) / issue / "teacher.parquet"

    @property
    def train_profile(self) -> Path:
        """What the split's rows to train on look like, in numbers."""
        return Path(self.reports) / "train_profile.json"

    def report(self, issue: str, name: str) -> Path:
        """One report file of an issue."""
        return Path(self.reports) / issue / name


LabelName = Annotated[str, Field(min_length=1, max_length=32)]


class LabelSource(Section):
    """Column of the imported table that holds an issue's label, and which values mean positive."""

    column: str
    positive: tuple[str, ...] | None


class LabelNames(Section):
    """What people call the two answers of an issue; reports use these words."""

    positive: LabelName = "positive"
    negative: LabelName = "negative"


class Runtime(Section):
    """Settings that change speed and nothing else; no DVC stage depends on them.

    Checkpoints of a training: ``save_steps`` are those between the ends of epochs, ``resume_from`` is a folder of
    them in another place than the cache.
    ``loader_workers`` processes make batches for a model that trains or scores; with any, the clips of a training are
    decoded when they are first read. ``auto``: none without a GPU.
    ``features`` says whether outputs of frozen towers are kept (``auto``: where it pays), ``features_gib`` how
    much disk they may take, ``clips_gib`` how much decoded clips may.
    """

    workers: Count
    engine: Literal["local", "ray"]
    loader_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    save_steps: Count | None
    save_total_limit: Count
    resume_from: str | None
    features: Literal["auto", "on", "off"]
    features_gib: Positive
    clips_gib: Positive = 50.0


class Loading(Section):
    """How rows come to the models.

    Clips that no longer decode after ingest are skipped and named; a share above ``max_bad_share`` stops the run.
    ``group_by_length`` puts rows of like length into one training batch.
    """

    max_bad_share: Fraction
    group_by_length: bool


class MediaLimits(Section):
    """What one clip may cost; a clip above a limit is a rejected row, not an error of the run.

    ``megapixels`` is width times height of one frame, ``frames`` the number of packets walked.
    The last three bound a worker process: address space, CPU time and elapsed time per clip.
    """

    megabytes: Positive
    seconds: Positive
    megapixels: Positive
    streams: Count
    frames: Count
    worker_mib: Count
    cpu_seconds: Count
    wall_seconds: Positive


#: words of the manifest that a column of a user's table may hold
COLUMN_WORDS = (
    *("uri", "video_id", "title", "stickers", "creator_id", "source_id"),
    *("published_at", "split", "sha256", "views", "weight", "caption"),
)


def _check_word(word: str) -> str:
    if word in COLUMN_WORDS:
        return word
    raise PydanticCustomError("column_word", "one of {words}", {"words": ", ".join(COLUMN_WORDS)})


ColumnWord = Annotated[str, AfterValidator(_check_word), Field(json_schema_extra={"enum": list(COLUMN_WORDS)})]


class Ingest(Section):
    """Import and probing of the raw clips.

    ``columns`` says which column of the table holds which word of the manifest, where their names differ.
    """

    format: Literal["auto", "videofolder", "csv", "jsonl", "parquet"]
    protocols: tuple[str, ...]
    limits: MediaLimits
    columns: dict[ColumnWord, Annotated[str, Field(min_length=1)]] = Field(default={})
    labels: dict[IssueName, LabelSource]

    @model_validator(mode="after")
    def _one_meaning_per_column(self) -> Self:
        meant: dict[str, str] = {source.column: f"labels.{issue}" for issue, source in self.labels.items()}
        for word, column in self.columns.items():
            if column in meant:
                raise ValueError(
                    f"columns.{word} and {meant[column]} both name column '{column}'; a column has one meaning: "
                    "take one entry out"
                )
            meant[column] = f"columns.{word}"
        return self


class Validate(Section):
    """Expectations the manifest must meet."""

    min_rows: Count
    min_decodable: Fraction
    max_title_chars: Count
    prevalence: dict[IssueName, tuple[Fraction, Fraction]]
    max_psi: Positive | None


class Fractions(Section):
    """Share of each split; they add up to 1."""

    train: Fraction
    val: Fraction
    test: Fraction
    traffic: Fraction
    unlabelled: Fraction = 0.0  # what a distilled base model learns from beside train

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test + self.traffic + self.unlabelled
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + val + test + traffic + unlabelled must be 1, got {total:g}")
        return self


class Negatives(Section):
    """Share of the videos without any positive label that a split keeps, drawn after traffic."""

    train: KeptShare
    val: KeptShare
    test: KeptShare


class Split(Section):
    """Grouped, stratified splitting.

    ``creator``: ``hard`` never puts a creator of ``group_by`` into two splits; ``soft`` does so where sources and
    creators would tie too many videos together, and reports it.
    """

    fractions: Fractions
    order: Literal["random", "time"]
    near_duplicates: Annotated[int, Field(ge=0, le=128)] | None
    negatives: Negatives
    group_by: tuple[Literal["source_id", "creator_id", "sha256"], ...]
    creator: Literal["hard", "soft"] = "hard"
