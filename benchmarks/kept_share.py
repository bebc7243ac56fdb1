"""What a cascade keeps of its MLLM at given shares of calls, mean of several trainings, with 95 % intervals.

    python benchmarks/kept_share.py --workspace W --reports reports reports_s8 reports_s9 --labels reports_labels7

Needs a workspace whose pairs are scored: one folder of reports for each training on the same splits
(``coefvq train-mllm --params s8.yaml`` and so on, with ``paths.reports`` of its own). ``--labels`` are folders whose
base model learned from labels alone. With ``--mean-of-bases`` each training's MLLM stands behind the mean of all base
scores, which is what several base models together would say. Nothing is trained and nothing in the workspace is
changed. Thresholds are those of ``mode: qps``: the base threshold from the traffic, the decision
threshold the MLLM's own on validation. Figures are on test, against the posterior where it is known. A replicate of
the bootstrap draws clips (whole creators) and trainings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.cascade.call_share import CallShare, choose_for_share
from coefvq.cascade.curves import FloatArray, at_threshold, best_f1_threshold, recall_at_precision
from coefvq.cascade.policy import CascadePolicy
from coefvq.data.manifest import read_table
from coefvq.evaluation.intervals import group_codes
from coefvq.evaluation.labelled import LabelledSplit, labelled_split
from coefvq.evaluation.traffic import measured_share, traffic_columns
from coefvq.experiments.scores import fit_stack, stacked_score
from coefvq.records import REQUIRED_SCORE_COLUMNS

REPLICATES = 500
PRECISION = 0.6


@dataclass(frozen=True)
class Decided:
    """One way to decide the test videos of one training: final score [n], threshold, percent of traffic called."""

    score: FloatArray
    threshold: float
    calls: float | None

    def f1(self, test: LabelledSplit, weight: FloatArray) -> float:
        """At the threshold, which validation chose."""
        return at_threshold(test.label, self.score, self.threshold, weight).f1

    def recall(self, test: LabelledSplit, weight: FloatArray) -> float:
        """R@P60; a precision that is not reached counts 0."""
        return recall_at_precision(test.label, self.score, PRECISION, weight).recall


def ways(scores: pd.DataFrame, issue: str, shares: Sequence[float]) -> dict[str, Decided]:
    """MLLM, base, and at each share of calls the cascade, as it is and with a stacked score."""
    val, test, traffic = (
        labelled_split(scores, "val"),
        labelled_split(scores, "test"),
        scores[scores.split == "traffic"],
    )
    found = {
        name: Decided(getattr(test, name), best_f1_threshold(val.label, getattr(val, name), val.weight).threshold, None)
        for name in ("mllm", "base")
    }
    stack, threshold = fit_stack(val.scored())
    for share in shares:
        asked = CallShare(share, 0.97)
        listed, _ = choose_for_share(issue, val.scored(), traffic_columns(traffic), asked)
        policy = cast(CascadePolicy, listed[1].policy)
        calls = measured_share(traffic, policy, share)["qps_ratio"]
        score = policy.ranking_score(test.base, test.mllm, test.views)
        found[f"cascade {share:g} %"] = Decided(score, policy.decision_threshold, calls)
        # the MLLM sees the same videos, and both models' logits decide about them
        both = policy.ranking_score(test.base, stacked_score(stack, test.base, test.mllm), test.views)
        found[f"stacked {share:g} %"] = Decided(both, threshold, calls)
    return found


def interval(values: Sequence[float]) -> list[float]:
    """Percentiles 2.5 and 97.5, in percent."""
    return [round(100.0 * float(end), 1) for end in np.nanpercentile(values, (2.5, 97.5))]


def row(
    name: str,
    runs: Sequence[tuple[LabelledSplit, dict[str, Decided]]],
    figure: Callable[[Decided, LabelledSplit, FloatArray], float],
    draws: Sequence[tuple[Sequence[int], FloatArray]],
) -> dict[str, Any]:
    """Mean over the trainings of a figure and of its share of the MLLM's, each with its interval."""

    def mean(trainings: Sequence[int], weight: FloatArray) -> tuple[float, float]:
        mine = float(np.mean([figure(runs[at][1][name], runs[at][0], weight) for at in trainings]))
        mllm = float(np.mean([figure(runs[at][1]["mllm"], runs[at][0], weight) for at in trainings]))
        return mine, mine / mllm if mllm else float("nan")

    value = mean(range(len(runs)), np.asarray(runs[0][0].weight))
    drawn = [mean(trainings, weight) for trainings, weight in draws]
    return {
        "value": round(100 * value[0], 1),
        "interval": interval([one for one, _ in drawn]),
        "of_mllm": round(100 * value[1], 1),
        "of_mllm_interval": interval([share for _, share in drawn]),
    }


def resampled(test: LabelledSplit, groups: NDArray[np.intp], trainings: int) -> list[tuple[Sequence[int], FloatArray]]:
    """Drawn trainings and weights of the test rows."""
    rng, units = np.random.default_rng(0), int(groups.max()) + 1
    return [
        (
            rng.integers(0, trainings, trainings).tolist(),
            test.weight * np.bincount(rng.integers(0, units, units), minlength=units)[groups],
        )
        for _ in range(REPLICATES)
    ]


def averaged(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The same tables with the mean of their base scores."""
    base = pd.concat([table.set_index("video_id")["base"] for table in tables], axis=1).mean(axis=1, skipna=False)
    return [table.assign(base=base.loc[table["video_id"]].to_numpy()) for table in tables]


def measure(
    folders: Sequence[Path], workspace: Path, issue: str, shares: Sequence[float], mean_of_bases: bool = False
) -> list[dict[str, Any]]:
    """One row per way to decide, of the trainings in ``folders``."""
    tables = [read_table(workspace / folder / issue / "scores.parquet", REQUIRED_SCORE_COLUMNS) for folder in folders]
    tables = averaged(tables) if mean_of_bases else tables
    runs = []
    for table in tables:
        test = labelled_split(table, "test")
        runs.append((test.against_posterior() or test, ways(table, issue, shares)))
    manifest = read_table(workspace / "data" / "manifest.parquet").set_index("video_id")
    rows = tables[0][(tables[0]["split"] == "test") & tables[0]["label"].notna()]
    creators = group_codes(manifest.loc[rows["video_id"], "creator_id"].tolist(), len(rows))
    draws = resampled(runs[0][0], cast(NDArray[np.intp], creators), len(runs))
    found = []
    for name in runs[0][1]:
        calls = [made[name].calls for _, made in runs if made[name].calls is not None]
        found.append(
            {
                "issue": issue,
                "way": name,
                "trainings": len(runs),
                "calls": [round(float(value), 1) for value in calls if value is not None],
                "f1": row(name, runs, Decided.f1, draws),
                "r_at_p60": row(name, runs, Decided.recall, draws),
            }
        )
    return found


def main() -> None:
    """Print a JSON line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--reports", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="*", default=[])
    parser.add_argument("--mean-of-bases", action="store_true")
    parser.add_argument("--issues", nargs="+", default=["icd", "ucc"])
    parser.add_argument("--shares", type=float, nargs="+", default=[9.0, 13.0, 20.0])
    options = parser.parse_args()
    for issue in options.issues:
        for line in measure(options.reports, options.workspace, issue, options.shares, options.mean_of_bases):
            print(json.dumps(line))
        for line in measure(options.labels, options.workspace, issue, options.shares) if options.labels else []:
            print(json.dumps(line | {"base": "labels only"}))


if __name__ == "__main__":
    main()
