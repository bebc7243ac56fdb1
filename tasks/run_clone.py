"""Throw-away clones of a workspace for runs, and what comes back from them."""

from __future__ import annotations

import shutil
from pathlib import Path

from coefvq.errors import CoefVQError, DataError
from coefvq.files import write_text
from tasks.workspace import dvc, git


def checkout_for_run(root: Path, run_id: str | None = None) -> Path:
    """A clone of the workspace's HEAD that shares its DVC cache; the same commit gives the same clone.

    A person's checkout is never touched by a scheduled run, and a run that was killed finds its
    finished stages again. A clone that came along when the workspace was copied or moved still belongs to the
    old place and is made anew. A run that is named stays at the commit it began with: it may be suspended for
    days and then starts from its top, while the workspace has moved on.

    Raises:
        DataError: the workspace has no commit.
    """
    root = root.resolve()
    try:
        head = git(root, "rev-parse", "HEAD")
    except CoefVQError as error:
        raise DataError(f"{root}: not a committed git workspace; commit it first (git commit)") from error
    if run_id is not None:
        pinned = root / ".coefvq" / "runs" / f"{run_id}.commit"
        if not pinned.is_file():
            write_text(pinned, head)
        head = pinned.read_text(encoding="utf-8")
    clone = root / ".coefvq" / "runs" / head[:12]
    if not (clone / ".ready").is_file() or git(clone, "config", "remote.origin.url") != str(root):
        shutil.rmtree(clone, ignore_errors=True)
        clone.parent.mkdir(parents=True, exist_ok=True)
        git(root, "clone", "--quiet", "--shared", str(root), str(clone))
        git(clone, "checkout", "--quiet", "--detach", head)
        dvc(clone, "config", "--local", "cache.dir", dvc(root, "cache", "dir"))
        dvc(clone, "checkout", "--quiet", "--allow-missing")
        (clone / ".ready").touch()
    return clone


def publish_run(root: Path, clone: Path) -> str:
    """Commit a run's dvc.lock and reports on a branch of the workspace; returns the branch."""
    branch = f"retrain/{clone.name}"
    git(clone, "add", "--all", "--", "dvc.lock", "reports", "data")
    if git(clone, "status", "--porcelain", "--untracked-files=no"):
        git(clone, "commit", "--quiet", "--message", f"Retrain on {clone.name}")
    git(clone, "push", "--quiet", "--force", str(root.resolve()), f"HEAD:refs/heads/{branch}")
    return branch
