"""A table's result for people: Markdown with the paper's figures beside ours, and a narrower one for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coefvq.errors import DataError
from coefvq.experiments.measure import BEST, F1
from coefvq.terminal import cell, markdown

if TYPE_CHECKING:
    from rich.table import Table

DASH = "–"
#: a page keeps what stands outside of these
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
_FIGURES = {F1: "F1", BEST: "F1, best on test", "roc_auc": "AUC"}
_NOTES = (
    "F1 is at the threshold chosen on validation, with a 95 % interval (paired bootstrap over clips and seeds); "
    "“best on test” is what nobody can choose beforehand. A precision that is not reached counts as recall 0. "
    "In brackets: the paper's figure, on other data and with other models."
)


def table_page(number: str, title: str, parts: Sequence[Mapping[str, Any]], level: int = 2) -> str:
    """Markdown of one table; ``parts`` are what ``result.issue_result`` returned, one per issue."""
    lines = [f"{'#' * level} Table {number}: {title}", ""]
    for part in parts:
        kind = "the known posterior" if part["labels"] == "posterior" else "drawn labels"
        lines += [
            f"**{markdown(part['issue'])}**: {part['test_videos']} test videos, {part['positives']:.0f} positive, "
            f"{len(part['seeds'])} seed(s), measured against {kind}. Percent.",
            "",
            *_pipe(_header(part["figures"]), [_cells(row, part["figures"]) for row in part["rows"]]),
            "",
        ]
        if part["claims"]:
            header = ["claim", "figure", "ours, 95 %", "paper", "verdict"]
            lines += [*_pipe(header, [_claim(entry) for entry in part["claims"]]), ""]
        if part["regret"]:
            header = ["F1 lost against Bayes", "whole", "modality", "learning", "selection"]
            lines += [*_pipe(header, [_regret(entry) for entry in part["regret"]]), ""]
    return "\n".join([*lines, _NOTES, ""])


def terminal_table(number: str, title: str, part: Mapping[str, Any]) -> Table:
    """F1, R@P60, AUC and calls of one issue."""
    from rich.table import Table

    shown = [name for name in (F1, BEST, "r_at_p60", "roc_auc") if name in part["figures"]]
    table = Table(title=cell(f"Table {number}, {part['issue']}: {title}"), title_justify="left")
    for at, name in enumerate(_header(shown)):
        table.add_column(name, justify="right" if at else "left")
    for row in part["rows"]:
        table.add_row(*(cell(text) for text in _cells(row, shown, plain=True)))
    return table


def written(page: str, section: str, source: str) -> str:
    """A page with ``section`` between its markers; the rest stays.

    Raises:
        DataError: the page has no such markers.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataError(f"{source}: expected one line {BEGIN} and, after it, one line {END}; add them where tables go")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{section}{END}{after}"


def _header(figures: Iterable[str]) -> list[str]:
    names = [_FIGURES.get(name) or f"R@P{name.removeprefix('r_at_p')}" for name in figures]
    return ["approach", *names, "QPS ratio", "F1 kept", "R@P60 kept"]


def _cells(row: Mapping[str, Any], figures: Sequence[str], plain: bool = False) -> list[str]:
    name = str(row["name"]) if plain else markdown(row["name"])
    if row["figures"] is None:
        reason = f"{row['name']}: {row['reason']}"
        first = reason if plain else markdown(reason)
        return [first, *(_beside(None, row["paper"].get(key)) for key in figures), _ratio(row), DASH, DASH]
    shown = []
    for key in figures:
        value = row["figures"][key]
        text = _percent(value) if key == F1 else _point(value["value"])
        shown.append(_beside(text, row["paper"].get(key)))
    return [name, *shown, _ratio(row), *(_percent(row["kept"].get(key)) for key in (F1, "r_at_p60"))]


def _ratio(row: Mapping[str, Any]) -> str:
    ours = None if row["qps_ratio"] is None else f"{row['qps_ratio']:.1f}"
    return _beside(ours, row["paper"].get("qps_ratio"))


def _beside(ours: str | None, paper: float | None) -> str:
    text = ours or DASH
    return text if paper is None else f"{text} ({paper:g})"


def _percent(value: Mapping[str, Any] | None) -> str:
    if value is None or value["value"] is None:
        return DASH
    if value["low"] is None:
        return _point(value["value"])
    return f"{_point(value['value'])} [{_point(value['low'])}, {_point(value['high'])}]"


def _point(value: float | None) -> str:
    return DASH if value is None else f"{100.0 * value:.1f}"


def _claim(entry: Mapping[str, Any]) -> list[str]:
    figure = _FIGURES.get(entry["figure"]) or f"R@P{entry['figure'].removeprefix('r_at_p')}"
    what = {"difference": "difference", "gain": "gain", "ratio": "share kept"}[entry["kind"]]
    paper = DASH if entry["paper"] is None else _point(entry["paper"])
    source = paper if entry["of_the_paper"] else "not a claim of the paper"
    verdict = entry["verdict"] if entry["reason"] is None else f"{entry['verdict']}: {entry['reason']}"
    return [markdown(entry["claim"]), f"{figure}, {what}", _percent(entry), source, markdown(verdict)]


def _regret(entry: Mapping[str, Any]) -> list[str]:
    return [markdown(entry["row"]), *(_percent(entry[key]) for key in ("whole", "modality", "learning", "selection"))]


def _pipe(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
