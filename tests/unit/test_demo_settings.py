"""What the demo writes into params.yaml: accepted as it stands, and equal for both issues where they share work."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.config import load_params
from flows.demo_settings import VIDEOS, preset_settings
from tasks.workspace import change_params, template

ISSUES = ("icd", "ucc")


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("preset", sorted(VIDEOS))
def test_params_take_them(tmp_path: Path, preset: str, described: bool) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(template("params.yaml"), encoding="utf-8")
    change_params(path, preset_settings(preset, ISSUES, described))
    params = load_params(path)
    assert {part.preset for part in (*params.base.values(), *params.mllm.values())} == {preset}
    # equal networks, clips and warm-up settings: warmed up once
    icd, ucc = (params.mllm[issue] for issue in ISSUES)
    shared = {"media": params.media["icd"] == params.media["ucc"], "warmup": icd.warmup == ucc.warmup}
    assert all(shared.values()), shared
    assert (icd.warmup is not None) == (preset == "starter" and described)
    assert preset == "tiny" or icd.model_dump() == ucc.model_dump()


def test_tiny_changes_no_more_than_the_presets_and_the_length_of_the_stability_check() -> None:
    assert set(preset_settings("tiny", ISSUES, True)) == {
        "stability.videos_per_threshold",
        *(f"{kind}.{i}.preset" for kind in ("base", "mllm") for i in ISSUES),
    }
