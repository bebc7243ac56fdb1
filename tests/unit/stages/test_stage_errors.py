"""A stage that fails under `dvc repro`: its line comes once, clean, with its own exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coefvq.errors import DataError
from tasks.pipeline import StageError, data_version, repro

STAGE = """\
import sys
print("https://u:pw@host/x \\x1b[2J working")
print("error: clip \\x1b[2J of https://u:pw@host/x?sig=1 is broken; delete it", file=sys.stderr)
sys.exit(4)
"""


def test_the_error_of_a_stage_is_shown_once_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  validate:\n    cmd: {sys.executable} stage.py\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    lines: list[str] = []
    with pytest.raises(StageError) as caught:
        repro(tmp_path, ["validate"], on_line=lines.append)
    assert caught.value.exit_code == 4
    assert str(caught.value) == "validate: clip \\x1b[2J of https://***@host/x?*** is broken; delete it"
    assert "https://***@host/x \\x1b[2J working" in lines
    assert not any("broken" in line for line in lines)


@pytest.mark.parametrize("text", ["outs: []\n", "- a\n", "outs:\n- md5: a\n  md5: b\n", "outs: [\n"])
def test_a_damaged_pointer_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "raw.dvc").write_text(text)
    with pytest.raises(DataError, match=r"raw\.dvc.*version the clips again: dvc add raw"):
        data_version(tmp_path, "raw")
