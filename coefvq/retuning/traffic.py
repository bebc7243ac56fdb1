"""Scored traffic as one table, from the index of the VMP or from a file.

Columns: ``video_id``; ``base`` and ``mllm``, probabilities (``mllm`` NaN where the MLLM was not asked); ``views``, NaN
where unknown; ``kind`` of ``vmp.audit.kind_of``, which says how a video came to the MLLM, None in a file;
``audit_probability``, NaN where no audit ran; ``bundle``, the pair that scored the video, None where not said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.data.importers import values
from coefvq.data.importers.columns import Expected
from coefvq.data.importers.tables import read_cells
from coefvq.errors import DataError
from coefvq.retuning.settings import RetuneRequest
from coefvq.vmp.audit import kind_of
from coefvq.vmp.keys import split
from coefvq.vmp.state import open_state

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("video_id", "base", "mllm", "views", "kind", "audit_probability", "bundle")
#: a file may use the names of scores.parquet or those of `coefvq score --json`
_SYNONYMS = {"base": ("base", "base_score"), "mllm": ("mllm", "mllm_score")}
_READ = frozenset(
    {"video_id", "views", "split", "issue", "bundle_version", "audit_probability", "error"}
    | {name for names in _SYNONYMS.values() for name in names}
)


@dataclass(frozen=True)
class ScoredTraffic:
    """Rows with scores, and the ids of videos that could not be scored or that other models scored.

    ``source`` is what messages call the place of the scores.
    """

    source: str
    frame: pd.DataFrame
    failed: frozenset[str] = frozenset()
    other_models: frozenset[str] = frozenset()

    def scored_by(self, bundles: Iterable[str]) -> ScoredTraffic:
        """Only rows of these bundles, and those that do not say which pair scored them."""
        mine = self.frame["bundle"].isna() | self.frame["bundle"].isin(list(bundles))
        others = frozenset(self.frame.loc[~mine, "video_id"])
        return replace(self, frame=self.frame[mine].reset_index(drop=True), other_models=others)


def read_traffic(issue: str, request: RetuneRequest) -> ScoredTraffic:
    """The table of a request, or the videos of its tenant in the index of its state, named by their ids alone.

    Raises:
        DataError: there is no such state, or the table does not fit.
    """
    if request.scores is not None:
        return from_table(request.scores, issue)
    with open_state(request.state, create=False) as (_, index):
        scores = index.scores(issue, tenant=request.tenant)
        return from_index(str(request.state), ((split(key)[1], score) for key, score in scores))


def from_index(source: str, scores: Iterable[tuple[str, Mapping[str, Any]]]) -> ScoredTraffic:
    """Rows of one issue as ``IndexStore.scores`` gives them.

    Raises:
        DataError: there is no scored video, or a score is no probability.
    """
    rows, failed = [], set()
    for video_id, score in scores:
        kind = kind_of(score)
        if kind is None:
            failed.add(video_id)
            continue
        place = f"{source} entry {video_id}"
        rows.append(
            {
                "video_id": video_id,
                "base": _probability(place, "base_score", score.get("base_score"), required=True),
                "mllm": _probability(place, "mllm_score", score.get("mllm_score")),
                "views": math.nan,
                "kind": kind,
                "audit_probability": _probability(place, "audit_probability", score.get("audit_probability")),
                "bundle": score.get("bundle_version"),
            }
        )
    return _traffic(source, rows, failed, "publish videos and run the stream: coefvq vmp run --audit-rate 0.02")


def from_table(path: Path, issue: str) -> ScoredTraffic:
    """Rows of a .csv, .tsv, .jsonl or .parquet table, such as scores.parquet or the lines of ``coefvq score --json``.

    Of a table with a column ``split`` only traffic is taken, and with a column ``issue`` only that issue.

    Raises:
        DataError: not such a table, there is no scored video, a score is no probability, or an id without or with
            two rows.
    """
    rows, failed, first = [], set(), dict[str, int]()
    table = read_cells(path, Expected(_READ))
    for number, row in table.rows:
        place = f"{path} row {number}"
        if not _wanted(place, row, issue):
            continue
        video_id = values.text(place, "video_id", row.get("video_id"))
        if video_id is None:
            raise DataError(f"{place}: no video_id; give it one or delete the row")
        if first.setdefault(video_id, number) != number:
            raise DataError(f"{place}: id {video_id} comes again (first in row {first[video_id]}); keep one row")
        if values.text(place, "error", row.get("error")) is not None:
            failed.add(video_id)
            continue
        rows.append(_row(place, video_id, row, table.decimal_comma))
    return _traffic(str(path), rows, failed, "score videos first: coefvq score --json")


def _wanted(place: str, row: Mapping[str, Any], issue: str) -> bool:
    split, about = (values.text(place, name, row.get(name)) for name in ("split", "issue"))
    return split in (None, "traffic") and about in (None, issue)


def _row(place: str, video_id: str, row: Mapping[str, Any], decimal_comma: bool) -> dict[str, Any]:
    scores = {}
    for name, synonyms in _SYNONYMS.items():
        column = next((found for found in synonyms if found in row), None)
        if column is None and name == "base":
            raise DataError(f"{place}: no column base (or base_score); columns are {', '.join(row)}")
        cell = None if column is None else row[column]
        scores[name] = _probability(place, column or name, cell, required=name == "base", decimal_comma=decimal_comma)
    audit = _probability(place, "audit_probability", row.get("audit_probability"), decimal_comma=decimal_comma)
    views = values.whole(place, "views", row.get("views"))
    return {
        "video_id": video_id,
        **scores,
        "views": math.nan if views is None else float(views),
        "kind": None,
        "audit_probability": audit,
        "bundle": values.text(place, "bundle_version", row.get("bundle_version")),
    }


def _probability(place: str, name: str, cell: Any, *, required: bool = False, decimal_comma: bool = False) -> float:
    found = values.number(place, name, cell, math.nan, decimal_comma=decimal_comma)
    if math.isnan(found) and required:
        raise DataError(f"{place}: {name} is empty; score the video (coefvq score --json) or delete the row")
    if not math.isnan(found) and not 0.0 <= found <= 1.0:
        raise DataError(f"{place}: {name} = {values.shown(cell)}: expected a probability in [0, 1]; score it again")
    return found


def _traffic(source: str, rows: list[dict[str, Any]], failed: set[str], remedy: str) -> ScoredTraffic:
    import pandas as pd

    if not rows:
        raise DataError(f"{source}: no scored video; {remedy}")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("base", "mllm", "views", "audit_probability"), "float64")
    return ScoredTraffic(source, frame.astype({**numbers, "kind": object, "bundle": object}), frozenset(failed))
