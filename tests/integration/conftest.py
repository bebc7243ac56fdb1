"""One small workspace, taken through the whole pipeline once by `coefvq demo`; tests work on copies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from coefvq.simulation.synthetic.generate import generate
from tasks.workspace import create

#: small and quick; a model this size may well be worse than guessing, which is not the point here
SETTINGS = {
    "seed": 5,
    "issues": ["icd"],
    "gate.min_average_precision_gain": -1.0,
    "gate.max_qps_ratio": 100.0,
    "gate.min_kept_f1": 0.0,
    "gate.min_f1_over_base": -1.0,
    "gate.min_base_auc": 0.0,
    "gate.min_f1_over_guess": -1.0,
    "gate.min_f1_over_shortcut": -1.0,
    # a cascade in any case, also where a base this small would be released alone
    "thresholds.icd": {"p_base": [20, 30, 40], "max_f1_loss": 0.03, "views_trigger": None},
    "base.icd.training.num_train_epochs": 1,
    "mllm.icd.training.num_train_epochs": 1,
    "mllm.icd.audio": True,
    "media.icd.frames": 2,
}
VIDEOS = 90


@dataclass(frozen=True)
class Workspace:
    """A workspace folder and the way a person uses it: through the command line, from within."""

    root: Path

    def run(
        self, *argv: str, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this environment's programs first on PATH."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        clean = {k: v for k, v in os.environ.items() if k not in {"MLFLOW_TRACKING_URI", "COEFVQ_CACHE"}}
        done = subprocess.run(
            argv, cwd=self.root, env={**clean, "PATH": path, **(env or {})}, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def coefvq(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`coefvq …` in the workspace."""
        return self.run(sys.executable, "-m", "coefvq", *argv, check=check)

    def dvc(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`dvc …` in the workspace."""
        return self.run(sys.executable, "-m", "dvc", *argv, check=check)

    def ran(self, *argv: str) -> list[str]:
        """Stages that `dvc repro` really ran."""
        output = self.dvc("repro", *argv).stdout
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def labelled_folder(folder: Path) -> Path:
    """Synthetic clips as a stranger's VideoFolder: one label column in words; some rows without title."""
    import csv

    generate(folder, VIDEOS, 11, {"icd": 0.4, "ucc": 0.4}, workers=2)
    with (folder / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file_name", "label", "title", "source_id"])
        writer.writeheader()
        for number, row in enumerate(rows):
            label = "bad" if row["label_icd"] == "1" else "fine"
            title = "" if number % 4 == 0 else row["title"]
            writer.writerow(
                {"file_name": row["file_name"], "label": label, "title": title, "source_id": row["source_id"]}
            )
    for name in ("factors.jsonl", "descriptions.jsonl", ".synthetic.json"):
        (folder / name).unlink()
    silence(folder / rows[0]["file_name"])
    return folder


def silence(path: Path) -> None:
    """Take the sound stream out of a clip."""
    import av

    target = path.with_name("silent.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w") as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                sink.mux(packet)
    target.replace(path)


def demo(root: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """`coefvq demo` on somebody's own folder."""
    options = {"workspace": root, "data": data, "issue": "icd", "positive": "bad", "seed": 5, "preset": "tiny"}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return Workspace(data.parent).coefvq("demo", *given)


@dataclass(frozen=True)
class Finished:
    """A workspace after its demo, and what the demo printed."""

    workspace: Workspace
    data: Path
    output: str


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder of this test run, the same for side-by-side test processes."""
    own = factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The workspace after its demo; do not change it."""
    # side-by-side test processes share it: the first one makes it, the others wait
    top = shared_folder(tmp_path_factory) / "demo"
    with FileLock(f"{top}.lock"):
        if not (top / "output.txt").is_file():
            data = labelled_folder(top / "clips")
            create(top / "workspace", SETTINGS)
            (top / "output.txt").write_text(demo(top / "workspace", data).stdout)
    return Finished(Workspace(top / "workspace"), top / "clips", (top / "output.txt").read_text())


@pytest.fixture
def workspace(finished: Finished, tmp_path: Path) -> Workspace:
    """A copy to change at will."""
    shutil.copytree(finished.workspace.root, tmp_path / "w", symlinks=True)
    return Workspace(tmp_path / "w")


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool], float], None]:
    """Poll a condition with a deadline, for processes that give no signal to wait on."""
    import threading
    import time

    def wait(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "condition not met in time"
            pause.wait(0.5)

    return wait
