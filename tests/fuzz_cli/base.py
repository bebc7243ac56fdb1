"""The workspace that every case starts from: small, but real, made by the product's own commands.

It has clips, manifest, splits, both models, scores, a policy, a candidate, an approved champion, a challenger, a
video stream that was worked off once, and tables of the kinds that people hand in. Made once per state of the
product's source and kept in a cache folder; each case gets a copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.fuzz_cli.process import Outcome, run_forked

VIDEOS = 44
_KEPT = 8  # bases of other states of the source; about 20 MB each
SETTINGS = {
    "seed": 5,
    "issues": ["icd"],
    "gate.min_average_precision_gain": -1.0,
    "gate.max_qps_ratio": 100.0,
    "gate.max_f1_drop": 1.0,
    "gate.min_kept_f1": 0.0,
    "gate.min_f1_over_base": -1.0,
    "gate.min_base_auc": 0.0,
    "gate.min_f1_over_guess": -1.0,
    "gate.min_f1_over_shortcut": -1.0,
    # a cascade in any case, also where models this small would be released alone
    "thresholds.icd": {"p_base": [20, 30, 40], "max_f1_loss": 0.03, "views_trigger": None},
    "gate.max_flip_rate": 1.0,
    "base.icd.training.num_train_epochs": 1,
    "mllm.icd.training.num_train_epochs": 1,
    "base.icd.freeze_towers": True,
    "media.icd.frames": 2,
    "media.icd.frame_size": 32,
    "runtime.workers": 1,
    "validate.min_rows": 20,
    "validate.prevalence": {"icd": [0.0, 1.0], "ucc": [0.0, 1.0]},
    "evaluate.bootstrap": 100,
    "stability.videos_per_threshold": 4,
    "split.fractions": {"train": 0.35, "val": 0.2, "test": 0.2, "traffic": 0.15, "unlabelled": 0.1},
    "base.icd.distil": {"unlabelled": "unlabelled", "weight": 0.1},
    "split.group_by": ["source_id"],
}
_ISSUE = ("--issue", "icd")
#: what a person would type, in this order; every step has to succeed
STEPS: tuple[tuple[str, ...], ...] = (
    ("data", "synth", "--out", "data/raw", "--videos", str(VIDEOS), "--icd", "0.45", "--workers", "1"),
    ("ingest",),
    ("validate",),
    ("split",),
    ("train-mllm", *_ISSUE),
    ("teach", *_ISSUE),
    ("train-base", *_ISSUE),
    ("predict", *_ISSUE),
    ("evaluate", *_ISSUE),
    ("thresholds", *_ISSUE),
    ("stability", *_ISSUE),
    ("candidate", *_ISSUE),
    ("register", *_ISSUE),
    ("approve", *_ISSUE, "--by", "ana", "--reason", "first pair"),
    ("data", "reference"),
    ("vmp", "publish", "small.csv", "--root", "data/raw"),
    ("vmp", "run", "--once", "--audit-rate", "0.5"),
    ("vmp", "audit", "draw", *_ISSUE, "--labels", "4", "--seed", "1", "--out", "drawn.csv"),
    ("report", *_ISSUE),
)

#: without training and tracking store: what a short run can make in seconds; the scores are drawn, not predicted
_LIGHT = {("data", "synth"), ("ingest",), ("evaluate", "--issue"), ("thresholds", "--issue"), ("vmp", "publish")}
LIGHT_STEPS = tuple(step for step in STEPS if step[:2] in _LIGHT)


def source_key(package: Path, light: bool) -> str:
    """Hash over the product's source: another state of it makes another base."""
    digest, root = hashlib.sha256(), package.parent
    files = [path for top in ("coefvq", "tasks", "flows") for path in (root / top).rglob("*") if path.is_file()]
    for path in sorted([*files, *root.glob("*.yaml")]):
        if path.suffix in {".py", ".yaml", ".json", ".j2"}:
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    digest.update(
        repr(
            (
                light,
                SETTINGS,
                STEPS,
                RULES,
                TENANTS,
                inspect.getsource(inputs),
                inspect.getsource(scores),
                inspect.getsource(labelled),
            )
        ).encode()
    )
    return digest.hexdigest()[:16]


def cached_base(package: Path, light: bool = False) -> Path:
    """The base workspace of this source, made if it is not there yet; never to be written to."""
    top = Path(tempfile.gettempdir()) / f"coefvq-fuzz-cli-{os.getuid()}"
    top.mkdir(mode=0o700, exist_ok=True)
    key = source_key(package, light)
    with (top / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = top / key
        if not (folder / "done").is_file():
            _forget(top)
            shutil.rmtree(folder, ignore_errors=True)
            build(folder, light)
            (folder / "done").touch()
    return folder / "w"


def _forget(top: Path) -> None:
    """Delete all bases but the newest few, so that work on the product does not fill the disk."""
    made = sorted(top.glob("*/done"), key=lambda path: path.stat().st_mtime)
    for path in made[:-_KEPT]:
        shutil.rmtree(path.parent, ignore_errors=True)


def build(folder: Path, light: bool) -> None:
    """Make the workspace ``folder/w``.

    Raises:
        RuntimeError: a step failed; without a base there is nothing to mutate.
    """
    root, scratch = folder / "w", folder / "scratch"
    for made in (scratch, folder / "home", folder / "tmp"):
        made.mkdir(parents=True)
    _step(folder, folder, "create", create=root)
    for step in LIGHT_STEPS if light else STEPS:
        if step[:2] == ("vmp", "publish"):
            inputs(root)
        _step(folder, root, *step)
        if step[:2] == ("data", "synth") and not light:
            _versioned(root)
        if step[0] == "ingest" and light:
            scores(root)
        if step[:3] == ("vmp", "audit", "draw"):
            labelled(root / "drawn.csv")


def confined(folder: Path) -> dict[str, str | None]:
    """Changes of the environment that keep homes, temporary files and caches within ``folder``."""
    inside = {"HOME": folder / "home", "XDG_CACHE_HOME": folder / "home/.cache", "TMPDIR": folder / "tmp"}
    # torch names its folder in the environment of whoever imported it first, here perhaps the test process
    gone = ("TORCHINDUCTOR_CACHE_DIR", "COEFVQ_CACHE", "COEFVQ_DEBUG", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")
    return {**{name: str(path) for name, path in inside.items()}, **dict.fromkeys(gone)}


def _step(folder: Path, cwd: Path, *argv: str, create: Path | None = None) -> Outcome:
    def make() -> None:
        from tasks.workspace import create as create_workspace

        assert create is not None
        create_workspace(create, SETTINGS)
        params = create / "params.yaml"
        # so that there is a cache of features to damage; quoted, as YAML 1.1 takes a bare "on" for true
        params.write_text(params.read_text().replace("features: auto", 'features: "on"  '))

    done = run_forked(
        argv,
        cwd,
        folder / "scratch",
        allowed=folder,
        env=confined(folder),
        wall_seconds=300.0,
        entry=make if create is not None else None,
    )
    if done.code != 0:
        raise RuntimeError(f"the base workspace's step {' '.join(argv)} ended with {done.code}: {done.stderr[-2000:]}")
    return done


def _versioned(root: Path) -> None:
    """Raw data under DVC and a first commit, as `data snapshot` needs them."""

    def work() -> None:
        from tasks import workspace

        workspace.dvc(root, "add", "data/raw")
        workspace.commit(root, "Data")

    _in_child(work)


def scores(root: Path) -> None:
    """Scores of both models for the clips that were ingested, as predict writes them, from a seeded generator."""

    def write() -> None:
        import numpy as np
        import pandas as pd

        rows = pd.read_parquet(root / "data/manifest.parquet")
        rng, label = np.random.default_rng(5), rows["label_icd"].astype(float)
        table = pd.DataFrame({"video_id": rows["video_id"], "label": label, "weight": 1.0, "views": rows["views"]})
        table["split"] = [("val", "test", "test", "val", "traffic")[n % 5] for n in range(len(rows))]
        for name, strength in (("base", 1.0), ("mllm", 2.0)):
            table[name] = 1 / (1 + np.exp(-(strength * (label - 0.5) + rng.normal(size=len(rows)))))
        (root / "reports/icd").mkdir(parents=True, exist_ok=True)
        table.assign(posterior=np.nan).to_parquet(root / "reports/icd/scores.parquet", index=False)
        table[["video_id", "split", "weight"]].to_parquet(root / "data/splits.parquet", index=False)

    _in_child(write)


def labelled(drawn: Path) -> None:
    """Fill in the labels of a draw, as people would: one positive, one negative in turn."""
    header, *rows = drawn.read_text(encoding="utf-8").splitlines()
    at = header.split(",").index("label")
    lines = [row.split(",") for row in rows]
    for number, cells in enumerate(lines):
        cells[at] = str(1 - number % 2)
    drawn.write_text("\n".join([header, *(",".join(cells) for cells in lines)]) + "\n", encoding="utf-8")


def inputs(root: Path) -> None:
    """Tables and folders beside the pipeline's own: what people give to score, publish, fit and audit."""

    def write() -> None:
        import pandas as pd

        rows = pd.read_csv(root / "data/raw/metadata.csv", dtype=str).head(6)
        table = rows[["file_name", "title", "label_icd"]].assign(video_id=[f"clip{n}" for n in range(len(rows))])
        table.to_csv(root / "small.csv", index=False)
        table.assign(file_name="data/raw/" + table["file_name"]).to_csv(root / "near.csv", index=False)
        batch = root / "batch"
        batch.mkdir()
        few = table.head(3).assign(file_name=[f"{name}.mp4" for name in table["video_id"].head(3)])
        for source, name in zip(table["file_name"], few["file_name"], strict=False):
            shutil.copy(root / "data/raw" / source, batch / name)
        few.to_csv(batch / "metadata.csv", index=False)
        shutil.copytree(batch, root / "batch_jsonl")
        (root / "batch_jsonl/metadata.csv").unlink()
        few.to_json(root / "batch_jsonl/metadata.jsonl", orient="records", lines=True)
        table.assign(file_name="data/raw/" + table["file_name"]).to_parquet(root / "near.parquet", index=False)
        scores = pd.read_parquet(root / "reports/icd/scores.parquet")
        scores.to_csv(root / "scores.csv", index=False)
        scores[["video_id", "base", "mllm"]].to_csv(root / "traffic.csv", index=False)
        scores[["video_id", "label"]].dropna().to_csv(root / "fresh.csv", index=False)
        pd.DataFrame({"video_id": table["video_id"], "label": [0, 1, 0, 1, 0, 1]}).to_csv(
            root / "reviewed.csv", index=False
        )
        pd.DataFrame({"video_id": table["video_id"], "label": [0, 1, 0, 1, 0, 1]}).to_parquet(
            root / "reviewed.parquet", index=False
        )
        (root / "rules.yaml").write_text(RULES)
        (root / "tenants.yaml").write_text(TENANTS)
        (root / "features.yaml").write_text(FEATURES)
        with closing(sqlite3.connect(root / "creators.sqlite")) as connection:
            connection.execute("CREATE TABLE creators (who TEXT, reputation REAL)")
            connection.commit()
        (root / "vmp.yaml").write_text("source: {kind: log}\nstore: {state: vmp}\nrules: rules.yaml\n")

    _in_child(write)


FEATURES = """\
stores:
  - name: creators
    key: creator_id
    source: {kind: sql, url: "sqlite:///creators.sqlite", table: creators, key_column: who}
    fields: {reputation: number}
    missing: mark
    deadline_s: 2.0
"""
RULES = """\
rules:
  - name: positive
    when:
      - {field: positive, op: "==", value: true}
    then: removed
  - name: unscored
    when:
      - {field: error, op: "==", value: true}
    then: ignored
default: live
"""
TENANTS = """\
tenants:
  acme: {rules: rules.yaml, mllm_budget: 5000/day, mllm_burst: 4, mllm_max_wait: 60.0}
  globex: {rules: null}
"""


def _in_child(work: Callable[[], None]) -> None:
    """pyarrow starts threads when it reads: never in the process that forks."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - shown, and the parent stops
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the base workspace's tables could not be written")


@contextmanager
def fresh_copy(base: Path, folder: Path, *, moved: bool = False) -> Iterator[Path]:
    """A copy of the base in ``folder/w``, whose tracking store names its own folder unless ``moved``."""
    root = folder / "w"
    shutil.copytree(base, root, symlinks=True, copy_function=_link_or_copy)
    if not moved and (root / "mlflow.db").is_file():
        rebase(root / "mlflow.db", str(base), str(root))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


#: files that are only ever replaced as a whole, by the product and by mutations: a link is a copy
_REPLACED = ("/.dvc/cache/", "/cache/clips/", "/raw/videos/")


def _link_or_copy(source: str, target: str) -> None:
    if any(part in source for part in _REPLACED):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def rebase(database: Path, old: str, new: str) -> None:
    """Let the tracking store's addresses start with ``new``: a copy of a workspace that is a workspace of its own."""
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in connection.execute(f'pragma table_info("{table}")').fetchall():
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    change = f'update "{table}" set "{column}" = replace("{column}", ?, ?)'  # noqa: S608 - its own names
                    connection.execute(f'{change} where "{column}" like ?', (old, new, f"%{old}%"))
    connection.close()
