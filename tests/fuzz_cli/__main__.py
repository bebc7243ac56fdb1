"""``python -m tests.fuzz_cli``: damaged files and odd arguments through every command, judged one by one.

Exit code 1 if anything is wrong. ``--case ID`` plays one case again and shows what the command said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TextIO

from tests.fuzz_cli.libraries import preload
from tests.fuzz_cli.run import Result, Summary, private_folder, run


def main() -> int:
    options = _parser().parse_args()
    sys.dont_write_bytecode = True  # in a fresh clone the first import would count as a write outside
    for name, value in (("OMP_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1"), ("PYTHONDONTWRITEBYTECODE", "1")):
        os.environ.setdefault(name, value)
    # as coefvq's main does, before anything heavy is imported
    from coefvq.telemetry import switch_off

    switch_off()
    preload(options.light)
    import coefvq
    from tests.fuzz_cli.arguments import inventory
    from tests.fuzz_cli.base import cached_base
    from tests.fuzz_cli.cases import draw, find
    from tests.fuzz_cli.conditions import can_mount

    base = options.base or cached_base(Path(str(coefvq.__file__)).parent, options.light)
    commands = inventory()
    if options.case:
        cases = [find(name, options.seed, commands) for name in options.case]
    else:
        cases = draw(options.cases, options.seed, commands, options.only, options.light)
    missed = missed_faults()
    if missed:
        print(f"the judge does not see planted faults: {'; '.join(missed)}", file=sys.stderr)
        return 2
    possible = cases if can_mount() else [case for case in cases if not case.needs_mount]
    skipped, cases = len(cases) - len(possible), possible
    print(f"{len(cases)} cases on {Path(str(coefvq.__file__)).parent}", file=sys.stderr, flush=True)
    with options.details.open("w") if options.details else nullcontext() as details:
        summary = run(cases, base, workers=options.workers, show=partial(_show, details=details, quiet=options.json))
    if options.case:
        for result in summary.results:
            print(f"--- {result.case}: rc {result.code}\n{result.stdout}{result.stderr}")
    _print(summary, options, skipped)
    return 1 if summary.failures else 0


def missed_faults() -> list[str]:
    """Planted faults that the judge does not find, or finds where there are none."""
    from tests.fuzz_cli.planted import PLANTED, planted_cases

    missed = []
    with private_folder() as base:
        (base / "params.yaml").write_text("seed: 7\n")
        results = run(planted_cases(), base, workers=1).results
    for result in results:
        name = result.case.split(":")[1]
        kinds = [fault.kind for fault in result.faults]
        wanted = PLANTED[name][2]
        if (wanted not in kinds) if wanted else kinds:
            missed.append(f"{name}: {kinds}, expected {wanted}")
    return missed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_cli", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1200, help="how many")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same cases")
    parser.add_argument("--only", metavar="COMMAND", help='cases of one command, e.g. "score" or "vmp run"')
    parser.add_argument("--case", action="append", metavar="ID", help="play one case again; repeatable")
    parser.add_argument("--workers", type=int, default=2, help="cases side by side")
    parser.add_argument("--light", action="store_true", help="only what needs no model and no tracking store")
    parser.add_argument("--base", type=Path, help="a base workspace that an earlier run has made")
    parser.add_argument("--details", type=Path, help="write every result here, one JSON object per line")
    parser.add_argument("--json", action="store_true", help="only the summary, as one line of JSON")
    return parser


def _show(result: Result, details: TextIO | None, quiet: bool) -> None:
    """One line per fault, as they come."""
    for fault in result.faults if not quiet else ():
        print(f"FAIL {result.case}  [{result.command}]  {fault.kind}: {fault.detail[:300]!r}", flush=True)
    if details is not None:
        print(json.dumps(result.to_json()), file=details, flush=True)


def _print(summary: Summary, options: argparse.Namespace, skipped: int) -> None:
    facts = {**summary.to_json(), "skipped": skipped, "seed": options.seed}
    if options.json:
        failures = [[r.case, [f"{f.kind}: {f.detail}" for f in r.faults]] for r in summary.failures]
        print(json.dumps({**facts, "failures": failures}))
        return
    print(json.dumps(facts))


if __name__ == "__main__":
    sys.exit(main())
