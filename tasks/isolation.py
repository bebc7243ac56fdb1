"""A throw-away clone of a workspace to make a commit in, and the place where that commit is to appear.

Nothing here writes to the workspace's files, index or HEAD.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from coefvq.errors import CoefVQError, ConfigError, DataError
from tasks.process import CHILDREN
from tasks.workspace import git

# what a person sets in a repository so that its remote can be reached and commits are theirs
_CARRIED = re.compile(r"(user|credential|http|url|gpg)\.|(commit\.gpgsign|core\.sshcommand|core\.askpass)$")
_REF = re.compile(r"[0-9a-f]{40,64}\t")
_TELLING = re.compile(r"fatal:|error:|remote:|ssh:| ! \[")


class RemoteError(CoefVQError):
    """A git or DVC remote did not answer; trying again later may help."""


@dataclass(frozen=True)
class Target:
    """Where versions appear: a branch of origin, or a data branch of a workspace that has no origin.

    ``follow``: the ref of the same repository that the branch must contain (the workspace's own branch), if any.
    """

    url: str
    branch: str
    follow: str | None = None

    @property
    def is_origin(self) -> bool:
        return self.follow is None


def find_target(root: Path, push: bool, branch: str | None) -> Target:
    """Origin's branch (default: its HEAD) where the workspace has an origin and may push, else ``data/<branch>`` here.

    Raises:
        DataError: no commit, no branch, or an empty origin.
        RemoteError: origin does not answer.
    """
    try:
        git(root, "rev-parse", "--verify", "HEAD")
    except CoefVQError as error:
        raise DataError(f"{root}: not a committed git workspace; commit it first (git commit)") from error
    if not push or "origin" not in git(root, "remote").split():
        current = git(root, "branch", "--show-current")
        if not current:
            raise DataError(f"{root}: HEAD is on no branch; check one out first (git switch)")
        return Target(str(root), branch or f"data/{current}", f"refs/heads/{current}")
    url = _absolute(git(root, "remote", "get-url", "origin"), root)
    if branch is None:
        lines = _talk(root, "ls-remote", "--quiet", "--symref", url, "HEAD")
        heads = [line.split()[1] for line in lines if line.startswith("ref: refs/heads/")]
        if not heads:
            raise DataError(f"{url}: has no commit; publish the workspace first (git push origin HEAD)")
        branch = heads[0].removeprefix("refs/heads/")
    return Target(url, branch)


def refs(clone: Path, target: Target) -> dict[str, str]:
    """Ref -> commit of the target's repository: HEAD, branches, tags.

    Raises:
        RemoteError: it does not answer.
    """
    pairs = (line.split("\t") for line in _talk(clone, "ls-remote", "--quiet", target.url) if _REF.match(line))
    return {name: commit for commit, name in pairs}


@contextmanager
def run_folder(root: Path) -> Iterator[Path]:
    """A private folder for one run; what killed runs left behind is removed first.

    A run holds a lock in its folder, which the system releases when the process dies.
    """
    top = root / ".coefvq" / "snapshots"
    top.mkdir(parents=True, exist_ok=True)
    (top / ".gitignore").write_text("*\n", encoding="utf-8")  # also where the workspace's own does not ignore it
    with FileLock(top / ".lock"):
        for left in [path for path in top.iterdir() if path.is_dir()]:
            _remove_if_dead(left)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=top))  # rights 0700: the clone may hold credentials
        lock = FileLock(folder / ".lock")
        lock.acquire()
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def make_clone(root: Path, clone: Path) -> None:
    """Clone a workspace without its files; objects, DVC cache, remotes and credentials are the workspace's."""
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(clone))
    # -z: a line feed ends the key and may stand in the value
    for entry in git(root, "config", "--local", "--includes", "--list", "-z").split("\0"):
        key, _, value = entry.partition("\n")
        if _CARRIED.match(key):
            git(clone, "config", "--local", "--add", key, value)


def share_dvc(root: Path, clone: Path, remote: str | None) -> str | None:
    """Give a checked-out clone the workspace's DVC cache and remotes; returns the remote in use, if any.

    Raises:
        ConfigError: there is no remote of that name.
    """
    from dvc.config import Config

    own = Config(dvc_dir=str(root / ".dvc"))
    used: str | None = remote or own["core"].get("remote")
    if used and used not in own["remote"]:
        known = ", ".join(own["remote"]) or "none"
        raise ConfigError(f"DVC remote '{used}': not configured in {root} (configured: {known}); dvc remote add")
    with Config(dvc_dir=str(clone / ".dvc")).edit("local") as local:
        local["remote"] = own["remote"]
        local["cache"] = {
            **own["cache"],
            "dir": own["cache"].get("dir") or str(root / ".dvc" / "cache"),
            # the clone is deleted and its files are never written to: links save a copy of every clip
            "type": ["hardlink", "copy"],
        }
        local["core"]["site_cache_dir"] = str(clone.parent / "site")
        if used:
            local["core"]["remote"] = used
    return used


def reset(clone: Path, target: Target, known: Mapping[str, str]) -> None:
    """Put the clone on the tip that the next version is made on.

    Raises:
        DataError: the workspace's branch and its data branch cannot be merged.
        RemoteError: the target does not answer.
    """
    tip = known.get(f"refs/heads/{target.branch}") or known[target.follow or "HEAD"]
    if target.is_origin:  # a workspace's own objects are shared
        _talk(clone, "fetch", "--quiet", "--no-tags", target.url, "+refs/heads/*:refs/remotes/target/*")
    git(clone, "checkout", "--quiet", "--force", "--detach", tip)
    if target.follow:
        try:
            git(clone, "merge", "--quiet", "--no-edit", known[target.follow])
        except CoefVQError as error:
            own = target.follow.removeprefix("refs/heads/")
            raise DataError(
                f"{target.url}: {own} and {target.branch} changed the same lines; merge them first: git merge "
                f"{target.branch}"
            ) from error


def push(clone: Path, target: Target, known: Mapping[str, str], tags: Sequence[str]) -> bool:
    """Publish the clone's HEAD as the target's branch and as ``tags``, all or none; False if somebody was faster.

    ``known``: the target's refs that the version was made on.

    Raises:
        RemoteError: the target does not answer, or refuses.
    """
    commit = git(clone, "rev-parse", "HEAD")
    names = [f"refs/heads/{target.branch}", *(f"refs/tags/{tag}" for tag in tags)]
    try:
        _talk(clone, "push", "--quiet", "--atomic", "--no-verify", target.url, *(f"HEAD:{name}" for name in names))
    except RemoteError:
        # what is there now tells more surely than git's words: our push whose answer was lost, another's, a refusal
        after = refs(clone, target)
        if all(after.get(name) == commit for name in names):
            return True
        if all(after.get(name) == known.get(name) for name in names):
            raise
        return False
    return True


def _talk(folder: Path, *arguments: str) -> list[str]:
    """Run a git command that may use the network; it never waits for somebody to type a password."""
    lines: list[str] = []
    done = CHILDREN.run(["git", *arguments], folder, {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}, lines.append)
    if done.returncode:
        telling = [line for line in lines if _TELLING.match(line)] or lines or ["no output"]
        reason = "; ".join(line.strip() for line in telling[:3])
        raise RemoteError(f"git {arguments[0]} failed: {reason}; check the address, network, credentials and rights")
    return lines


def _absolute(url: str, root: Path) -> str:
    # a path is relative to the workspace, and the clone lies elsewhere; host:path and scheme://host are no paths
    return url if re.match(r"[^/]+:", url) else str((root / url).resolve())


def _remove_if_dead(folder: Path) -> None:
    lock = FileLock(folder / ".lock")
    with contextlib.suppress(Timeout), lock.acquire(timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
