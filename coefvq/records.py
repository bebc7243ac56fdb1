"""The words of the system as types: manifest columns, one video, one scored video.

Everything here is plain data; the manifest's contract is in docs/data.md. Videos and scores are made once per event of
a stream: they have slots and are not frozen, since a frozen dataclass takes five times as long to make. Change none
(a video is a key of dictionaries too); ``dataclasses.replace`` makes another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SPLITS = ("train", "val", "test", "traffic", "unlabelled")
SplitName = Literal["train", "val", "test", "traffic", "unlabelled"]
#: the split that a distilled base model learns from beside train; the only one that may be empty
UNLABELLED: SplitName = "unlabelled"
#: splits whose labels are looked at
LABELLED_SPLITS = ("train", "val", "test")

# why a clip was rejected at ingest: a closed list, so that dashboards can count it
REASONS = (
    "ok",
    "missing",
    "outside_root",
    "unreachable",
    "changed",
    "empty",
    "no_video",
    "undecodable",
    "unsupported",
    "truncated",
    "too_large",
    "too_long",
    "too_many_pixels",
    "too_many_streams",
    "too_many_frames",
    "timeout",
    "out_of_memory",
    "crashed",
)

#: a short description of what a clip shows, for the alignment warm-up; a manifest may have it
CAPTION = "caption"

#: columns every manifest has, in order; ``LATER_COLUMNS``, ``label_<issue>``, ``posterior_<issue>`` and
#: ``caption`` may follow
MANIFEST_COLUMNS = (
    "video_id",
    "uri",
    "sha256",
    "title",
    "stickers",
    "published_at",
    "creator_id",
    "source_id",
    "views",
    "weight",
    "split",
    "decode_ok",
    "reason",
    "size_bytes",
    "phash",
    "duration_s",
    "fps",
    "width",
    "height",
    "has_audio",
)
#: columns that ``ingest`` writes beside those, and that manifests of earlier versions lack
LATER_COLUMNS = ("audio_ok", "hdr")

#: columns of scores.parquet that every evaluation needs
REQUIRED_SCORE_COLUMNS = ("video_id", "split", "label", "weight", "views", "posterior", "base", "mllm")
#: yardsticks beside the models: Bayes scores of partial views, and the container facts alone
OPTIONAL_SCORE_COLUMNS = ("posterior_vision", "posterior_vision_text", "shortcut")
#: columns of scores.parquet, the output of ``predict``; tables written before a yardstick existed lack it
SCORE_COLUMNS = (*REQUIRED_SCORE_COLUMNS, *OPTIONAL_SCORE_COLUMNS)


def label_column(issue: str) -> str:
    """Manifest column that holds the nullable 0/1 label of ``issue``."""
    return f"label_{issue}"


def posterior_column(issue: str) -> str:
    """Manifest column that holds P(label | factors) where the world is synthetic."""
    return f"posterior_{issue}"


@dataclass(slots=True, unsafe_hash=True)
class VideoInput:
    """One video as the models take it: a file and the text that came with it.

    ``url`` is set where the clip lies in a remote store; ``path`` is then where its copy will be. ``refusal`` says
    why the clip must not be opened; ``path`` then leads nowhere. Give ``file`` as a text or a path.
    """

    video_id: str
    file: str | Path
    title: str = ""
    stickers: tuple[str, ...] = ()
    views: int | None = None
    sha256: str | None = None
    url: str | None = None
    refusal: str | None = None

    @property
    def path(self) -> Path:
        """Where the clip lies; a path is made only where somebody opens it."""
        return Path(self.file)


@dataclass(slots=True)
class ScoredVideo:
    """The cascade's answer about one video.

    ``base_score`` and ``mllm_score`` are probabilities of the positive class in [0, 1];
    ``mllm_score`` is None where the policy did not escalate. ``decided_by`` names the stage whose
    answer counted. ``error`` is set, and both scores are None, where the clip could not be scored.
    ``audit_probability`` is set where the policy filtered the video out while an audit ran: the probability with
    which it was to be escalated anyway. If ``mllm_score`` is there too, it was.
    ``degraded`` is set where the MLLM was down, or had no time, and a rule of the policy stood in for its answer.
    ``awaits`` is set where only the base model was asked so far: ``mllm`` for the decision, ``audit`` for the audit
    alone. ``drawn`` says that the audit drew the video.
    """

    video_id: str
    issue: str
    base_score: float | None
    mllm_score: float | None
    positive: bool | None
    decided_by: Literal["base", "mllm", "none"]
    bundle_version: str
    error: str | None = None
    audit_probability: float | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    degraded: bool = False
    awaits: Literal["mllm", "audit"] | None = None
    drawn: bool = False
