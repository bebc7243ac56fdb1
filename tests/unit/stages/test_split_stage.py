"""The split stage: earlier splits are kept, other settings start anew, weights are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coefvq.config import Params, Thresholds, load_recipe, parse_params
from coefvq.data.manifest import normalise, write_table
from coefvq.data.splits.account import few_calls
from coefvq.data.splits.rows import split_manifest
from coefvq.data.validation.profile import profile
from coefvq.errors import ValidationFailedError
from coefvq.files import read_json
from coefvq.stages import candidate, split
from coefvq.stages.inputs import CandidateInputs, SplitInputs


@pytest.fixture
def params(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    return with_split(repository)


def with_split(repository: Path, seed: int = 7, **changes: Any) -> Params:
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    raw["split"] |= changes
    return parse_params(raw | {"seed": seed}, load_recipe(repository / "recipe.yaml"))


def run(params: Params) -> None:
    split.run(SplitInputs.of(params))


def write_manifest(count: int) -> pd.DataFrame:
    random = np.random.default_rng(3)
    rows = pd.DataFrame(
        {
            "video_id": [f"v{row:04d}" for row in range(count)],
            "uri": [f"{row}.mp4" for row in range(count)],
            "sha256": [f"{row:064x}" for row in range(count)],
            "title": "a",
            "stickers": [[] for _ in range(count)],
            "published_at": None,
            "creator_id": [f"c{row // 2}" for row in range(count)],
            "source_id": None,
            "views": 3,
            "weight": 1.0,
            "split": None,
            "decode_ok": [row % 50 != 7 for row in range(count)],
            "reason": "ok",
            "size_bytes": 9,
            "phash": "",
            "duration_s": 2.0,
            "fps": 25.0,
            "width": 64,
            "height": 64,
            "has_audio": True,
            "label_icd": (random.random(200) < 0.3).astype(int).tolist() * (count // 200) + [0] * (count % 200),
            "label_ucc": (random.random(200) < 0.3).astype(int).tolist() * (count // 200) + [1] * (count % 200),
        }
    )
    manifest = normalise(rows, ["icd", "ucc"])
    write_table(manifest, Path("data/manifest.parquet"))
    return manifest


def splits() -> pd.DataFrame:
    return pd.read_parquet("data/splits.parquet").set_index("video_id")


def account() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("reports/splits.json").read_text())
    return found


def test_growing_by_a_tenth_moves_no_video_and_the_stage_is_idempotent(params: Params) -> None:
    write_manifest(200)
    run(params)
    before = splits()
    assert account()["previous"] == {"sha256": None, "kept": 0, "new": 196, "gone": 0, "moved_by_user": 0}
    run(params)
    assert splits().equals(before)
    write_manifest(220)
    run(params)
    after = splits()
    assert after.loc[before.index, "split"].equals(before["split"])
    kept = account()["previous"]
    assert (kept["kept"], kept["new"], kept["gone"], kept["moved_by_user"]) == (196, len(after) - 196, 0, 0)


def test_other_settings_start_anew(params: Params, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(200)
    run(params)
    before = splits()["split"]
    run(with_split(repository, seed=8))
    assert "made with other settings" in capsys.readouterr().err
    assert not splits()["split"].equals(before)
    assert account()["previous"]["kept"] == 0


def test_thinned_negatives_carry_their_weight_into_every_later_stage(params: Params, repository: Path) -> None:
    write_manifest(400)
    run(params)
    before = splits()["split"]
    thinned = with_split(repository, negatives={"train": 0.5, "val": 1.0, "test": 1.0})
    run(thinned)
    assert splits()["split"].equals(before), "how many negatives are kept moves no video"
    table, rows = splits(), split_manifest(thinned.paths)
    assert set(table["weight"]) == {0.0, 1.0, 2.0}
    assert len(rows) == int((table["weight"] > 0).sum())
    assert set(rows.loc[rows["split"] == "train", "weight"]) == {1.0, 2.0}
    assert set(rows.loc[rows["split"] != "train", "weight"]) == {1.0}
    # growth keeps the same negatives
    write_manifest(600)
    run(thinned)
    assert splits().loc[table.index, "weight"].equals(table["weight"])


def test_the_profile_is_of_the_rows_that_are_trained_on(params: Params, repository: Path) -> None:
    write_manifest(400)
    thinned = with_split(repository, negatives={"train": 0.5, "val": 1.0, "test": 1.0})
    run(thinned)
    rows = split_manifest(thinned.paths, wanted={"train"})
    known = read_json(thinned.paths.train_profile)
    assert known == profile(rows, ["icd", "ucc"])
    assert known["rows"] == len(rows) < int((splits()["split"] == "train").sum()), "dropped negatives do not count"


def test_a_candidate_has_the_same_profile_where_the_split_wrote_none(params: Params) -> None:
    write_manifest(400)
    run(params)
    inputs = CandidateInputs.of(params, "icd")
    told = candidate._profile(inputs)
    assert "label_icd" in told["columns"]
    assert "label_ucc" not in told["columns"]
    params.paths.train_profile.unlink()  # as in a workspace from before
    assert candidate._profile(inputs) == told


def test_another_issue_moves_no_video(params: Params, repository: Path) -> None:
    write_manifest(200)
    run(params.model_copy(update={"issues": ("icd",)}))
    before = splits()["split"]
    run(params)
    assert splits()["split"].equals(before)


def test_the_users_column_wins_over_the_past_and_it_is_said(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(200)
    run(params)
    assert "none yet; all videos are assigned anew" in capsys.readouterr().err
    before = splits()["split"]
    chosen = before.index[before == "train"][0]
    write_table(
        manifest.assign(split=manifest["video_id"].eq(chosen).map({True: "test"})), Path("data/manifest.parquet")
    )
    run(params)
    moved = before.index[splits()["split"] != before]
    assert chosen in moved
    assert account()["previous"]["moved_by_user"] == len(moved) <= 2
    assert f"{len(moved)} video(s) moved from their earlier split" in capsys.readouterr().err


def test_a_large_near_duplicate_group_is_told_and_old_ones_that_it_ties_stay(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(400)
    run(params)
    before = splits()["split"]
    # 120 old videos turn out to look alike: more than the account names per split
    write_table(manifest.assign(phash=["ab" * 128] * 120 + [""] * 280), Path("data/manifest.parquet"))
    run(params)
    assert splits()["split"].equals(before)
    messages = capsys.readouterr().err
    assert "videos form one near-duplicate group; if they are no copies, lower split.near_duplicates" in messages
    assert "1 group(s) of old videos of several splits" in messages


def test_a_prevalence_outside_its_range_in_one_split_fails_before_anything_is_written(
    params: Params, repository: Path
) -> None:
    manifest = write_manifest(200)
    asked = manifest.assign(split=np.where(manifest["label_icd"] == 1, "train", None))
    asked.loc[asked.index[asked["label_icd"] == 1][:4], "split"] = ["val", "test", "test", "val"]
    write_table(asked.assign(creator_id=None), Path("data/manifest.parquet"))
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    raw["validate"]["prevalence"]["icd"] = [0.2, 0.6]
    with pytest.raises(ValidationFailedError, match=r"splits.parquet: prevalence_icd: .*(val|test)"):
        run(parse_params(raw, load_recipe(repository / "recipe.yaml")))
    assert not Path("data/splits.parquet").exists()
    assert Path("reports/splits_validation.html").is_file()


def test_fewer_calls_than_positives_is_told() -> None:
    rule = {"p_base": (), "views_trigger": None, "mode": "qps", "min_kept_f1": 0.9}
    thresholds = {"icd": Thresholds(max_qps_ratio=15.0, **rule), "ucc": Thresholds(max_qps_ratio=20.0, **rule)}
    shares = {"icd": {"prevalence": 0.2}, "ucc": {"prevalence": 0.2}}
    found = few_calls({"splits": {"train": {"issues": shares}}}, thresholds)
    assert ["thresholds.icd.max_qps_ratio = 15: 20.0 % of the videos are positive" in line for line in found] == [True]
