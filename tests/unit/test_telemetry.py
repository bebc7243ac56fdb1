"""Telemetry is off for whatever is started: a command, a flow, a plain script."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from coefvq.telemetry import QUIET

SAY = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.mark.parametrize(
    "start",
    [
        "import flows.retrain",
        "import coefvq\ntry:\n    coefvq.load('icd', workspace='nowhere')\nexcept Exception:\n    pass",
        "import sys, coefvq.__main__\nsys.argv = ['coefvq', '--version']\ntry:\n    coefvq.__main__.main()\n"
        "except SystemExit:\n    pass",
    ],
    ids=["flow", "script", "command"],
)
def test_telemetry_is_off_before_a_library_could_send(start: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in QUIET} | {"DVC_NO_ANALYTICS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", f"{start}\n{SAY}"], env=env, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: found.get(name) for name in QUIET} == QUIET | {"DVC_NO_ANALYTICS": "0"}, "the user's word counts"
