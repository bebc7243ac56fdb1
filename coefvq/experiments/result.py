"""One table as JSON-ready values: rows with intervals and the paper's figures, claims, the regret split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coefvq.cascade.paper_tables import paper_cascade, paper_figures
from coefvq.evaluation.metrics import recall_key
from coefvq.experiments.grid import CascadeSpec, TableSpec
from coefvq.experiments.measure import BEST, F1, Measured, MeasureSettings, measure
from coefvq.experiments.scores import MLLM_ROW, Row, Side, freeze, share_row
from coefvq.experiments.verdicts import judged

#: figures of which a cascade's share of the MLLM's is told
KEPT = (F1, recall_key(60.0))
FORMAT_VERSION = 1


def issue_result(
    number: str,
    table: TableSpec,
    whole: Side,
    settings: MeasureSettings,
    groups: Mapping[str, Any] | None,
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """A table's part about one issue.

    Args:
        failed: model -> why it was not trained; its rows say so.

    Raises:
        DataError: a split lacks what a threshold or a figure needs.
    """
    rows = [_with_paper(number, table, whole.issue, row) for row in freeze(whole.without_test(), table)]
    rows = _in_order(table, [*rows, *_lost(table, failed)])
    measured = measure(whole, rows, settings, groups)
    mllm = MLLM_ROW if table.cascade is not None and MLLM_ROW in measured.values else None
    return {
        "issue": whole.issue,
        "seeds": list(whole.seeds),
        "test_videos": measured.n,
        "positives": measured.positives,
        "labels": "posterior" if measured.soft else "drawn",
        "figures": list(measured.figures),
        "rows": [_row(row, measured, mllm) for row in rows],
        "claims": judged(table, whole.issue, measured, rows),
        "regret": [] if table.cascade is None else list(_regret(table.cascade, whole.issue, measured)),
    }


def _with_paper(number: str, table: TableSpec, issue: str, row: Row) -> Row:
    names = {spec.name: spec.paper for spec in table.rows}
    if (name := names.get(row.name)) is not None:
        return replace(row, paper=paper_figures(number, issue, name))
    if table.cascade is None:
        return row
    if row.name == MLLM_ROW:
        return replace(row, paper=paper_cascade(issue, None))
    prefix = f"{table.cascade.paper_base}, P_base "
    if row.name.startswith(prefix):
        return replace(row, paper=paper_cascade(issue, float(row.name.removeprefix(prefix))))
    return row


def _lost(table: TableSpec, failed: Mapping[str, str]) -> Iterable[Row]:
    for row in table.rows:
        if row.model in failed:
            yield Row(row.name, (), f"failed: {failed[row.model]}")
    if table.cascade is not None:
        names = {table.cascade.mllm: MLLM_ROW, **{base.model: base.name for base in table.cascade.bases}}
        yield from (Row(names[model], (), f"failed: {why}") for model, why in failed.items() if model in names)


def _in_order(table: TableSpec, rows: Sequence[Row]) -> list[Row]:
    """Rows of the grid in its order, all others after them as they come."""
    order = {row.name: at for at, row in enumerate(table.rows)}
    return sorted(rows, key=lambda row: order.get(row.name, len(order)))


def _row(row: Row, measured: Measured, mllm: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": row.name, "reason": row.reason, "paper": dict(row.paper or {})}
    if row.name not in measured.values:
        return entry | {"figures": None, "qps_ratio": None, "kept": {}}
    calls = [part.calls for part in row.parts if part.calls is not None]
    kept = {} if mllm is None else {key: measured.ratio(row.name, mllm, key).to_dict() for key in _kept(measured)}
    return entry | {
        "figures": {name: measured.interval(row.name, name).to_dict() for name in measured.figures},
        "qps_ratio": float(np.mean(calls)) if calls else None,
        "kept": kept,
    }


def _kept(measured: Measured) -> tuple[str, ...]:
    return tuple(name for name in KEPT if name in measured.figures)


def _regret(spec: CascadeSpec, issue: str, measured: Measured) -> Iterable[dict[str, Any]]:
    """What each cascade loses against the Bayes bound, in F1, split by cause.

    modality: what a base that sees so little must lose at that share of calls, with perfect models. learning: what
    the two models lose against perfect ones, best threshold on test for both. selection: what the threshold from
    validation loses against that best one.
    """
    for base in spec.bases:
        view = base.view.get(issue)
        for percent in spec.qps:
            name, ideal = share_row(base.name, percent), share_row(f"Bayes {view}", percent)
            if not {"Bayes", name, ideal} <= measured.values.keys():
                continue
            yield {
                "row": name,
                "whole": measured.difference("Bayes", name, BEST, F1).to_dict(),
                "modality": measured.difference("Bayes", ideal, BEST).to_dict(),
                "learning": measured.difference(ideal, name, BEST).to_dict(),
                "selection": measured.difference(name, name, BEST, F1).to_dict(),
            }
