"""The repository's top is a workspace, and its files are those of a new one but for the clips it makes itself."""

from __future__ import annotations

import configparser
from pathlib import Path

import yaml

from tasks.templates import TEMPLATES, makes_clips, template
from tasks.workspace import create


def test_a_new_workspace_has_the_checkouts_files_without_its_clips_and_interpreter(repository: Path) -> None:
    ours = (repository / "dvc.yaml").read_text()
    document, given = yaml.safe_load(ours), yaml.safe_load(template("dvc.yaml"))
    clips = document["stages"].pop("clips")
    [python] = [entry["python"] for entry in document["vars"] if isinstance(entry, dict)]
    assert clips["cmd"].startswith("${python} -m coefvq data synth --out ${paths.raw} ")
    assert yaml.safe_load(yaml.safe_dump(document).replace("${python} ", "python ")) == given | {
        "vars": [*given["vars"], {"python": python}]
    }
    # line by line the same: comments and order are kept
    lines = iter(ours.replace("${python} ", "python ").splitlines())
    assert all(line in lines for line in template("dvc.yaml").splitlines())
    for name in set(TEMPLATES) - {"dvc.yaml"}:
        assert template(name) == (repository / name).read_text()


def test_the_checkout_has_what_init_writes(repository: Path, tmp_path: Path) -> None:
    create(tmp_path / "w", {})
    made = tmp_path / "w"
    assert makes_clips(repository)
    assert not makes_clips(made)
    assert not makes_clips(tmp_path)
    for name in (".dvc/plots/offline.html", ".dvc/plots/series.json", ".dvc/.gitignore", "data/reference.json"):
        assert (repository / name).read_bytes() == (made / name).read_bytes(), f"{name}: copy it from a new workspace"
    ignored = [set((root / ".gitignore").read_text().splitlines()) for root in (made, repository)]
    assert ignored[0] <= ignored[1]
    ours, given = configparser.ConfigParser(), configparser.ConfigParser()
    ours.read(repository / ".dvc" / "config")
    given.read(made / ".dvc" / "config")
    given["core"].pop("autostage")
    assert ours == given
