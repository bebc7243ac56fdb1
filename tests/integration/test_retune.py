"""Retune with everything real: a stream with audited videos, trained models, registry, approval, served policy."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from tests.integration.conftest import Workspace


def stream_with_labels(workspace: Workspace) -> None:
    """Score the workspace's clips as a stream, with the MLLM for all, and write the labels that people gave."""
    workspace.coefvq("vmp", "publish", "data/raw")
    workspace.coefvq("vmp", "run", "--once", "--audit-rate", "1")
    manifest = pd.read_parquet(workspace.root / "data/manifest.parquet")
    labels = manifest[["video_id", "label_icd"]].dropna().rename(columns={"label_icd": "label"})
    labels.to_csv(workspace.root / "labels.csv", index=False)


def served(workspace: Workspace) -> dict[str, Any]:
    """The answer of the served pair about one clip."""
    clip = sorted((workspace.root / "data/raw").rglob("*.mp4"))[0]
    answer: dict[str, Any] = json.loads(workspace.coefvq("score", str(clip), "--json").stdout)
    return answer


@pytest.mark.long
def test_the_stream_s_scores_and_fresh_labels_change_what_is_served(workspace: Workspace):
    stream_with_labels(workspace)
    before = served(workspace)
    words = ("retune", "icd", "--labels", "labels.csv", "--qps", "30", "--min-labels", "5", "--json")
    report = json.loads(workspace.coefvq(*words).stdout)
    assert report["traffic"]["videos"] == len(pd.read_csv(workspace.root / "labels.csv"))
    candidate = json.loads((workspace.root / "reports/icd/retuned/candidate.json").read_text())
    # the clips near the new thresholds were really scored again
    assert candidate["metrics"]["stability"]["n"] > 0
    workspace.coefvq("register", "--issue", "icd", "--retuned")
    assert served(workspace) == before
    workspace.coefvq("approve", "--issue", "icd", "--by", "ana", "--reason", "present traffic")
    after = served(workspace)
    assert after["bundle_version"] == f"2-{candidate['content_hash'][:12]}" != before["bundle_version"]
    assert after["base_score"] == before["base_score"]
    # the scores of the stream are still those of the served models
    again = json.loads(workspace.coefvq(*words).stdout)
    assert (again["champion"], again["changed"]) == (after["bundle_version"], False)
    assert again["traffic"]["of_other_models"] == 0
