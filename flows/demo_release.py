"""The demo's release: through the gate, and where that refuses a policy worse than its base model, the base alone."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from coefvq.errors import RegistryError
from coefvq.registry import release
from coefvq.registry.pairs import RegisteredPair
from coefvq.reporting.results import read_result
from coefvq.terminal import cell
from tasks import pipeline, workspace
from tasks.release import attach_report, connect, decision_on, offer_to_gate

APPROVER = "demo"
#: limits of the gate that any pair meets, so that so few clips lead to a decision; ``min_f1_over_base`` stays at 0
LOOSE_GATE = {
    "gate.max_qps_ratio": 100.0,
    "gate.min_kept_f1": 0.0,
    "gate.min_base_auc": 0.0,
    "gate.min_f1_over_guess": -1.0,
    "gate.min_f1_over_shortcut": -1.0,
}
_PAST = {"approve": "approved", "reject": "rejected", "rollback": "returned to"}


def release_pair(issue: str, root: Path, console: Console) -> None:
    """Offer the candidate of an issue, take the gate's remedy if it has to be, and approve.

    Raises:
        RegistryError: the gate refuses for another reason, or the base model alone too.
    """
    pair = _offered(issue, root, console)
    taken = decision_on(pair)
    if taken is None:
        attach_report(pair, root, workspace.run_environment(root))
        taken = release.approve(issue, APPROVER, "demo; a real release waits for a person", pair.version)
    console.print(
        f"[bold]models:/coefvq-{issue}-cascade@champion[/bold] = version {pair.version} "
        f"(bundle {pair.bundle_version}), {_PAST[taken.action]} by {taken.by}"
    )


def _offered(issue: str, root: Path, console: Console) -> RegisteredPair:
    env = workspace.run_environment(root)
    first = offer_to_gate(issue, root, env)
    if first.pair is not None:
        return first.pair
    console.print(cell(f"gate refused the candidate of {issue}: {first.report.failures}"))
    params = connect(root, env)
    if "f1_over_base" not in first.report.failed or params.thresholds[issue].mode != "qps":
        raise RegistryError(f"gate refused the candidate of {issue}; change params.yaml and run the demo again")
    key = f"thresholds.{issue}.policy"
    console.print(cell(f"{issue}: the gate's remedy is taken, {key}: base"))
    workspace.change_params(root / "params.yaml", {key: "base"})
    pipeline.repro(root, [f"candidate@{issue}"], env=env)
    workspace.commit(root, f"Base model of {issue} alone")
    console.print(cell(f"{issue}: {read_result(params.paths, issue).reason}"))
    second = offer_to_gate(issue, root, env)
    if second.pair is None:
        raise RegistryError(f"gate refused the candidate of {issue}: {second.report.failures}")
    return second.pair
