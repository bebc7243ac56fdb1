"""``coefvq show``: the result of the last run, registered or not."""

from __future__ import annotations

from coefvq.cli.options import IssuesOption, JsonOption, ParamsOption
from coefvq.cli.workspace import open_workspace
from coefvq.config import PARAMS_FILE
from coefvq.terminal import echo, echo_json, show


def show_results(issue: IssuesOption = None, as_json: JsonOption = False, params: ParamsOption = PARAMS_FILE) -> None:
    """Print base, MLLM and cascade of the last `dvc repro` on the test split, a table per issue.

    Example: coefvq show --issue icd
    """
    from coefvq.reporting.results import read_result

    settings = open_workspace(params)
    names = [settings.check_issue(name) for name in issue or settings.issues]
    results = [read_result(settings.paths, name) for name in names]
    if as_json:
        echo_json([result.to_json() for result in results], indent=2)
        return
    for result in results:
        show(result.table(), width=80)
        echo(f"{result.issue}: {result.reason}")
