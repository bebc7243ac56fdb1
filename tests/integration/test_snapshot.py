"""Snapshots with real git and DVC: both layouts, collisions, kill -9 at each step, and a person's tree left alone."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coefvq import __main__
from coefvq.cli import lazy
from coefvq.config import load_params
from coefvq.data.importers import open_table
from coefvq.data.importers.ids import id_from_path
from coefvq.errors import CoefVQError, ConfigError, DataError, MediaError
from tasks import isolation, versioning
from tasks.isolation import RemoteError
from tasks.snapshot_run import SnapshotRequest
from tasks.versioning import Snapshot, take
from tasks.workspace import change_params, commit, create, dvc, git


def clips(folder: Path, *ids: str, label: str = "0") -> Path:
    """A batch: one small file per id and a table. What a clip shows does not matter here."""
    (folder / "videos").mkdir(parents=True)
    rows = [f"videos/{name}.mp4,{name},{label}" for name in ids]
    (folder / "metadata.csv").write_text("\n".join(["file_name,video_id,label_icd", *rows]) + "\n")
    for name in ids:
        (folder / "videos" / f"{name}.mp4").write_text(f"clip {name}")
    return folder


@dataclass(frozen=True)
class Site:
    """A workspace, and where it publishes to: a bare origin and a DVC remote, or (laptop) nowhere."""

    top: Path

    @property
    def root(self) -> Path:
        return self.top / "w"

    @property
    def origin(self) -> Path:
        return self.top / "origin.git"

    def batch(self, name: str, *ids: str, label: str = "0") -> Path:
        return clips(self.top / "batches" / name, *ids, label=label)

    def take(self, batch: Path, **options: Any) -> Snapshot:
        return take(SnapshotRequest(batch, **{"workspace": self.root, **options}))

    def visible(self) -> str:
        """Every ref of origin, or of the workspace."""
        return git(self.origin if self.origin.exists() else self.root, "show-ref")

    def other_machine(self) -> Site:
        """A colleague's clone with a DVC cache of its own; where the remote lies is in its config.local."""
        other = Site(self.top / "other")
        other.top.mkdir()
        git(self.top, "clone", "--quiet", str(self.origin), str(other.root))
        dvc(other.root, "remote", "modify", "--local", "store", "url", str(self.top / "store"))
        return other

    def published(self, where: str = "fresh") -> dict[str, bytes]:
        """What a fresh clone gets: video_id -> bytes of its clip."""
        fresh = self.top / where
        git(self.top, "clone", "--quiet", str(self.origin), str(fresh))
        dvc(fresh, "pull", "--quiet", "data/raw.dvc")
        rows = open_table(fresh / "data" / "raw").rows()
        return {row["video_id"]: (fresh / "data" / "raw" / row["uri"]).read_bytes() for row in rows}


def contents(*ids: str) -> dict[str, bytes]:
    return {name: f"clip {name}".encode() for name in ids}


def tree(root: Path) -> dict[str, object]:
    """A person's checkout in full: bytes and times of files, index, HEAD, branch and git's own opinion."""
    found: dict[str, object] = {
        "status": git(root, "--no-optional-locks", "status", "--porcelain"),
        "head": (root / ".git" / "HEAD").read_text(),
        "main": git(root, "rev-parse", "main"),
    }
    skipped = {root / ".git", root / ".coefvq", root / ".dvc" / "cache", root / ".dvc" / "tmp"}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if Path(folder, name) not in skipped]
        for path in [Path(folder, name) for name in files] + ([root / ".git" / "index"] if folder == str(root) else []):
            found[str(path)] = (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def make_dirty(root: Path) -> None:
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "# half an idea\n")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    (root / "data" / "raw" / "videos" / "p1.mp4").unlink()
    (root / "untracked.txt").write_text("mine\n")
    (root / ".gitignore").write_text("")  # nobody promises that .coefvq is ignored


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two versioned clips; do not change it."""
    root = tmp_path_factory.mktemp("snapshot") / "w"
    create(root, {"issues": ["icd"]})
    clips(root / "data" / "raw", "p1", "p2", label="1")
    dvc(root, "add", "--quiet", "data/raw")
    commit(root, "First data")
    return root


@pytest.fixture
def laptop(first: Path, tmp_path: Path) -> Site:
    """A workspace without remotes."""
    shutil.copytree(first, tmp_path / "w", symlinks=True)
    return Site(tmp_path)


@pytest.fixture(scope="module")
def shared(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with origin and DVC remote, all pushed; do not change it."""
    site = Site(tmp_path_factory.mktemp("team"))
    shutil.copytree(first, site.root, symlinks=True)
    # relative addresses, which mean something else in a clone that lies elsewhere
    git(site.top, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(site.root, "remote", "add", "origin", "../origin.git")
    (site.top / "store").mkdir()
    dvc(site.root, "remote", "add", "--quiet", "--default", "store", "../store")
    commit(site.root, "Remote")
    dvc(site.root, "push", "--quiet", "data/raw.dvc")
    git(site.root, "push", "--quiet", "origin", "main")
    return site.top


@pytest.fixture
def team(shared: Path, tmp_path: Path) -> Site:
    """A copy of workspace, origin and DVC remote to change at will."""
    shutil.copytree(shared, tmp_path / "site", symlinks=True)
    return Site(tmp_path / "site")


def test_two_batches_reach_a_fresh_clone(team: Site) -> None:
    make_dirty(team.root)
    before = tree(team.root)
    one = team.take(team.batch("monday", "a", "b", label="1"))
    labelled = team.top / "batches" / "tuesday"
    (labelled / "fight").mkdir(parents=True)
    (labelled / "fight" / "c.mp4").write_text("clip tuesday-c")
    two = team.take(labelled, message="Fights of Tuesday", tag="release-7")
    assert (one.tag, one.added, two.tag, two.added) == ("data-v1", 2, "data-v2", 1)
    named = {f"tuesday-{id_from_path('fight/c.mp4')}": b"clip tuesday-c"}
    assert team.published() == contents("p1", "p2", "a", "b") | named
    assert tree(team.root) == before
    assert list((team.root / ".coefvq" / "snapshots").glob("run-*")) == []

    log = git(team.origin, "log", "-2", "--format=%s%n%b%D", "main")
    assert "Fights of Tuesday\nadded: 1 clips; icd 0 positive of 0\nin all: 5 clips; icd 4 positive of 4\n" in log
    assert "Data v1: 2 clips from monday\nadded: 2 clips; icd 2 positive of 2\n" in log
    for tag in ("data-v2", "release-7"):
        assert git(team.origin, "rev-parse", tag) == two.commit == git(team.origin, "rev-parse", "main")
    record = json.loads((team.top / "fresh" / "data" / "snapshot.json").read_text())
    assert (record["version"], record["parent"], record["layout"], record["total"]["clips"]) == (2, 1, "files", 5)
    table = team.top / "fresh" / record["table"]["path"]
    assert record["table"]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()

    # the old version is still what it was
    git(team.top / "fresh", "checkout", "--quiet", "data-v1")
    dvc(team.top / "fresh", "pull", "--quiet", "data/raw.dvc")
    assert sorted(path.name for path in (team.top / "fresh/data/raw").rglob("*.mp4")) == [
        "a.mp4", "b.mp4", "p1.mp4", "p2.mp4"
    ]  # fmt: skip


@pytest.mark.long
def test_the_same_batch_twice_is_one_version(team: Site) -> None:
    batch = team.batch("monday", "a")
    team.take(batch)
    before = team.visible()
    again = team.take(batch)
    assert (again.tag, again.added, again.known) == (None, 0, 1)
    assert again.lines() == ["nothing new: all 1 clips are there already"]
    assert team.visible() == before
    # a batch of the same name with other clips gets a folder of its own
    (batch / "videos" / "b.mp4").write_text("clip b")
    (batch / "metadata.csv").write_text("file_name,video_id,label_icd\nvideos/a.mp4,a,0\nvideos/b.mp4,b,1\n")
    more = team.take(batch)
    assert (more.added, more.known) == (1, 1)
    assert team.published() == contents("p1", "p2", "a", "b")
    assert (team.top / "fresh/data/raw/monday-2/videos/b.mp4").is_file()
    # and the user's own files are not what DVC's cache holds: writing to them changes no version
    assert (batch / "videos" / "b.mp4").stat().st_nlink == 1


@pytest.mark.long
def test_reference_layout_versions_rows_and_hashes(team: Site) -> None:
    store = team.top / "media"
    for day, name in (("d1", "a"), ("d2", "b")):
        clips(store / day, name, label="1")
    change_params(team.root / "params.yaml", {"paths.media": "../media"})
    git(team.root, "rm", "--quiet", "--cached", "data/raw.dvc")
    (team.root / "data" / "raw.dvc").unlink()
    shutil.rmtree(team.root / "data" / "raw")
    commit(team.root, "Clips stay in their store")
    git(team.root, "push", "--quiet", "origin", "main")
    before = tree(team.root)
    assert team.take(store / "d1").record["layout"] == "reference"
    assert team.take(store / "d2").tag == "data-v2"
    assert tree(team.root) == before

    fresh = team.top / "fresh"
    git(team.top, "clone", "--quiet", str(team.origin), str(fresh))
    dvc(fresh, "pull", "--quiet", "data/raw.dvc")
    assert [path.name for path in (fresh / "data" / "raw").iterdir()] == ["metadata.parquet"]
    rows = {row["uri"]: row["sha256"] for row in open_table(fresh / "data" / "raw").rows()}
    assert rows == {
        f"{d}/videos/{n}.mp4": hashlib.sha256(f"clip {n}".encode()).hexdigest() for d, n in (("d1", "a"), ("d2", "b"))
    }
    with pytest.raises(ConfigError, match="keeps one layout"):
        team.take(store / "d1", layout="files")


@pytest.mark.long
@pytest.mark.parametrize("begin", ["nothing", "folders", "manifest"])
def test_the_first_table_of_a_workspace(begin: str, laptop: Site) -> None:
    """No data at all, or clips in folders named after their label, whose rows get a table now.

    With a manifest, the ids in it become the explicit ones: an older version has given them by another rule.
    """
    raw = laptop.root / "data" / "raw"
    git(laptop.root, "rm", "--quiet", "data/raw.dvc")
    shutil.rmtree(raw)
    if begin != "nothing":
        for label in ("0", "1"):
            (raw / label).mkdir(parents=True)
            (raw / label / f"old{label}.mp4").write_text(f"clip old{label}")
        dvc(laptop.root, "add", "--quiet", "data/raw")
    change_params(laptop.root / "params.yaml", {"ingest.labels.icd.column": "label"})
    commit(laptop.root, "Begin anew")
    known, uris = ["old0", "old1"], ["0/old0.mp4", "1/old1.mp4"]
    if begin == "manifest":
        pd.DataFrame({"video_id": known, "uri": uris}).to_parquet(laptop.root / "data" / "manifest.parquet")
    batch = laptop.top / "batches" / "b"
    (batch / "1").mkdir(parents=True)
    (batch / "1" / "old1.mp4").write_text("clip new1")  # a name that is there already
    made = laptop.take(batch)
    git(laptop.root, "merge", "--quiet", "--ff-only", "data-v1")
    dvc(laptop.root, "checkout", "--quiet", "--force", "data/raw.dvc")
    params = load_params(laptop.root / "params.yaml")
    rows = {row["video_id"]: row for row in open_table(raw, labels={"icd": params.ingest.labels["icd"]}).rows()}
    rule = {"nothing": (), "folders": map(id_from_path, uris), "manifest": known}[begin]
    old = dict(zip(rule, (0, 1), strict=False))
    assert {name: row["label_icd"] for name, row in rows.items()} == {**old, f"b-{id_from_path('1/old1.mp4')}": 1}
    texts = {"clip new1", *(["clip old0", "clip old1"] if old else [])}
    assert {(raw / row["uri"]).read_text() for row in rows.values()} == texts
    assert made.record["total"] == {
        "clips": 1 + len(old), "labels": {"icd": {"labelled": 1 + len(old), "positive": 1 + len(old) // 2}}
    }  # fmt: skip


@pytest.mark.long
def test_without_origin_the_version_waits_on_a_data_branch(laptop: Site) -> None:
    make_dirty(laptop.root)
    before = tree(laptop.root)
    one = laptop.take(laptop.batch("one", "a"))
    laptop.take(laptop.batch("two", "b"))
    assert tree(laptop.root) == before
    assert git(laptop.root, "rev-parse", "data/main") == git(laptop.root, "rev-parse", "data-v2")
    assert (one.branch, one.data_in) == ("data/main", "this machine's DVC cache only")

    # main moves on meanwhile; the next version holds its commit too, so it can be taken over as it is
    git(laptop.root, "checkout", "--quiet", "--force", "main")
    (laptop.root / "notes.txt").write_text("an idea\n")
    git(laptop.root, "add", "notes.txt")
    git(laptop.root, "commit", "--quiet", "--message", "Notes")
    three = laptop.take(laptop.batch("three", "c"))
    assert three.take_over == "git merge --ff-only data-v3 && dvc checkout data/raw.dvc"
    git(laptop.root, "merge", "--quiet", "--ff-only", "data-v3")
    dvc(laptop.root, "checkout", "--quiet", "--force", "data/raw.dvc")
    rows = open_table(laptop.root / "data" / "raw").rows()
    assert {row["video_id"] for row in rows} == {"p1", "p2", "a", "b", "c"}
    assert (laptop.root / "data/raw/three/videos/c.mp4").read_text() == "clip c"

    # data changed by hand on one side and by a snapshot on the other: a person must say what is meant
    laptop.take(laptop.batch("four", "d"))
    (laptop.root / "data/raw/videos/p2.mp4").unlink()
    dvc(laptop.root, "add", "--quiet", "data/raw")
    commit(laptop.root, "Clip taken out")
    with pytest.raises(DataError, match="git merge data/main"):
        laptop.take(laptop.batch("five", "e"))


@pytest.mark.long
def test_overtaken_runs_are_added_on_top(team: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine publishes between this run's commit and its push, twice."""
    other = team.other_machine()
    mine = team.batch("mine", "m")
    others = [other.batch("one", "x"), other.batch("two", "y")]
    pushed: list[bool] = []

    def push_second(*arguments: Any) -> bool:
        if others:
            batch = others.pop(0)
            monkeypatch.setattr(versioning, "push", plain)
            other.take(batch)
            monkeypatch.setattr(versioning, "push", push_second)
        pushed.append(plain(*arguments))
        return pushed[-1]

    plain: Callable[..., bool] = isolation.push
    monkeypatch.setattr(versioning, "push", push_second)
    made = team.take(mine)
    assert pushed == [False, False, True]
    assert (made.tag, made.record["parent"], made.record["total"]["clips"]) == ("data-v3", 2, 5)
    assert team.published() == contents("p1", "p2", "x", "y", "m")
    assert git(team.origin, "log", "--format=%s", "main").splitlines()[:3] == [
        "Data v3: 1 clips from mine",
        "Data v2: 1 clips from two",
        "Data v1: 1 clips from one",
    ]


@pytest.mark.long
def test_three_at_once_in_one_workspace_all_land(team: Site) -> None:
    batches = [team.batch(name, name) for name in ("a", "b", "c")]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda batch: snapshot_process(team, batch), batches))
    assert [process.returncode for process in done] == [0, 0, 0], [process.stderr for process in done]
    tags = sorted(json.loads(process.stdout)["tag"] for process in done)
    assert tags == ["data-v1", "data-v2", "data-v3"]
    assert team.published() == contents("p1", "p2", "a", "b", "c")


#: kills its process just before it starts a child whose command line holds the words given
CHILD = """
import json, os, signal, sys
from pathlib import Path
from tasks.versioning import SnapshotRequest, take

batch, root, words = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]

def watch(event, arguments):
    if words and event == "subprocess.Popen" and " ".join(words) in " ".join(map(str, arguments[1])):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
print(json.dumps(take(SnapshotRequest(batch, root)).as_json()))
"""


def snapshot_process(site: Site, batch: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", CHILD, str(batch), str(site.root), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["team", "laptop"])
def test_killed_at_each_step(kind: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(kind)
    batch = site.batch("monday", "a")
    make_dirty(site.root)
    before, refs = tree(site.root), site.visible()
    steps = ["dvc checkout", "dvc add", "commit", "dvc push", "push --quiet --atomic"]
    if kind == "laptop":  # the rest is the same code
        steps = steps[::4]
    for step in steps:
        killed = snapshot_process(site, batch, *step.split())
        assert killed.returncode == -signal.SIGKILL, (step, killed.stderr)
        assert site.visible() == refs, step
        assert tree(site.root) == before, step
    # the next run clears up and succeeds, and one that died after publishing has published
    after = snapshot_process(site, batch, "rev-parse", "--verify", "HEAD^{commit}")
    assert (after.returncode, json.loads(after.stdout)["tag"]) == (0, "data-v1")
    assert tree(site.root) == before
    assert list((site.root / ".coefvq" / "snapshots").glob("run-*")) == []


@pytest.mark.long
def test_a_remote_that_takes_no_data_gets_no_pointer(team: Site) -> None:
    refs, store = team.visible(), team.top / "store"
    store.rename(team.top / "away")
    store.write_text("not a folder\n")
    with pytest.raises(RemoteError, match="DVC remote 'store' did not take the data, so no version was published"):
        team.take(team.batch("monday", "a"))
    assert team.visible() == refs
    # without pushing it can still be versioned on this machine
    made = team.take(team.top / "batches" / "monday", push=False)
    assert (made.branch, made.repository) == ("data/main", str(team.root))
    store.unlink()
    (team.top / "away").rename(store)
    assert team.take(team.top / "batches" / "monday").tag == "data-v1"


@pytest.mark.long
def test_origin_refuses_or_is_away(team: Site) -> None:
    refs, batch = team.visible(), team.batch("monday", "a")
    hook = team.origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho only on weekdays >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(RemoteError, match=r"remote: only on weekdays.*pre-receive hook declined"):
        team.take(batch)
    assert team.visible() == refs
    hook.unlink()
    assert team.take(batch, branch="incoming").branch == "incoming"  # for a branch that is merged by review
    team.origin.rename(team.top / "away.git")
    with pytest.raises(RemoteError, match="does not appear to be a git repository"):
        team.take(batch)


def test_what_cannot_be_snapshot(laptop: Site, tmp_path: Path) -> None:
    batch = laptop.batch("monday", "a")

    def refused(error: type[CoefVQError], words: str, *, of: Path = batch, **options: Any) -> None:
        with pytest.raises(error, match=words):
            laptop.take(of, **options)

    (tmp_path / "empty").mkdir()
    refused(DataError, "neither a metadata table nor video files", of=tmp_path / "empty")
    refused(DataError, "is the versioned folder", of=laptop.root / "data" / "raw")
    refused(DataError, "shares clips with it", of=laptop.root / "data")
    refused(DataError, "not a workspace", workspace=tmp_path / "empty")
    refused(ConfigError, "DVC remote 's3': not configured", remote="s3")
    refused(ConfigError, "tag v1 exists already", tag=git(laptop.root, "tag", "v1") or "v1")
    (batch / "videos" / "a.mp4").unlink()
    refused(MediaError, "No such file")
    fresh = tmp_path / "fresh"
    create(fresh, {"issues": ["icd"]})
    refused(DataError, "commit it first", workspace=fresh)
    commit(fresh, "Empty")
    clips(fresh / "data" / "raw", "q")
    refused(DataError, "holds data that is not versioned", workspace=fresh)
    shutil.rmtree(fresh / "data" / "raw")
    git(fresh, "checkout", "--quiet", "--detach")
    refused(DataError, "HEAD is on no branch", workspace=fresh)


def test_the_command(
    laptop: Site, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`coefvq data snapshot` as pyproject.toml announces it, whether or not that is installed yet."""
    announced = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["entry-points"]

    def entry_points(group: str) -> EntryPoints:
        return EntryPoints(EntryPoint(name, value, group) for name, value in announced[group].items())

    def coefvq(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["coefvq", "data", "snapshot", *argv])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    monkeypatch.setattr(lazy, "entry_points", entry_points)
    monkeypatch.chdir(laptop.root)
    batch = str(laptop.batch("monday", "a", "b"))
    code, out, _ = coefvq("--from", batch)
    assert (code, out.splitlines()[0]) == (0, "data-v1: 2 clips added; 4 in all")
    assert "git merge --ff-only data-v1 && dvc checkout data/raw.dvc" in out
    code, out, _ = coefvq("--from", batch, "--json", "--no-push")
    assert (code, json.loads(out)["tag"], json.loads(out)["known"]) == (0, None, 2)
    code, out, err = coefvq("--from", "nowhere")
    assert (code, out) == (3, "")
    assert "error: " in err
    assert "nowhere" in err


def test_the_flow_makes_the_version(laptop: Site, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Its steps without Prefect's server."""
    from flows import snapshot

    for name in ("locate", "collect", "land"):
        monkeypatch.setattr(snapshot, name, getattr(snapshot, name).fn)
    monkeypatch.setattr(snapshot, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(snapshot, "protect", lambda: None)  # for the whole process
    with caplog.at_level(logging.INFO):
        made = snapshot.snapshot.fn(str(laptop.batch("monday", "a")), str(laptop.root))
    assert made["tag"] == "data-v1"
    assert "data-v1: 1 clips added" in caplog.text


@pytest.mark.long  # starts Prefect's server
def test_the_flow(laptop: Site, tmp_path: Path) -> None:
    batch = laptop.batch("monday", "a")
    code = (
        "import sys, json; from flows.snapshot import snapshot; print(json.dumps(snapshot(sys.argv[1], sys.argv[2])))"
    )
    env = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    env["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"  # a busy machine takes its time
    env.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", code, str(batch), str(laptop.root)],
        capture_output=True, text=True, check=False, env=env, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["tag"] == "data-v1"
    assert "data-v1: 1 clips added" in done.stderr


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (RemoteError("away"), True),
        (MediaError("unreachable", "away"), True),
        (MediaError("missing", "no such clip"), False),
        (DataError("bad row"), False),
        (OSError("disk full"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    from prefect.states import Failed

    from tasks.snapshot import _worth_retrying

    assert _worth_retrying(None, None, Failed(data=error)) is again
