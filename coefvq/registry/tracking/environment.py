"""What a run was made with: library versions, machine, Git commit and dvc.lock, the latter two read as files."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from coefvq.files import sha256_file

_PACKAGES = ("coefvq", "torch", "transformers", "peft", "accelerate", "deepspeed", "numpy", "av", "mlflow")


def environment_tags(workspace: Path) -> dict[str, str]:
    """Tags ``env.<what>``, ``git.commit`` and ``dvc.lock`` (its SHA-256); what is not there is left out."""
    tags = {
        "env.python": platform.python_version(),
        "env.machine": platform.platform(),
        "env.cpus": str(os.cpu_count()),
    }
    for name in _PACKAGES:
        try:
            tags[f"env.{name}"] = version(name)
        except PackageNotFoundError:
            continue
    if (commit := git_commit(workspace)) is not None:
        tags["git.commit"] = commit
    if (lock := workspace / "dvc.lock").is_file():
        tags["dvc.lock"] = sha256_file(lock)
    return tags


def git_commit(workspace: Path) -> str | None:
    """Commit that ``workspace`` is at, by the files of the repository around it; None outside of one."""
    for folder in (workspace.resolve(), *workspace.resolve().parents):
        if (folder / ".git").exists():
            return _head(_git_dir(folder / ".git"))
    return None


def _git_dir(entry: Path) -> Path:
    # in a worktree or submodule .git is a file that points to the folder
    if entry.is_file():
        return (entry.parent / entry.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
    return entry


def _head(git_dir: Path) -> str | None:
    try:
        head = (git_dir / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        shared = git_dir / "commondir"
        roots = (
            [git_dir, (git_dir / shared.read_text(encoding="utf-8").strip()).resolve()]
            if shared.is_file()
            else [git_dir]
        )
        for root in roots:
            if (root / name).is_file():
                return (root / name).read_text(encoding="utf-8").strip()
            if (packed := root / "packed-refs").is_file():
                for line in packed.read_text(encoding="utf-8").splitlines():
                    if line.endswith(f" {name}"):
                        return line.split(" ", 1)[0]
    except (OSError, UnicodeError):
        return None
    return None
