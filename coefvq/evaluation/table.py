"""The result as a table for the terminal and for Markdown: one row per model, policy, shortcut and bound.

Where the evaluation knows the posterior of every test row, all rows are measured against it alike;
a table never mixes the two kinds of labels, and its caption says which kind it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from coefvq.cascade.call_share import BASE_ALONE, MLLM_ON_ALL
from coefvq.evaluation.metrics import recall_key

if TYPE_CHECKING:
    from rich.table import Table

DASH = "–"
PRECISION_NOTE = f"{DASH}: that precision is not reached at any threshold."
UNREACHABLE_NOTE = "unreachable: the base model has no threshold with this precision on validation."
INTERVAL_NOTE = "{}: QPS ratio {:.1f} % of the traffic, 95 % interval {:.1f} to {:.1f}."
SHORTCUT_NAME = "metadata shortcut"
SHORTCUT_NOTE = (
    f"{SHORTCUT_NAME}: sees size, bitrate, fps, duration, width, height and has_audio of the file, no content."
)
_BOUND_NAMES = {
    "bayes_vision": "Bayes bound, vision",
    "bayes_vision_text": "Bayes bound, vision+text",
    "bayes": "Bayes bound, all",
}


_SINGLE_MODELS = {BASE_ALONE: "base", MLLM_ON_ALL: "MLLM"}


@dataclass(frozen=True)
class Row:
    """One line; figures are shares in [0, 1], ``qps_ratio`` percent; None shows as a dash.

    ``recalls`` maps "R@P60" to recall, ``qps_interval`` is the 95 % interval of the QPS ratio on traffic. ``chosen``
    marks the policy that is released; ``reachable`` is False for a P_base without a policy. ``own`` are figures of
    packages, shown as they are.
    """

    name: str
    f1: float | None
    recalls: Mapping[str, float | None]
    roc_auc: float | None
    qps_ratio: float | None
    chosen: bool = False
    reachable: bool = True
    qps_interval: tuple[float, float] | None = None
    own: Mapping[str, float | None] = field(default_factory=dict)


def result_rows(evaluation: Mapping[str, Any], cascade: Mapping[str, Any]) -> list[Row]:
    """Metadata shortcut, base, MLLM, one row per P_base, and the Bayes bounds; what is not known has no row.

    Args:
        evaluation: what ``report.evaluation_report`` returned.
        cascade: what ``report.cascade_report`` returned for the same scores.
    """
    key = _measured_on(evaluation)
    wanted = _Wanted(evaluation["precision_targets"], evaluation.get("metrics", ()))
    alone = evaluation[key]
    rows = [
        *_known({"shortcut": SHORTCUT_NAME}, alone, wanted, qps_ratio=0.0),
        _row("base", alone["base"], wanted, qps_ratio=0.0),
        _row("MLLM", alone["mllm"], wanted, qps_ratio=100.0),
    ]
    for entry in cascade["policies"]:
        name = policy_name(entry, cascade)
        same = next((at for at, row in enumerate(rows) if row.name == name), None)
        if same is not None:  # a model on its own has its row already
            rows[same] = replace(rows[same], chosen=entry["selected"])
            continue
        rows.append(
            _row(
                name if entry["reachable"] else f"{name}, unreachable",
                entry[key],
                wanted,
                qps_ratio=entry["qps_ratio"],
                chosen=entry["selected"],
                reachable=entry["reachable"],
                qps_interval=_ends(entry.get("qps_ratio_interval")),
            )
        )
    return [*rows, *_known(_BOUND_NAMES, alone, wanted, qps_ratio=None)]


def policy_name(entry: Mapping[str, Any], cascade: Mapping[str, Any]) -> str:
    """What tables call one entry of the cascade's report; a single model on every video has that model's name."""
    if entry["p_base"] is not None:
        return f"cascade, P_base {entry['p_base']:g}"
    name = entry.get("name")  # reports of earlier versions have none
    if name is not None:
        return str(_SINGLE_MODELS.get(name, name))
    whole = "all" if cascade.get("mode", "paper") == "paper" else cascade["mode"].replace("_", " ")
    return f"cascade, {whole}"


def caption(evaluation: Mapping[str, Any]) -> str:
    """Size of the test split and the kind of labels, as one sentence."""
    test = evaluation["test"]
    size = f"Test split: n = {test['n']}, {test['positives']:g} positive; figures in percent"
    if _measured_on(evaluation) == "test_posterior":
        return f"{size}, measured against the known posterior of the synthetic world."
    return f"{size}."


def against_models_text(cascade: Mapping[str, Any]) -> str:
    """The chosen policy's F1 against each model alone, with 95 % intervals, on test labels; empty where not known."""
    compared = cascade.get("against_models") or {}
    words = {"kept_f1": "of the MLLM's F1, in percent", "f1_over_base": "points of F1 over the base model"}
    parts = [
        f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}] {text}"
        for key, text in words.items()
        if (row := compared.get(key)) and None not in row.values()
    ]
    return f"Chosen policy, on drawn labels, 95 % intervals: {'; '.join(parts)}." if parts else ""


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Explanations of the dashes and names that occur."""
    notes = []
    if any(row.name == SHORTCUT_NAME for row in rows):
        notes.append(SHORTCUT_NOTE)
    if any(row.reachable and None in row.recalls.values() for row in rows):
        notes.append(PRECISION_NOTE)
    if not all(row.reachable for row in rows):
        notes.append(UNREACHABLE_NOTE)
    for row in rows:
        if row.qps_interval is not None:
            notes.append(INTERVAL_NOTE.format(row.name, row.qps_ratio, *row.qps_interval))
    return notes


def rich_table(rows: Sequence[Row], title: str, caption: str = "") -> Table:
    """For the terminal, in 80 columns; the chosen policy is bold and marked, footnotes follow the caption."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    text = "\n".join(part for part in (caption, *footnotes(rows)) if part)
    table = Table(
        title=title,
        caption=text or None,
        caption_justify="left",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for number, name in enumerate(_header(rows)):
        # a name may take two lines, a number is never cut
        table.add_column(name.replace(" ", "\n"), justify="right" if number else "left", no_wrap=bool(number))
    for row in rows:
        table.add_row(*_cells(row), style="bold" if row.chosen else None)
    return table


def markdown_table(rows: Sequence[Row], caption: str = "") -> str:
    """A pipe table with the caption and footnotes as paragraphs below it."""
    header = _header(rows)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *(_cells(row) for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join(part for part in (table, caption, *footnotes(rows)) if part) + "\n"


def _measured_on(evaluation: Mapping[str, Any]) -> str:
    return "test" if evaluation["test_posterior"] is None else "test_posterior"


@dataclass(frozen=True)
class _Wanted:
    """R@P targets in percent, and names of packages' metrics."""

    targets: Sequence[float]
    own: Sequence[str]


def _known(names: Mapping[str, str], alone: Mapping[str, Any], wanted: _Wanted, qps_ratio: float | None) -> list[Row]:
    # reports of earlier versions lack a yardstick's key
    return [
        _row(name, alone[key], wanted, qps_ratio=qps_ratio) for key, name in names.items() if alone.get(key) is not None
    ]


def _row(
    name: str,
    summary: Mapping[str, Any] | None,
    wanted: _Wanted,
    *,
    qps_ratio: float | None,
    chosen: bool = False,
    reachable: bool = True,
    qps_interval: tuple[float, float] | None = None,
) -> Row:
    figures = summary or {}
    return Row(
        name=name,
        f1=figures.get("f1"),
        recalls={f"R@P{target:g}": figures.get(recall_key(target)) for target in wanted.targets},
        roc_auc=figures.get("roc_auc"),
        qps_ratio=qps_ratio,
        chosen=chosen,
        reachable=reachable,
        qps_interval=qps_interval,
        own={name: figures.get(name) for name in wanted.own},
    )


def _ends(interval: Mapping[str, float | None] | None) -> tuple[float, float] | None:
    """Both ends of an interval; None where they are not known, as in reports of earlier versions."""
    if interval is None or interval["low"] is None or interval["high"] is None:
        return None
    return interval["low"], interval["high"]


def _header(rows: Sequence[Row]) -> list[str]:
    recalls, own = (list(rows[0].recalls), list(rows[0].own)) if rows else ([], [])
    return ["approach", "F1", *recalls, "AUC", *own, "QPS ratio"]


def _cells(row: Row) -> list[str]:
    name = f"{row.name} (chosen)" if row.chosen else row.name
    shares = [row.f1, *row.recalls.values(), row.roc_auc]
    percents = [None if share is None else 100.0 * share for share in shares]
    return [name, *map(_percent, percents), *map(plain_figure, row.own.values()), _percent(row.qps_ratio)]


def plain_figure(value: float | None) -> str:
    """A package's figure as it is, of unknown unit."""
    return DASH if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"
