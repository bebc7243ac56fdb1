"""The table of the starter world: figures against the posterior, paired bootstrap intervals, cascade, size curve."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starter_world_data import ISSUES, World, load

from coefvq.cascade.curves import curve_recall_at_precision, precision_recall_points
from coefvq.cascade.escalation import escalation_mask, withhold_zeros, zero_filtered
from coefvq.cascade.search import ScoredSplit, escalate_all, qps_ratio, search, select
from coefvq.evaluation.metrics import roc_auc
from coefvq.files import read_json

Floats = np.ndarray[Any, np.dtype[np.float64]]
FIGURES = ("F1", "R@P60", "R@P70", "AUC")
P_BASE = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0)
_BASES = {"icd": "vision only", "ucc": "multi-tower"}  # as in the paper
_DRAWS = 1000
_PAIRS = (
    ("MLLM", "control"),
    ("MLLM", "multi-tower"),
    ("control", "multi-tower"),
    ("MLLM", "labels only"),
    ("MLLM, 50 %", "control, 50 %"),
    ("MLLM, 25 %", "control, 25 %"),
    ("MLLM, 25 %", "labels only, 25 %"),
)
_ORDER = ("vision only", "multi-tower", "control", "MLLM")


@dataclass(frozen=True)
class Row:
    """A row's results: test scores [seeds, N, K], validation scores, and what was saved beside them."""

    name: str
    val: Floats
    test: Floats
    runs: list[dict[str, Any]]


def figures(posterior: Floats, score: Floats) -> Floats:
    """Best F1 over thresholds, R@P60, R@P70 (0 where unreachable), AUC, in percent; labels are the posterior."""
    curve = precision_recall_points(posterior, score)
    recalls = [curve_recall_at_precision(curve, p) for p in (0.6, 0.7)]
    reached = [found.recall if found.reachable else 0.0 for found in recalls]
    return 100.0 * np.array([curve.f1.max(), *reached, roc_auc(posterior, score)])


def rows(folder: Path) -> dict[str, Row]:
    """All results by row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((folder / "results").glob("*.json")):
        record = read_json(path)
        found.setdefault(record["row"], []).append(record)
    return {name: _row(name, runs) for name, runs in found.items()}


def _row(name: str, runs: list[dict[str, Any]]) -> Row:
    val, test = (np.array([run["scores"][split] for run in runs]) for split in ("val", "test"))
    return Row(name, val, test, [{k: v for k, v in run.items() if k != "scores"} for run in runs])


def difference(posterior: Floats, one: Floats, other: Floats) -> Floats:
    """Mean over seeds of one minus other, [3,4]: estimate, low and high end of 95 %; clips and seeds drawn again."""
    random, draws = np.random.default_rng(0), []

    def gap(clips: Any, mine: Any, theirs: Any) -> Floats:
        ours = np.mean([figures(posterior[clips], one[seed, clips]) for seed in mine], axis=0)
        return np.asarray(ours - np.mean([figures(posterior[clips], other[seed, clips]) for seed in theirs], axis=0))

    for _ in range(_DRAWS):
        clips = random.integers(len(posterior), size=len(posterior))
        draws.append(gap(clips, *(random.integers(len(s), size=len(s)) for s in (one, other))))
    whole = gap(slice(None), range(len(one)), range(len(other)))
    return np.stack([whole, *np.quantile(draws, [0.025, 0.975], axis=0)])


def cascade(
    issue: str, base: Row, mllm: Row, val_labels: Floats, posterior: Floats
) -> tuple[Floats, Floats, list[Any]]:
    """Figures [seeds,4], QPS ratio on test [seeds], P_base; the policy is picked on validation as the library does."""
    k, found, shares, chosen = ISSUES.index(issue), [], [], []
    for seed in range(len(mllm.test)):
        val = ScoredSplit(val_labels[:, k], base.val[seed, :, k], mllm.val[seed, :, k])
        picked = select(search(issue, val, P_BASE), escalate_all(issue, val), 0.03)
        mask = escalation_mask(base.test[seed, :, k], None, picked.policy.base_threshold, None)
        final = withhold_zeros(zero_filtered(mllm.test[seed, :, k], mask))
        found.append(figures(posterior, final))
        shares.append(qps_ratio(picked.policy, base.test[seed, :, k]))
        chosen.append(picked.p_base)
    return np.array(found), np.array(shares), chosen


def print_table(world: World, folder: Path, plot: Path | None) -> int:
    """Markdown tables, and one JSON line; exit code 1 where the MLLM does not beat the control on both issues."""
    found, test, val = rows(folder), load(world, folder / "features", "test"), load(world, folder / "features", "val")
    posteriors = {issue: test.posterior(issue) for issue in ISSUES}
    out: dict[str, Any] = {"name": "starter_world", "test": len(test), "val": len(val), "rows": {}, "differences": {}}
    print("| test | ICD: F1 / R@P60 / R@P70 / AUC | UCC | train clips | CPU min |\n|---|---|---|---|---|")
    for view, label in (("_vision", "vision"), ("_vision_text", "vision+text"), ("", "all")):
        cells = [_cell(figures(posteriors[i], test.posterior(i, view))[None]) for i in ISSUES]
        print(f"| Bayes, {label} | {cells[0]} | {cells[1]} | | |")
    names = [*(n for n in _ORDER if n in found), *sorted(set(found) - set(_ORDER))]
    for name in names:
        each = [_each(found[name].test, posteriors, issue) for issue in ISSUES]
        run = found[name].runs[0]
        minutes = np.mean([_minutes(r) for r in found[name].runs])
        cells = [_cell(values) for values in each]
        print(f"| {name} ({_count(each[0])}) | {cells[0]} | {cells[1]} | {run['clips']:,} | {minutes:.1f} |")
        out["rows"][name] = {i: values.round(2).tolist() for i, values in zip(ISSUES, each, strict=True)}
    _cascade_rows(found, posteriors, val.labels.numpy().astype(float), out)
    passed = _differences(found, posteriors, out)
    if plot is not None:
        size_curve(found, posteriors, plot)
    print(json.dumps(out | {"pass": passed}))
    return 0 if passed else 1


def _differences(found: Mapping[str, Row], posteriors: Mapping[str, Floats], out: dict[str, Any]) -> bool:
    print("\n| difference, 95 % | issue | " + " | ".join(FIGURES) + " |\n|---|---|" + "---|" * len(FIGURES))
    passed = []
    for one, other in _PAIRS:
        if one not in found or other not in found:
            continue
        for k, issue in enumerate(ISSUES):
            gap = difference(posteriors[issue], found[one].test[..., k], found[other].test[..., k])
            cells = " | ".join(f"{m:+.1f} [{low:+.1f}, {high:+.1f}]" for m, low, high in gap.T)
            print(f"| {one} − {other} | {issue} | {cells} |")
            out["differences"][f"{one} - {other}, {issue}"] = gap.round(2).tolist()
            if (one, other) == ("MLLM", "control"):
                passed.append(bool(gap[1, 0] > 0 and gap[1, 3] > 0))
    return len(passed) == len(ISSUES) and all(passed)


def _cascade_rows(
    found: Mapping[str, Row], posteriors: Mapping[str, Floats], labels: Floats, out: dict[str, Any]
) -> None:
    if "MLLM" not in found or any(base not in found for base in _BASES.values()):
        return
    for issue in ISSUES:
        values, shares, chosen = cascade(issue, found[_BASES[issue]], found["MLLM"], labels, posteriors[issue])
        cells = [_cell(values) if issue == other else "" for other in ISSUES]
        at = ", ".join("all" if p is None else f"{p:g}" for p in chosen)
        label = f"cascade {issue}, base {_BASES[issue]}, P_base {at}, QPS {shares.mean():.1f} %"
        print(f"| {label} | {cells[0]} | {cells[1]} | | |")
        out["rows"][f"cascade {issue}"] = {"figures": values.round(2).tolist(), "qps": shares.round(2).tolist()}


def _each(scores: Floats, posteriors: Mapping[str, Floats], issue: str) -> Floats:
    return np.array([figures(posteriors[issue], seed[:, ISSUES.index(issue)]) for seed in scores])


def _cell(values: Floats) -> str:
    return " / ".join(f"{v:.1f}" for v in values.mean(axis=0))


def _count(values: Floats) -> str:
    return f"{len(values)} seed{'s' if len(values) > 1 else ''}"


def _minutes(run: Mapping[str, Any]) -> float:
    return sum(float(v) for k, v in run.items() if k.endswith("cpu_s") and isinstance(v, int | float)) / 60.0


def size_curve(found: Mapping[str, Row], posteriors: Mapping[str, Floats], path: Path) -> None:
    """F1 and AUC over the number of training clips (the paper's Table 5 in this world); a dot per seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8, 5.5), sharex=True, layout="constrained")
    for column, issue in enumerate(ISSUES):
        for axis, place in zip(axes[:, column], (0, 3), strict=True):
            for color, model in (("#1f6f8b", "MLLM"), ("#c8553d", "control"), ("#8a8a8a", "labels only")):
                if rows := _sizes(found, model):
                    _draw_model(axis, rows, posteriors, issue, place, color, model)
            axis.axhline(_bayes(posteriors, issue, place), color="black", lw=0.8, ls=":", label="Bayes")
            axis.set_ylabel(f"{FIGURES[place]}, %")
        axes[0, column].set_title(issue)
        axes[1, column].set_xlabel("training clips")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _sizes(found: Mapping[str, Row], model: str) -> list[tuple[int, Row]]:
    """(training clips, row) of a model's rows, ascending."""
    named = re.compile(re.escape(model) + r"(, [\d.]+ %)?")
    sizes = [(int(row.runs[0]["clips"]), row) for name, row in found.items() if named.fullmatch(name)]
    return sorted(sizes, key=lambda pair: pair[0])


def _draw_model(
    axis: Any,
    rows: list[tuple[int, Row]],
    posteriors: Mapping[str, Floats],
    issue: str,
    place: int,
    color: str,
    label: str,
) -> None:
    values = [(clips, _each(row.test, posteriors, issue)[:, place]) for clips, row in rows]
    axis.plot([clips for clips, _ in values], [v.mean() for _, v in values], "-", color=color, label=label)
    for clips, v in values:
        axis.plot([clips] * len(v), v, "o", ms=4, color=color)


def _bayes(posteriors: Mapping[str, Floats], issue: str, place: int) -> float:
    return float(figures(posteriors[issue], posteriors[issue])[place])
