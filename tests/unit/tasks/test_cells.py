"""Cells: the same settings are the same cell, anything that changes scores is another, and what counts as done."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.errors import ConfigError
from coefvq.experiments.grid import Cell, shipped_grid
from coefvq.files import read_json, sha256_file, write_json, write_text
from tasks.cell_files import RESULT, SCORES, is_done
from tasks.cells import nested_share, planned, with_sources, workspace_files, write_overlay
from tasks.workspace import write_pipeline

DATA = {"manifest": "a", "splits": "b"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    write_pipeline(root, {}, "tiny")
    return workspace_files(root, shipped_grid(), "tiny")


def cell(files, model, issue="ucc", seed=0):
    return planned(files, shipped_grid(), Cell(model, issue, seed))


def test_equal_settings_are_one_cell(files):
    # late fusion, rank 16 and no aligned start are what the recipe has already
    assert (
        cell(files, "mllm").key(DATA) == cell(files, "mllm-late").key(DATA) == cell(files, "mllm-unaligned").key(DATA)
    )
    assert cell(files, "base").key(DATA) == cell(files, "multitower").key(DATA)
    assert cell(files, "base", "icd").key(DATA) != cell(files, "multitower", "icd").key(DATA)


def test_what_changes_scores_changes_the_key(files):
    keys = {
        cell(files, "mllm").key(DATA),
        cell(files, "mllm", seed=1).key(DATA),
        cell(files, "mllm", "icd").key(DATA),
        cell(files, "mllm-early").key(DATA),
        cell(files, "mllm-20").key(DATA),
        cell(files, "mllm").key({**DATA, "splits": "c"}),
        cell(files, "mllm-small-ear").key(DATA),
    }
    assert len(keys) == 7
    with_other_teacher = cell(files, "distilled", seed=1)
    assert with_other_teacher.identity(DATA)["teacher"] == cell(files, "mllm", seed=1).key(DATA)


def test_one_mllm_for_all_issues_is_trained_once_and_each_issue_scores_it(files, tmp_path):
    first, second = cell(files, "mllm-both", "icd"), cell(files, "mllm-both", "ucc")
    assert (first.trains, second.trains) == (True, False)
    assert second.source == first
    assert list(with_sources([second])) == [first, second]
    for one in (first, second):
        assert one.settings.issues == ("icd", "ucc")
        assert one.settings.mllm["icd"] == one.settings.mllm["ucc"]
        assert one.settings.mllm["icd"].shared == ("icd", "ucc")
        assert one.settings.mllm["icd"].audio
    assert len({first.key(DATA), second.key(DATA), cell(files, "mllm", "icd").key(DATA)}) == 3
    kept = [read_json(write_overlay(tmp_path, one, DATA) / "cell.json") for one in (first, second)]
    assert [(facts["trains"], facts["source"]) for facts in kept] == [
        (True, None),
        (False, first.folder(tmp_path, DATA).name),
    ]


def test_in_a_workspace_of_one_issue_the_mllm_for_all_is_its_own(tmp_path):
    write_pipeline(tmp_path, {"issues": ["ucc"]}, "tiny")
    alone = workspace_files(tmp_path, shipped_grid(), "tiny")
    assert cell(alone, "mllm-both").key(DATA) == cell(alone, "mllm").key(DATA)


def test_an_overlay_reads_the_workspace_s_data(files, tmp_path):
    from coefvq.config import load_params

    one = cell(files, "mllm-20")
    folder = write_overlay(tmp_path, one, DATA)
    params = load_params(folder / "params.yaml")
    assert params == one.settings
    assert (folder / params.paths.manifest).resolve() == (tmp_path / "data" / "manifest.parquet").resolve()
    assert (params.paths.splits, params.issues, params.runtime.features) == ("splits.parquet", ("ucc",), "on")


def test_without_unlabelled_videos_the_base_is_distilled_on_train_alone(files):
    # params.yaml as it ships has no split of unlabelled videos
    assert cell(files, "distilled").settings.base["ucc"].distil.unlabelled is None


def test_a_preset_of_the_user_is_not_hidden(tmp_path):
    write_pipeline(tmp_path, {}, "tiny")
    write_text(tmp_path / "presets.yaml", "tiny-small-ear: {extends: tiny}\n")
    with pytest.raises(ConfigError, match="tiny-small-ear: a preset of the tables has that name"):
        workspace_files(tmp_path, shipped_grid(), "tiny")


def test_done_means_the_scores_are_those_of_the_result(tmp_path):
    write_text(tmp_path / SCORES, "scores")
    write_json(tmp_path / RESULT, {"key": "k", "scores_sha256": sha256_file(tmp_path / SCORES)})
    assert is_done(tmp_path, "k")
    assert not is_done(tmp_path, "other")
    write_text(tmp_path / SCORES, "other scores")
    assert not is_done(tmp_path, "k")
    write_text(tmp_path / RESULT, "{")
    assert not is_done(tmp_path, "k")


@settings(max_examples=25)
@given(st.lists(st.sampled_from([0, 1, None]), min_size=4, max_size=60), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_shares_of_train_are_nested_and_keep_the_classes(labels, one, other):
    ids = [f"v{at}" for at in range(len(labels) + 3)]
    splits = pd.DataFrame({"video_id": ids, "split": ["train"] * len(labels) + ["val"] * 3, "weight": 1.0})
    manifest = pd.DataFrame({"video_id": ids, "label_ucc": pd.array([*labels, 0, 1, 1], dtype="Int64")})
    small, large = sorted((one, other))
    kept = [nested_share(splits, manifest, "ucc", share).query("weight > 0") for share in (small, large)]
    assert set(kept[0]["video_id"]) <= set(kept[1]["video_id"])
    for rows in kept:
        assert (rows["split"] == "val").sum() == 3
        present = set(
            manifest[manifest["video_id"].isin(rows[rows["split"] == "train"]["video_id"])]["label_ucc"].dropna()
        )
        assert present == {label for label in labels if label is not None}
