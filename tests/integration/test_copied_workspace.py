"""Clones of scheduled runs in a workspace that was copied: they belong to the copy, not to the original."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.run_clone import checkout_for_run
from tasks.workspace import commit, git


def test_a_copied_workspace_makes_its_clones_anew(tmp_path: Path) -> None:
    root = tmp_path / "original"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (root / ".gitignore").write_text("/.coefvq/\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    commit(root, "first")
    clone = checkout_for_run(root)
    (clone / "finished").touch()
    assert checkout_for_run(root) == clone
    assert (clone / "finished").exists()  # a run that was killed finds its work

    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    made = checkout_for_run(copy)
    assert made == copy / ".coefvq" / "runs" / clone.name
    assert not (made / "finished").exists()
    assert git(made, "config", "remote.origin.url") == str(copy)
    assert str(root) not in (made / ".dvc" / "config.local").read_text()
    assert (clone / "finished").exists()
