"""What a report is made from: tables and JSON reports already read, nothing that needs a model or a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coefvq.config import LabelNames

if TYPE_CHECKING:
    import pandas as pd

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """The pair that is served now: its candidate.json, and its scores of the test videos where they were kept."""

    bundle_version: str
    candidate: Json
    scores: pd.DataFrame | None


@dataclass(frozen=True)
class ReportInputs:
    """Everything ``build`` needs.

    ``scores`` has ``records.SCORE_COLUMNS``; ``manifest`` is looked at for titles only; ``gate`` holds the
    checks as dicts (name, passed, explanation), None where no gate was asked. ``served`` is None where
    nothing is served yet, or where the pair served is the very one reported on (``is_served``).
    ``thumbnails`` maps video ids to JPEG bytes. ``words`` name the two answers.
    """

    issue: str
    scores: pd.DataFrame
    evaluation: Json
    thresholds: Json
    candidate: Json | None
    made_at: str
    bundle_version: str | None = None
    manifest: pd.DataFrame | None = None
    gate: Sequence[Json] | None = None
    served: Served | None = None
    is_served: bool = False
    stability: Json | None = None
    calibration: Json | None = None
    splits: Json | None = None
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    words: LabelNames = field(default_factory=LabelNames)
