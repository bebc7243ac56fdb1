"""Two issues side by side, by DVC itself: each needs the other's company, and one that fails ends the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.pipeline import StageError, repro_issues

#: who opens a named pipe waits until somebody opens its other end
MEET = "open('meet', '{mode}').close(); open('{issue}.txt', 'w').write('{issue}')"
FAIL = "open('meet', 'r').close(); raise SystemExit('error: nothing to learn')"
WAIT = "import signal; open('meet', 'w').close(); open('here', 'w').close(); signal.pause()"


def workspace(folder: Path, icd: str, ucc: str) -> Path:
    stages = {"split": "open('splits', 'w').write('1')", "candidate@icd": icd, "candidate@ucc": ucc}
    for name, code in stages.items():
        (folder / f"{name}.py").write_text(code)
    body = {
        "split": {"cmd": f"{sys.executable} split.py", "outs": ["splits"]},
        "candidate": {
            "foreach": ["icd", "ucc"],
            "do": {"cmd": f"{sys.executable} candidate@${{item}}.py", "deps": ["splits"], "outs": ["${item}.txt"]},
        },
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": body}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    os.mkfifo(folder / "meet")
    return folder


def test_two_issues_run_at_once_and_the_rest_after_them(tmp_path: Path) -> None:
    root = workspace(tmp_path, MEET.format(mode="r", issue="icd"), MEET.format(mode="w", issue="ucc"))
    lines: list[str] = []
    repro_issues(root, ["icd", "ucc"], set(), {}, lines.append)
    assert (root / "icd.txt").read_text() + (root / "ucc.txt").read_text() == "icducc"
    assert sum("Running stage 'split'" in line for line in lines) == 1
    repro_issues(root, ["icd", "ucc"], [frozenset({"icd", "ucc"})], {}, lines.append)
    assert sum("Running stage" in line for line in lines) == 3


@pytest.mark.long
def test_an_issue_that_fails_ends_the_other(tmp_path: Path) -> None:
    root = workspace(tmp_path, FAIL, WAIT)
    with pytest.raises(StageError, match="candidate@icd: nothing to learn"):
        repro_issues(root, ["icd", "ucc"], set(), {})
    assert not (root / "ucc.txt").exists()
