"""Files kept with a pair: found again, replaced, and absent where there are none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from coefvq.errors import RegistryError
from coefvq.registry.attachments import REPORT, SCORES, attach, attached
from flows.approval import describe
from tests.integration.registry.registry_workspace import Workspace
from tests.unit.scored_world import scores_table


def test_a_pair_keeps_its_report(fresh: Workspace, tmp_path: Path) -> None:
    pair = fresh.register(1)
    page, scores = tmp_path / "some page.html", tmp_path / "scores"
    page.write_text("first")
    table = scores_table(n=50)
    table.to_parquet(scores)
    assert attached("icd", pair.version, SCORES, tmp_path) is None
    attach("icd", pair.version, {REPORT: page})
    page.write_text("second")
    link = attach("icd", pair.version, {REPORT: page, SCORES: scores})
    # a local store: the link opens in a browser as it is
    assert link.endswith(f"/report/{REPORT}")
    assert Path(link.removeprefix("file://")).read_text() == "second"
    found = attached("icd", pair.version, SCORES, tmp_path / "fetched")
    assert found is not None
    pd.testing.assert_frame_equal(pd.read_parquet(found), table)
    assert attached("icd", pair.version, "other.html", tmp_path) is None
    assert f"[Read the report]({link})" in describe(pair, link)
    assert "report" not in describe(pair).lower()


def test_equal_scores_are_kept_once_and_small(workspace: Workspace, tmp_path: Path) -> None:
    scores = tmp_path / SCORES
    table = scores_table(n=5000).assign(posterior=float("nan"))
    table.to_parquet(scores)
    # other tests keep scores in this store too
    before = {path.resolve() for path in (workspace.root / "mlartifacts").resolve().rglob(f"*{SCORES}")}
    for version in ("1", "2", "3"):
        attach("icd", version, {SCORES: scores})
    for version in ("1", "2", "3"):
        found = attached("icd", version, SCORES, tmp_path / version)
        assert found is not None
        pd.testing.assert_frame_equal(pd.read_parquet(found), table)
    kept = {path.resolve() for path in (workspace.root / "mlartifacts").resolve().rglob(f"*{SCORES}")} - before
    assert len(kept) == 1
    assert kept.pop().stat().st_size < scores.stat().st_size
    # another pair's file stays what it was
    table.iloc[:-1].to_parquet(scores)
    attach("icd", "1", {SCORES: scores})
    lengths = {version: len(pd.read_parquet(attached("icd", version, SCORES, tmp_path / "again" / version)))
               for version in ("1", "2")}  # fmt: skip
    assert lengths == {"1": len(table) - 1, "2": len(table)}


def test_a_version_that_is_not_there(fresh: Workspace, tmp_path: Path) -> None:
    assert attached("icd", "99", SCORES, tmp_path) is None
    with pytest.raises(RegistryError, match="icd version 99 does not exist"):
        attach("icd", "99", {REPORT: tmp_path / "x"})
