"""``coefvq vmp mllm``: serve the tasks that base verdicts leave for the MLLM; and the budget that bounds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coefvq.cli.options import (
    BudgetOption,
    BurstOption,
    ConfigOption,
    FeaturesOption,
    JsonOption,
    MaxWaitOption,
    ParamsOption,
)
from coefvq.cli.vmp_engines import chosen, limits
from coefvq.cli.vmp_state import (
    BatchOption,
    FollowOption,
    PollOption,
    RulesOption,
    ScoredIssuesOption,
    StateOption,
    TenantsOption,
    print_result,
    state_folder,
)
from coefvq.cli.vmp_stream import open_stream
from coefvq.config import PARAMS_FILE
from coefvq.terminal import say

if TYPE_CHECKING:
    from coefvq.vmp.outlook import Latency, Outlook


def mllm(
    once: Annotated[bool, typer.Option("--once", help="End when no task can be served.")] = False,
    batch_size: BatchOption = 32,
    rules: RulesOption = None,
    tenants: TenantsOption = None,
    issue: ScoredIssuesOption = None,
    poll_interval: PollOption = 1.0,
    follow_interval: FollowOption = 5.0,
    budget: BudgetOption = None,
    burst: BurstOption = 8,
    max_wait: MaxWaitOption = 1800.0,
    features: FeaturesOption = None,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the MLLM about videos whose base verdict waits for it, the highest score first.

    Several may run beside `coefvq vmp run --mllm workers`; give all the same --config, or the same rules, tenants and
    features.
    """
    from coefvq.vmp import loop, worker
    from coefvq.vmp.outlook import outlook

    typed = {"--state": state, "--rules": rules, "--tenants": tenants, "--features": features, "--mllm-budget": budget}
    settings = chosen(config, typed, state_folder(state, params))
    with open_stream(
        settings.store.state,
        params,
        settings.rules or rules,
        settings.tenants or tenants,
        issue,
        interval=follow_interval,
        patient=not once,
        limits=limits(settings, budget, burst, max_wait),
        features=settings.features or features,
        create=False,
    ) as stream:
        served = worker.mllm_work(stream.log, stream.index)
        loop.run(
            worker.NoEvents(), stream.deployments, stream.index, stop=stream.stop, on_batch=lambda report: None,
            batch_size=batch_size, once=once, poll_interval=poll_interval, consumer="mllm", work=[served],
            on_hold=say,
        )  # fmt: skip
        summary = {**served.counts, "pending": outlook(stream.index.database, loop.now().timestamp()).tasks}
    line = f"{summary['answered']} answered, {summary['expired']} given up, {summary['pending']} wait"
    print_result(summary, as_json, [line])


def queue_lines(found: Outlook) -> list[tuple[str, str]]:
    """Name and value of each line that `coefvq vmp status` shows of the queue."""
    lines = [("wait for the MLLM", f"{found.tasks} ({found.audits} audit, {found.outage} since an outage)")]
    if found.rate is not None:
        lines += [
            ("MLLM budget", f"{found.rate:g} calls/s, expected wait {found.expected_wait or 0.0:.0f} s"),
            ("given up of the last 1000", str(found.shed)),
            ("approved thresholds", _certificate(found)),
        ]
    lines += [(f"seconds to {name}", _seconds(latency)) for name, latency in
              (("a full verdict", found.answered), ("a takedown", found.takedown))]  # fmt: skip
    return lines


def _certificate(found: Outlook) -> str:
    if found.certificate_holds:
        return "in effect"
    raised = "" if found.effective_threshold is None else f"; in effect is {found.effective_threshold:.4g}"
    return f"VOID: the budget lets tasks go{raised}"


def _seconds(latency: Latency | None) -> str:
    return "–" if latency is None else f"p50 {latency.p50:.1f}, p99 {latency.p99:.1f} ({latency.videos} videos)"
