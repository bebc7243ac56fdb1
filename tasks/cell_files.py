"""Files of a cell's folder beside its overlay, and when it counts as done."""

from __future__ import annotations

from pathlib import Path

from coefvq.errors import DataError
from coefvq.files import read_json, sha256_file

#: result, reason of a failure, what it took, the scores, what it said, who is at work on it
RESULT, FAILURE, COST, SCORES, LOG, LOCK = (
    "result.json",
    "failure.json",
    "cost.json",
    "scores.parquet",
    "log.txt",
    ".lock",
)


def is_done(folder: Path, key: str) -> bool:
    """Whether a cell has its result, and its scores are those that the result names."""
    try:
        result = read_json(folder / RESULT)
        return bool(result["key"] == key and sha256_file(folder / SCORES) == result["scores_sha256"])
    except (DataError, KeyError, OSError):
        return False
