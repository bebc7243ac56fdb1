"""Flat names for parameters and metrics."""

from __future__ import annotations

from coefvq.flat import flat_metrics, flat_params


def test_params_are_dotted_texts() -> None:
    params = {"lora": {"rank": 8, "targets": ["q", "v"]}, "preset": "tiny", "text": True, "uri": None}
    assert flat_params(params) == {
        "lora.rank": "8",
        "lora.targets": '["q", "v"]',
        "preset": "tiny",
        "text": "true",
        "uri": "null",
    }


def test_metrics_are_slashed_numbers_and_nothing_else() -> None:
    metrics = {"val": {"R@P80": 0.5, "precision": None, "curve": [1, 2]}, "n": 3, "ok": True, "note": "x"}
    assert flat_metrics(metrics) == {"val/R_P80": 0.5, "n": 3.0, "ok": 1.0}
