"""The forecast of a data set: what grows with the videos, what machines divide, what one MLLM for two issues saves."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.config import Params, load_params
from coefvq.training.forecast import TABLES, ForecastSettings, IssueSettings, Machines, StageForecast
from coefvq.training.forecast import forecast as forecast_of

ONE = Machines(1, 2, 1e11)


@pytest.fixture(scope="module")
def params(repository: Path) -> Params:
    found = load_params(repository / "params.yaml")
    return found.model_copy(
        update={"models": found.models.model_copy(update={"presets": str(repository / "presets.yaml")})}
    )


def forecast(params: Params, rows: float, machines: Machines) -> list[StageForecast]:
    issues = [IssueSettings.of(params, issue) for issue in params.issues]
    return forecast_of(ForecastSettings.of(params), issues, rows, machines)


def by_name(stages: list[StageForecast]) -> dict[str, StageForecast]:
    return {stage.stage: stage for stage in stages}


def test_machines_divide_clips_and_models_and_nothing_else(params: Params) -> None:
    found = by_name(forecast(params, 1e6, Machines(4, 2, 1e11)))
    shared = {name for name, stage in found.items() if stage.hours_on_all < stage.hours}
    assert shared == {
        "ingest",
        *(f"{name}, {issue}" for name in ("clips", "train-mllm", "predict (MLLM)") for issue in ("icd", "ucc")),
    }
    for name in shared:
        assert found[name].hours_on_all == pytest.approx(found[name].hours / 4)


def test_ten_times_the_videos_take_at_most_ten_times_as_long(params: Params) -> None:
    small, large = (by_name(forecast(params, rows, ONE)) for rows in (1e5, 1e6))
    assert small.keys() == large.keys()
    for name, stage in small.items():
        assert stage.hours <= large[name].hours <= 10 * stage.hours * (1 + 1e-9)
        assert stage.disk_gib <= large[name].disk_gib
        assert stage.memory_gib <= large[name].memory_gib
    assert large["split"].hours == pytest.approx((TABLES["split"].seconds + TABLES["split"].per_million) / 3600)


def test_a_faster_machine_and_kept_features_save_the_model_time(params: Params) -> None:
    slow, fast = (by_name(forecast(params, 1e6, Machines(1, 2, flops))) for flops in (1e11, 2e11))
    assert fast["train-mllm, ucc"].hours == pytest.approx(slow["train-mllm, ucc"].hours / 2)
    off = params.model_copy(update={"runtime": params.runtime.model_copy(update={"features": "off"})})
    assert by_name(forecast(off, 1e6, ONE))["train-mllm, ucc"].hours > slow["train-mllm, ucc"].hours


def test_an_mllm_that_two_issues_share_is_trained_once(params: Params) -> None:
    mllm = params.mllm["ucc"].model_copy(update={"shared": ("icd", "ucc")})
    media = params.media["ucc"]
    both = params.model_copy(update={"mllm": {"icd": mllm, "ucc": mllm}, "media": {"icd": media, "ucc": media}})
    assert [name for name in by_name(forecast(both, 1e6, ONE)) if name.startswith("train-mllm")] == ["train-mllm, icd"]
