"""What users get wrong: one line that names it, a failing exit code, and nothing lost or registered."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.workspace import change_params
from tests.integration.conftest import Workspace

Row = dict[str, str]


def outputs(root: Path) -> dict[str, str]:
    """Hash of every output file of the pipeline; the validation reports describe the last attempt."""
    files = [path for folder in ("data", "models", "reports") for path in (root / folder).rglob("*") if path.is_file()]
    kept = [path for path in files if "raw" not in path.parts and not path.name.startswith("validation")]
    kept = [path for path in kept if "data_docs" not in path.parts and path.suffix != ".dvc"]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def edit(root: Path, change: Callable[[list[Row]], list[Row]]) -> None:
    """Rewrite the user's metadata.csv."""
    path = root / "data" / "raw" / "metadata.csv"
    with path.open(newline="") as stream:
        rows = change(list(csv.DictReader(stream)))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def clip(root: Path, number: int) -> Path:
    return sorted((root / "data" / "raw" / "videos").glob("*.mp4"))[number]


def refused(workspace: Workspace, *words: str, code: int, ingested: bool = False) -> None:
    """`dvc repro` fails with one line of ours; outputs and registry are as before.

    ``ingested``: the stage before the failing one did its work, so its own two files are new.
    """
    before, registered = outputs(workspace.root), registry(workspace)
    done = workspace.dvc("repro", check=False)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stdout + done.stderr
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert f"exited with {code}" in done.stderr
    after = outputs(workspace.root)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= ({"data/manifest.parquet", "reports/ingest.json"} if ingested else set())
    assert registry(workspace) == registered


def registry(workspace: Workspace) -> list[tuple[str, ...]]:
    """Registered versions and aliases, read from the store itself."""
    with contextlib.closing(sqlite3.connect(workspace.root / "mlflow.db")) as store:
        query = (
            "select name, version, '' from model_versions union "
            "select name, version, alias from registered_model_aliases"
        )
        return sorted(store.execute(query).fetchall())


def test_missing_file(workspace: Workspace) -> None:
    path = clip(workspace.root, 3)
    path.unlink()
    refused(workspace, path.stem, code=4, ingested=True)


def test_undecodable_clip(workspace: Workspace) -> None:
    path = clip(workspace.root, 5)
    path.unlink()
    path.write_text("not a video")
    refused(workspace, path.stem, code=4, ingested=True)


def test_duplicate_id(workspace: Workspace) -> None:
    edit(workspace.root, lambda rows: [*rows, rows[7]])
    refused(workspace, "metadata.csv row 92: duplicate video_id", "first in row 9", code=3)


def test_label_outside_zero_and_one(workspace: Workspace) -> None:
    change_params(workspace.root / "params.yaml", {"ingest.labels.icd": {"column": "label", "positive": None}})
    refused(workspace, "metadata.csv row 2: label = ", "expected 0, 1 or empty", code=3)


def test_one_class_only(workspace: Workspace) -> None:
    def one_positive(rows: list[Row]) -> list[Row]:
        seen = 0
        for row in rows:
            seen += row["label"] == "bad"
            row["label"] = "bad" if row["label"] == "bad" and seen == 1 else "fine"
        return rows

    edit(workspace.root, one_positive)
    refused(workspace, "icd", "positive", code=3, ingested=True)


def test_empty_split(workspace: Workspace) -> None:
    fractions = {"train": 0.999, "val": 0.0, "test": 0.0, "traffic": 0.001}
    change_params(workspace.root / "params.yaml", {"split.fractions": fractions})
    refused(workspace, "split", code=3)


def test_unknown_key_in_params(workspace: Workspace) -> None:
    change_params(workspace.root / "params.yaml", {"split.frctions": 1})
    refused(workspace, "params.yaml: split.frctions: unknown key; did you mean 'fractions'?", code=2)


def test_unreadable_params(workspace: Workspace) -> None:
    (workspace.root / "params.yaml").write_text("seed: [1\nissues: {")
    before = outputs(workspace.root)
    done = workspace.coefvq("split", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml line ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert workspace.dvc("repro", check=False).returncode != 0
    assert outputs(workspace.root) == before


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("train-base", "--issue", "nsfw"), 2, "expected one of icd"),
        (("predict",), 2, "--issue"),
        (("rollback", "--issue", "icd", "--by", "ana", "--reason", "x"), 6, "nothing to roll back to"),
        (("approve", "--issue", "icd", "--by", " ", "--reason", "x"), 6, "name"),
        (("approve", "--issue", "icd", "--by", "ana", "--reason", ""), 6, "reason"),
    ],
)
def test_wrong_commands(workspace: Workspace, argv: tuple[str, ...], code: int, words: str) -> None:
    done = workspace.coefvq(*argv, check=False)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
