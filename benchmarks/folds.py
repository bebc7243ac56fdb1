"""Your own labelled clips, folds by source: base model, MLLM and the released policy through the product's commands.

    python benchmarks/folds.py --data surveillance-fights --issue fight=label:fight --out folds
    python benchmarks/folds.py --data surveillance-fights --issue fight=label:fight --out folds --shufflings 1

Each fold is a workspace of its own (``coefvq init --data``): the fold is test, two parts in ten of the rest are
validation, one is traffic. Videos that `coefvq split` would keep together (source, creator, look-alikes) stay together.
Then ingest, split, train-mllm, teach, train-base, predict, evaluate and thresholds run as commands, with the settings
that ``init`` wrote. Started again, a fold whose thresholds are there is only read. Figures are of the test parts: AUC,
and F1 at validation's thresholds; an interval draws folds anew, which are not independent. The last line is JSON; exit
code 1: the base's AUC is below 0.86, or the released policy's F1 is below that of the base alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from coefvq.cli.workspace import open_workspace
from coefvq.data.manifest import read_table
from coefvq.data.splits.groups import components, with_codes, with_look_alikes
from tasks.workspace import change_params

BASE_AUC = 0.86
COMMANDS = ("train-mllm", "teach", "train-base", "predict", "evaluate", "thresholds")
ROWS = ("shortcut", "base", "mllm")
FIGURES = ("roc_auc", "f1")
REPLICATES = 1000


def placed(labels: pd.Series[Any], groups: pd.Series[Any], folds: int, seed: int) -> list[pd.Series[Any]]:
    """Split of each row, once per fold."""
    found = []
    for number, (rest, test) in enumerate(_cut(labels, groups, folds, seed)):
        split = pd.Series("train", index=labels.index)
        split.iloc[test] = "test"
        parts = _cut(labels.iloc[rest], groups.iloc[rest], 10, seed + number)
        for name, chosen in zip(("val", "val", "traffic"), parts, strict=False):
            split.iloc[rest[chosen[1]]] = name
        found.append(split)
    return found


def _cut(labels: pd.Series[Any], groups: pd.Series[Any], folds: int, seed: int) -> list[tuple[Any, Any]]:
    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(cutter.split(np.zeros(len(labels)), labels, groups))


def coefvq(folder: Path, log: Path, *arguments: object) -> None:
    """One command in a workspace; its output goes to ``log``."""
    with log.open("a") as out:
        command = [sys.executable, "-m", "coefvq", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, stdout=out, stderr=out, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: coefvq {arguments[0]}: exit code {done.returncode}, see {log}")


def workspace(source: Path, folder: Path, options: argparse.Namespace) -> Path:
    """A workspace whose clips are imported; returns where its log is."""
    log = folder.with_suffix(".log")
    if not (folder / "data" / "manifest.parquet").exists():
        named = ["--data", source, "--media", options.data, "--issue", options.issue, "--recipe", options.recipe]
        coefvq(options.out, log, "init", folder, *named)
        # a part of so few videos may hold any share of positives, as in the demo
        issue = options.issue.partition("=")[0]
        change_params(folder / "params.yaml", {f"validate.prevalence.{issue}": [0.0, 1.0]})
        coefvq(folder, log, "ingest")
    return log


def groups_of(folder: Path) -> pd.Series[Any]:
    """Number of the group of each file, as `coefvq split` would keep videos together."""
    settings = open_workspace(folder / "params.yaml")
    manifest = read_table(folder / settings.paths.manifest)
    rows = with_codes(with_look_alikes(manifest, settings.split), settings.split)
    return pd.Series(components(rows, settings.split), index=rows["uri"].astype(str))


def fold(table: pd.DataFrame, split: pd.Series[Any], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one fold by model, and what ``thresholds`` released."""
    issue = options.issue.partition("=")[0]
    report = folder / "reports" / issue
    if not (report / "thresholds.json").exists():
        source = folder.with_suffix(".csv")
        table.assign(split=split).to_csv(source, index=False)
        log = workspace(source, folder, options)
        coefvq(folder, log, "split")
        for command in COMMANDS:
            coefvq(folder, log, command, "--issue", issue)
    test = json.loads((report / "evaluation.json").read_text())["test"]
    chosen = json.loads((report / "thresholds.json").read_text())
    released = next(row["name"] for row in chosen["policies"] if row["policy"] == chosen["policy"])
    return {
        "fold": folder.name,
        "released": released,
        **{f"{row}_{figure}": round(test[row][figure], 4) for row in ROWS for figure in FIGURES},
        "released_over_base": round(chosen["against_models"]["f1_over_base"]["value"], 4),
    }


def summary(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Means over folds with 95 % intervals of the means, and how often what was released."""
    rows = rows.assign(mllm_over_base=rows["mllm_f1"] - rows["base_f1"])
    draws = np.random.default_rng(seed).integers(0, len(rows), (REPLICATES, len(rows)))
    found: dict[str, Any] = {"released": rows.pop("released").value_counts().to_dict()}
    for name in rows.columns.drop("fold"):
        values = rows[name].to_numpy(np.float64)
        low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
        found[str(name)] = {"mean": round(values.mean(), 4), "low": round(low, 4), "high": round(high, 4)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with metadata.csv and clips")
    parser.add_argument("--issue", required=True, help="NAME=COLUMN:POSITIVE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the workspaces")
    parser.add_argument("--recipe", default="starter")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--shufflings", type=int, default=5)
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    os.environ.setdefault("COEFVQ_CACHE", str(options.out / "cache"))
    table = pd.read_csv(options.data / "metadata.csv")
    column, _, positive = options.issue.partition("=")[2].partition(":")
    labels = table[column].astype(str) == positive
    options.out.mkdir(parents=True, exist_ok=True)
    workspace(options.data / "metadata.csv", options.out / "all", options)
    groups = table["file_name"].map(groups_of(options.out / "all"))
    rows = []
    for seed in range(options.shufflings):
        for number, split in enumerate(placed(labels, groups, options.folds, seed)):
            rows.append(fold(table, split, options.out / f"s{seed}-f{number}", options))
            print(json.dumps(rows[-1]), flush=True)
    found = summary(pd.DataFrame(rows), seed=0)
    met = found["base_roc_auc"]["mean"] >= BASE_AUC and found["released_over_base"]["mean"] >= 0.0
    print(json.dumps({"clips": len(table), "folds": len(rows), **found, "target_auc": BASE_AUC, "met": bool(met)}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
