"""``coefvq cascade``: thresholds of a cascade from any two columns of scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coefvq.cli.audit import audit
from coefvq.cli.numbers import number
from coefvq.cli.options import JsonOption
from coefvq.config import load_params
from coefvq.errors import DataError
from coefvq.terminal import cell, echo_json, say, show

if TYPE_CHECKING:
    from coefvq.cascade.fitting import ThresholdSearch
    from coefvq.cascade.objectives import Thresholds
    from coefvq.evaluation.score_files import Columns, ScoreColumns, ScoreTable

app = typer.Typer(no_args_is_help=True)

BaseColumn = Annotated[str, typer.Option(help="Column of the base model's score.")]
MLLMColumn = Annotated[str, typer.Option(help="Column of the MLLM's score.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the label, 0 or 1; rows without one are left out.")]
WeightColumn = Annotated[str, typer.Option(help="Column of the sampling weight, if there is one.")]
IdColumn = Annotated[str, typer.Option(help="Column of the video's id, if there is one.")]
Prevalence = Annotated[float | None, number(help="Weigh the rows as if this share were positive, 0 to 1 (what if).")]
ColumnsOption = Annotated[
    Path | None, typer.Option("--params", help="Settings file whose ingest.columns count here too.")
]
SplitColumn = Annotated[str, typer.Option(help="Column that says which split a row is in, if there is one.")]


@app.callback()
def _root() -> None:
    pass


@app.command(epilog="Example: coefvq cascade fit scores.parquet --precision 0.8 --qps 5")
def fit(
    scores: Annotated[Path, typer.Argument(help="Table with both scores and labels: .csv, .tsv, .jsonl or .parquet.")],
    precision: Annotated[float, number(help="Share of the flagged that must be positive, 0 to 1.")] = 0.8,
    qps: Annotated[float, number(help="Percent of videos that may reach the MLLM.")] = 100.0,
    mode: Annotated[
        Literal["budget", "cost", "recall_floor", "guarantee"],
        typer.Option(help="What to want: recall in a budget, least cost, fewest calls, or a certified promise."),
    ] = "budget",
    recall: Annotated[float | None, number(help="guarantee: recall that must hold too, 0 to 1.")] = None,
    delta: Annotated[float, number(help="guarantee: accepted chance that the promise is broken.")] = 0.1,
    max_recall_loss: Annotated[float, number(help="recall_floor: recall that may be lost, 0 to 1.")] = 0.01,
    call_cost: Annotated[float, number(help="cost: price of one MLLM call.")] = 1.0,
    false_positive_cost: Annotated[float, number(help="cost: price of one false positive.")] = 10.0,
    miss_cost: Annotated[float, number(help="cost: price of one missed positive.")] = 100.0,
    mllm_scores: Annotated[
        Path | None, typer.Option("--mllm-file", help="The MLLM's scores if in a file of their own; joined by id.")
    ] = None,
    base_col: BaseColumn = "base",
    mllm_col: MLLMColumn = "mllm",
    label_col: LabelColumn = "label",
    weight_col: WeightColumn = "weight",
    id_col: IdColumn = "video_id",
    split_col: SplitColumn = "split",
    fit_on: Annotated[str, typer.Option(help="Split to fit on, if the table has splits.")] = "val",
    report_on: Annotated[str, typer.Option(help="Split to measure on, if the table has it.")] = "test",
    prevalence: Prevalence = None,
    out: Annotated[Path | None, typer.Option(help="Write the policy here (JSON); needs scores in [0, 1].")] = None,
    issue: Annotated[str, typer.Option(help="Name put into the policy.")] = "issue",
    params: ColumnsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the base and the decision threshold: exact over all pairs, on your own labels.

    Where the table has splits, thresholds are fitted on one and measured on another, frozen.
    Exit code 3 if the data is unusable or nothing meets the constraints; the message says which and by how much.
    """
    from coefvq.cascade.fitting import ThresholdSearch
    from coefvq.evaluation.score_files import Columns

    columns = Columns(base_col, mllm_col, label_col, weight_col, id_col, split_col)
    table = _read(scores, mllm_scores, columns, params)
    search = ThresholdSearch(
        mode=mode,
        precision=precision,
        qps=qps,
        recall=recall,
        max_recall_loss=max_recall_loss,
        call_cost=call_cost,
        false_positive_cost=false_positive_cost,
        miss_cost=miss_cost,
        delta=delta,
    )
    result = _fitted(search, table, columns, _Splits(fit_on, report_on), prevalence)
    if out is not None:
        _write_policy(result, issue, out)
    if as_json:
        echo_json(result)
    else:
        _show_fit(result)


app.command()(audit)


def _read(scores: Path, mllm_scores: Path | None, columns: Columns, params: Path | None = None) -> ScoreTable:
    from coefvq.evaluation.score_files import joined, read_scores

    renames = None if params is None else load_params(params).ingest.columns
    table = read_scores(scores, columns, renames)
    if mllm_scores is None:
        return table
    other = read_scores(mllm_scores, columns, renames)
    for part in (table, other):
        if rows := part.without_id(columns):
            say(f"{part.path}: {len(rows)} rows without {columns.ids} left out, first row {rows[0]}")
    return joined(table, other, columns)


@dataclass(frozen=True)
class _Splits:
    fitted: str
    reported: str


def _fitted(
    search: ThresholdSearch,
    table: ScoreTable,
    columns: Columns,
    splits: _Splits,
    prevalence: float | None,
) -> dict[str, Any]:
    from coefvq.cascade.fitting import check_rows
    from coefvq.cascade.objectives import ScoredRows
    from coefvq.evaluation.score_files import check_disjoint, labelled_rows

    frame = table.frame
    has_splits = columns.split in frame and (frame[columns.split] == splits.fitted).any()
    measured = has_splits and bool((frame[columns.split] == splits.reported).any())
    if measured:
        check_disjoint(frame, columns, splits.fitted, splits.reported)
    rows = _at(labelled_rows(table, columns, splits.fitted if has_splits else None), prevalence)
    label, weight = check_rows(rows.base, rows.mllm, rows.label, rows.weight)
    try:
        found = search.find(ScoredRows(label, rows.base, rows.mllm, weight))
    except ValueError as error:  # a parameter out of its range
        raise DataError(str(error)) from error
    result = {
        "mode": search.mode,
        "base_threshold": found.base_threshold,
        "decision_threshold": found.decision_threshold,
        "reason": found.reason,
        "expected_cost": found.expected_cost,
        "fitted_on": splits.fitted if has_splits else "all rows",
        "fitted": _measured(found, rows),
        "reported_on": splits.reported if measured else None,
        "reported": None,
        "probabilities": bool(
            min(rows.base.min(), rows.mllm.min()) >= 0 and max(rows.base.max(), rows.mllm.max()) <= 1
        ),
    }
    if measured:
        result["reported"] = _measured(found, _at(labelled_rows(table, columns, splits.reported), prevalence))
    return result


def _at(rows: ScoreColumns, prevalence: float | None) -> ScoreColumns:
    """The rows as they are, or weighed as if ``prevalence`` of them were positive."""
    from coefvq.evaluation.metrics import at_prevalence
    from coefvq.evaluation.score_files import ScoreColumns

    if prevalence is None:
        return rows
    if not 0.0 < prevalence < 1.0:
        raise DataError(f"--prevalence {prevalence:g}: expected a share between 0 and 1")
    label, weight = at_prevalence(rows.label, rows.weight, prevalence)
    return ScoreColumns(label, rows.base, rows.mllm, weight)


def _measured(found: Thresholds, rows: ScoreColumns) -> dict[str, Any]:
    """Frozen thresholds on rows: figures with 95 % intervals by counts."""
    import numpy as np

    from coefvq.cascade.fitting import check_rows
    from coefvq.evaluation.intervals import weighted_share

    label, weight = check_rows(rows.base, rows.mllm, rows.label, rows.weight)
    escalated = rows.base >= found.base_threshold
    flagged = (escalated & (rows.mllm >= found.decision_threshold)).astype(np.float64)
    return {
        "n": len(label),
        "positives": float(label.sum()),
        "precision": weighted_share(label[flagged > 0], weight[flagged > 0]).to_dict(),
        "recall": weighted_share(flagged, weight * label).to_dict(),
        "qps_ratio": {
            name: None if value is None else 100.0 * value
            for name, value in weighted_share(escalated.astype(np.float64), weight).to_dict().items()
        },
        "recall_ceiling": weighted_share(escalated.astype(np.float64), weight * label).to_dict(),
    }


def _write_policy(result: dict[str, Any], issue: str, out: Path) -> None:
    from coefvq.cascade.policy import CascadePolicy
    from coefvq.files import write_json

    if not result["probabilities"]:
        raise DataError("--out: a policy holds probabilities; these scores leave [0, 1], so use the printed thresholds")
    policy = CascadePolicy.from_dict(
        {
            "issue": issue,
            "base_threshold": result["base_threshold"],
            "decision_threshold": result["decision_threshold"],
            "p_base": None,
            "views_trigger": None,
        },
        "--out",
    )
    write_json(out, policy.to_dict())


def _show_fit(result: dict[str, Any]) -> None:
    from rich.table import Table

    from coefvq.cascade.policy import threshold_text

    base, decision = result["base_threshold"], result["decision_threshold"]
    table = Table(
        title=f"base >= {threshold_text(base)}, then MLLM >= {threshold_text(decision)}",
        title_justify="left",
        caption=cell(result["reason"]),
        caption_justify="left",
    )
    table.add_column("percent, with 95 % interval")
    parts = [(result["fitted_on"], result["fitted"]), (result["reported_on"], result["reported"])]
    parts = [(name, figures) for name, figures in parts if figures is not None]
    for (name, figures), note in zip(parts, ("fitted", "measured"), strict=False):
        heading = f"{name} ({note}), n = {figures['n']}, {figures['positives']:g} positive"
        table.add_column(cell(heading), justify="right")
    rows = {
        "MLLM calls (QPS ratio)": ("qps_ratio", 1.0),
        "precision": ("precision", 100.0),
        "recall": ("recall", 100.0),
        "recall ceiling (base)": ("recall_ceiling", 100.0),
    }
    for title, (key, scale) in rows.items():
        table.add_row(title, *(_share(figures[key], scale) for _, figures in parts))
    show(table)


def _share(interval: dict[str, float | None], scale: float) -> str:
    if interval["value"] is None:
        return "–"
    low, high = interval["low"], interval["high"]
    ends = "" if low is None or high is None else f"  [{scale * low:.1f}, {scale * high:.1f}]"
    return f"{scale * interval['value']:.1f}{ends}"
