"""The result of one issue as the terminal shows it: the table, its caption, and why the policy was chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from coefvq.config import Paths
from coefvq.errors import DataError
from coefvq.evaluation.table import Row, against_models_text, caption, result_rows, rich_table
from coefvq.reporting.files import read_evaluation, read_thresholds

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Result:
    """Rows of one issue, from its last run, registered or not."""

    issue: str
    rows: tuple[Row, ...]
    notes: str
    reason: str

    def table(self) -> Table:
        """For the terminal."""
        return rich_table(self.rows, self.issue, self.notes)

    def to_json(self) -> dict[str, Any]:
        """Figures as shares in [0, 1], QPS ratios in percent."""
        rows = [asdict(row) for row in self.rows]
        return {"issue": self.issue, "rows": rows, "notes": self.notes.splitlines(), "reason": self.reason}


def read_result(paths: Paths, issue: str) -> Result:
    """The result of ``dvc repro`` as its reports say it.

    Raises:
        DataError: a report is missing, or is not what the stage writes.
    """
    evaluation = read_evaluation(paths.report(issue, "evaluation.json"))
    thresholds = read_thresholds(paths.report(issue, "thresholds.json"))
    try:
        notes = f"{caption(evaluation)}\n{against_models_text(thresholds)}".strip()
        rows = tuple(result_rows(evaluation, thresholds))
    except (KeyError, TypeError, ValueError) as error:
        # each file fits its schema: what is left is files of different runs or versions
        raise DataError(
            f"{paths.report(issue, 'thresholds.json')}: does not fit evaluation.json ({type(error).__name__}: "
            f"{error}); run evaluate and thresholds again"
        ) from error
    return Result(issue, rows, notes, str(thresholds.get("reason", "")))
