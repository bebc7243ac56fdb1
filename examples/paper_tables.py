"""Rebuild Table 2 of the paper from Table 1: binormal scores fitted to the models alone, then cascaded.

Run: python examples/paper_tables.py [--json]

Table 1 gives each model's R@P at four precisions. A binormal score is fitted to each, at the prevalence the
tables imply. What the fit has not seen is then compared with Table 2: the QPS ratios. (For ICD, Table 1 has
no recall at P_base, so the prevalence itself is fitted to the three QPS ratios: one number for three.) The
correlations between the models are fitted to Table 2's recalls, so those only show how well the shape fits.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from binormal import ScoreSimulator, fit_prevalence, fit_simulator

from coefvq.cascade.paper_audit import prevalence_range
from coefvq.cascade.paper_tables import PAPER, PaperIssue


def fitted(table: PaperIssue) -> ScoreSimulator:
    """The simulator of one issue's tables."""
    allowed = prevalence_range(table)
    base = table.base.recall_at()
    if any(row.p_base in base for row in table.cascade):
        prevalence = (allowed.low + allowed.high) / 2.0
    else:
        prevalence = fit_prevalence(
            base, {row.p_base: row.qps_ratio for row in table.cascade}, allowed.low, allowed.high
        )
    cascade = [(row.p_base, row.recall_at()) for row in table.cascade]
    return fit_simulator(prevalence, base, table.mllm.recall_at(), cascade)


def compare(table: PaperIssue, simulator: ScoreSimulator) -> list[dict[str, Any]]:
    """Table 2 row by row: printed and simulated."""
    rows = []
    for row in table.cascade:
        qps = simulator.qps_ratio(row.p_base) or float("nan")
        recalls = {p: 100.0 * simulator.cascade_recall(row.p_base, p) for p in row.recall_at()}
        rows.append(
            {
                "p_base": row.p_base,
                "qps_paper": row.qps_ratio,
                "qps_simulated": qps,
                "qps_error_percent": 100.0 * (qps / row.qps_ratio - 1.0),
                "recalls_paper": row.recall_at(),
                "recalls_simulated": recalls,
            }
        )
    return rows


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    as_json = parser.parse_args().json
    result = {}
    for issue, table in PAPER.items():
        simulator = fitted(table)
        rows = compare(table, simulator)
        result[issue] = {"prevalence": simulator.prevalence, "rows": rows}
        if as_json:
            continue
        print(
            f"{issue}: prevalence {100 * simulator.prevalence:.3f} %, correlation between the models "
            f"{simulator.positive_correlation:.2f} in positives, {simulator.negative_correlation:.2f} in negatives"
        )
        for row in rows:
            pairs = ", ".join(
                f"R@P{p:g} {row['recalls_paper'][p]:.1f} / {r:.1f}" for p, r in row["recalls_simulated"].items()
            )
            print(
                f"  P_base {row['p_base']:g}: QPS {row['qps_paper']:g} / {row['qps_simulated']:.2f} "
                f"({row['qps_error_percent']:+.1f} %); paper / simulated {pairs}"
            )
    if as_json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
