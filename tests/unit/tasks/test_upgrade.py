"""Workspaces made before there were recipes: what is said, and a conversion that keeps settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coefvq.config import Params, load_params
from coefvq.errors import ConfigError
from tasks.upgrade import upgrade
from tasks.workspace import create, round_trip, write_pipeline


def old_form(root: Path, recipe: str, changes: dict[str, Any]) -> Params:
    """A workspace as it was before: every model in full in params.yaml, no recipe; returns its settings."""
    write_pipeline(root, changes, recipe)
    params = load_params(root / "params.yaml")
    document = round_trip().load((root / "params.yaml").read_text())
    whole = params.model_dump(mode="json", include={"media", "base", "mllm"})
    for settings in whole["mllm"].values():
        settings["warmup"] = settings.pop("alignment")
        if settings["pooling"] == "last":
            del settings["pooling"]  # could be left out
    document |= whole
    with (root / "params.yaml").open("w") as stream:
        round_trip().dump(document, stream)
    lines = (root / "dvc.yaml").read_text().splitlines(keepends=True)
    ours = ("recipe.yaml", "${models.presets}", "vars:")
    (root / "dvc.yaml").write_text("".join(line for line in lines if not any(word in line for word in ours)))
    pipeline = round_trip().load((root / "dvc.yaml").read_text())
    del pipeline["stages"]["teach"]
    pipeline["stages"]["train-base"]["do"]["deps"].remove("${paths.models}/${item}/teacher.parquet")
    with (root / "dvc.yaml").open("w") as stream:
        round_trip().dump(pipeline, stream)
    for name in ("recipe.yaml", "presets.yaml"):
        (root / name).unlink()
    return params


@pytest.mark.parametrize("recipe", ["tiny", "starter"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mllm.icd.pooling": "mean", "mllm.ucc.pooling": "last"},
        {"mllm.icd.lora.rank": 3, "base.ucc.training.learning_rate": 0.25, "media.icd.frames": 2},
    ],
)
def test_settings_and_pipeline_stay_what_they_were(tmp_path: Path, recipe: str, changes: dict[str, Any]) -> None:
    before = old_form(tmp_path, recipe, changes)
    told = upgrade(tmp_path)
    assert "recipe.yaml" in told[0]
    assert load_params(tmp_path / "params.yaml") == before
    write_pipeline(tmp_path / "new", {}, recipe)
    pipelines = [yaml.safe_load((root / "dvc.yaml").read_text()) for root in (tmp_path, tmp_path / "new")]
    assert pipelines[0] == pipelines[1]
    raw = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert raw["base"]["icd"] == {}
    assert len((tmp_path / "params.yaml").read_text().splitlines()) < 120
    assert "# share of positives" in (tmp_path / "params.yaml").read_text()
    if not changes:
        assert (tmp_path / "recipe.yaml").read_text() == (tmp_path / "new" / "recipe.yaml").read_text()


def test_one_line_says_what_to_do(tmp_path: Path) -> None:
    old_form(tmp_path, "tiny", {})
    for refused in (lambda: load_params(tmp_path / "params.yaml"), lambda: create(tmp_path, {}, "tiny")):
        with pytest.raises(ConfigError, match=r"run `coefvq init --upgrade` in the workspace") as caught:
            refused()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    old_form(tmp_path, "tiny", {})
    upgrade(tmp_path)
    files = {path.name: path.read_text() for path in tmp_path.glob("*.yaml")}
    assert "nothing to convert" in upgrade(tmp_path)[0]
    assert {path.name: path.read_text() for path in tmp_path.glob("*.yaml")} == files


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("mllm", None, "mllm: expected a mapping for each issue"),
        ("issues", [], "issues: expected at least one"),
        ("gate", {"max_qps": 1}, "gate.max_qps: unknown key; did you mean 'max_qps_ratio'"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path, section: str, value: Any, expected: str
) -> None:
    old_form(tmp_path, "tiny", {})
    raw = yaml.safe_load((tmp_path / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(raw | {section: value if value is None or section != "gate" else raw["gate"] | value})
    )
    before = (tmp_path / "params.yaml").read_text()
    with pytest.raises(ConfigError, match=expected):
        upgrade(tmp_path)
    assert (tmp_path / "params.yaml").read_text() == before
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_folder_that_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        upgrade(tmp_path)
