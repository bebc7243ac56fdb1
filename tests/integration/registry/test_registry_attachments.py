"""Files kept with a pair: found again, replaced, and absent where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.errors import RegistryError
from coefvq.registry.attachments import REPORT, SCORES, attach, attached
from flows.approval import describe
from tests.integration.registry.registry_workspace import Workspace


def test_a_pair_keeps_its_report(fresh: Workspace, tmp_path: Path) -> None:
    pair = fresh.register(1)
    page, scores = tmp_path / "some page.html", tmp_path / "scores"
    page.write_text("first")
    scores.write_bytes(b"\x00\x01")
    assert attached("icd", pair.version, SCORES, tmp_path) is None
    attach("icd", pair.version, {REPORT: page})
    page.write_text("second")
    link = attach("icd", pair.version, {REPORT: page, SCORES: scores})
    # a local store: the link opens in a browser as it is
    assert link.endswith(f"/report/{REPORT}")
    assert Path(link.removeprefix("file://")).read_text() == "second"
    found = attached("icd", pair.version, SCORES, tmp_path / "fetched")
    assert found is not None
    assert found.read_bytes() == b"\x00\x01"
    assert attached("icd", pair.version, "other.html", tmp_path) is None
    assert f"[Read the report]({link})" in describe(pair, link)
    assert "report" not in describe(pair).lower()


def test_a_version_that_is_not_there(fresh: Workspace, tmp_path: Path) -> None:
    assert attached("icd", "99", SCORES, tmp_path) is None
    with pytest.raises(RegistryError, match="icd version 99 does not exist"):
        attach("icd", "99", {REPORT: tmp_path / "x"})
