"""Registering and deciding read as much after many decisions as after few: counted rows, not seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coefvq.registry import history, release, tracking
from tests.integration.registry.registry_workspace import Workspace, champion


def _decide(count: int) -> None:
    """So many rejections of pairs that are gone, written as ``history.begin`` would."""
    first = max((item.sequence for item in history.newest()), default=0) + 1
    for sequence in range(first, first + count):
        decision = history.Decision(sequence=sequence, at="2026-01-01", by="ana", reason="why", action="reject",
                                    issue="icd", from_version="99", content_hash="f" * 64)  # fmt: skip
        fields = decision.model_dump(mode="json", exclude={"state", "run_id"}, exclude_none=True)
        run_id = tracking.append_record(
            history.EXPERIMENT, "earlier", {key: str(value) for key, value in fields.items()}
        )
        tracking.close_record(run_id, "FINISHED")


def _rows_read(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """Runs and model versions that the store gives back meanwhile."""
    from mlflow import MlflowClient

    read = 0
    with monkeypatch.context() as patch:
        for name in ("search_runs", "search_model_versions"):
            real = getattr(MlflowClient, name)

            def counting(*given: Any, _real: Any = real, **named: Any) -> Any:
                nonlocal read
                found = _real(*given, **named)
                read += 1 + len(found)
                return found

            patch.setattr(MlflowClient, name, counting)
        work()
    return read


def test_deciding_does_not_grow_with_the_history(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def release_of(seed: int) -> Callable[[], object]:
        def register_and_approve() -> None:
            workspace.register(seed)
            release.approve("icd", "ana", "why", flow_run_id=f"flow-{seed}")

        return register_and_approve

    _decide(history._NEWEST)
    few = _rows_read(monkeypatch, release_of(1))
    _decide(60)
    many = _rows_read(monkeypatch, release_of(2))
    assert many == few
    assert champion() == "2"
    sequences = [item.sequence for item in history.decisions()]
    assert sequences == list(range(1, len(sequences) + 1))
    # what was approved long ago is still known as decided on, and can be returned to
    _decide(history._NEWEST)
    assert not workspace.register(2).offered
    assert release.approve("icd", "ana", "why", flow_run_id="flow-2").sequence == sequences[-1]
    assert release.rollback("icd", "ana", "worse").version == "1"
