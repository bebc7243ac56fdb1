"""Splits on small, hand-made manifests and on the group structure of a real data set."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pandas as pd
import pytest

from coefvq.config import Fractions, Negatives, Split
from coefvq.data.splits.account import torn_videos
from coefvq.data.splits.assign import assign_splits, check_splits, enrichment_weights, summarize, with_look_alikes
from coefvq.data.splits.groups import find_ties
from coefvq.errors import SplitError
from coefvq.records import LABELLED_SPLITS

#: (videos, positives) per source of a real set: few large mixed sources, many single negatives
REAL_GROUPS = [
    *[(20, 1), (17, 12), (11, 7), (11, 1), (10, 7), (9, 5), (9, 8), (7, 4), (6, 4), (6, 3), (6, 4), (5, 3), (5, 5)],
    *[(5, 3), (4, 3), (4, 2), (4, 4), (4, 2), (3, 2), (3, 2), (3, 2), (3, 2), (3, 1), (3, 2), (2, 0), (2, 1), (2, 1)],
    *[(2, 1), (1, 1), *[(1, 0)] * 21],
]


def params(
    train: float = 0.5, val: float = 0.2, test: float = 0.2, traffic: float = 0.1, group_by: Any = ("source_id",)
) -> Split:
    return Split(
        fractions=Fractions(train=train, val=val, test=test, traffic=traffic),
        order="random",
        near_duplicates=None,
        negatives=Negatives(train=1.0, val=1.0, test=1.0),
        group_by=group_by,
    )


def table(groups: list[tuple[int, int]], prefix: str = "v") -> pd.DataFrame:
    """One row per video of groups given as (videos, positives)."""
    rows = [
        {"source_id": f"{prefix}-source{group:03d}", "label_icd": int(place < positives)}
        for group, (size, positives) in enumerate(groups)
        for place in range(size)
    ]
    frame = pd.DataFrame(rows).astype({"label_icd": "Int8", "source_id": "str"})
    ids = [f"{prefix}{row:04d}" for row in range(len(frame))]
    return frame.assign(
        video_id=ids, sha256=[f"sha-{name}" for name in ids], creator_id=pd.array([None] * len(ids), dtype="str")
    ).assign(decode_ok=True)


def singles(positives: int, negatives: int, prefix: str = "v") -> pd.DataFrame:
    return table([(1, 1)] * positives + [(1, 0)] * negatives, prefix)


def by_id(manifest: pd.DataFrame, splits: pd.Series[Any]) -> pd.Series[Any]:
    return splits.set_axis(manifest["video_id"])


@pytest.mark.parametrize("seed", range(5))
def test_real_group_sizes_give_usable_splits_near_their_shares(seed: int) -> None:
    manifest, wanted = table(REAL_GROUPS), params()
    splits = assign_splits(manifest, ["icd"], wanted, seed)
    check_splits(manifest, splits, ["icd"], wanted)
    shares = splits.value_counts(normalize=True)
    for name in (*LABELLED_SPLITS, "traffic"):
        assert shares[name] == pytest.approx(getattr(wanted.fractions, name), abs=0.05)
    for name in ("train", "val", "test"):
        assert manifest.loc[splits == name, "label_icd"].mean() == pytest.approx(92 / 191, abs=0.12)


def test_shares_and_prevalence_are_exact_when_every_video_is_its_own_group() -> None:
    manifest = singles(positives=100, negatives=900)
    splits = assign_splits(manifest, ["icd"], params(), seed=3)
    assert splits.value_counts().to_dict() == {"train": 500, "val": 200, "test": 200, "traffic": 100}
    for name in ("train", "val", "test"):
        assert manifest.loc[splits == name, "label_icd"].mean() == pytest.approx(0.1, abs=0.02)


def test_seed_decides() -> None:
    manifest = table(REAL_GROUPS)
    first, again, other = (assign_splits(manifest, ["icd"], params(), seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_traffic_is_drawn_without_looking_at_labels() -> None:
    manifest = table(REAL_GROUPS)
    flipped = manifest.assign(label_icd=1 - manifest["label_icd"])
    skewed = manifest.assign(label_icd=pd.array([1] + [0] * 190, dtype="Int8"))
    drawn = [assign_splits(frame, ["icd"], params(), seed=4) == "traffic" for frame in (manifest, flipped, skewed)]
    assert drawn[0].equals(drawn[1])
    assert drawn[0].equals(drawn[2])


def test_traffic_draw_does_not_favour_large_groups() -> None:
    # two thirds of the videos sit in groups of 4; over many seeds traffic should look the same
    manifest = table([(4, 2)] * 50 + [(1, 0)] * 100)
    shares = []
    for seed in range(30):
        traffic = manifest[assign_splits(manifest, ["icd"], params(traffic=0.3, train=0.3), seed) == "traffic"]
        shares.append(traffic["source_id"].duplicated(keep=False).mean())
    assert sum(shares) / len(shares) == pytest.approx(200 / 300, abs=0.05)


def test_equal_bytes_empty_values_and_chains_of_columns() -> None:
    manifest = singles(20, 20).assign(source_id="")
    manifest.loc[[0, 39], "sha256"] = "same"
    manifest.loc[[1, 2], "source_id"] = "s"
    manifest.loc[[2, 38], "creator_id"] = "c"
    wanted = params(group_by=("source_id", "creator_id"))
    splits = assign_splits(manifest, ["icd"], wanted, seed=0)
    assert splits[0] == splits[39]
    assert splits[1] == splits[2] == splits[38]
    assert splits.nunique() == 4, "an empty source is unknown, not shared"
    assert summarize(manifest, splits, ["icd"], wanted)["groups"] == 37


def test_unlabelled_groups_fill_traffic_first_and_undecodable_videos_get_no_split() -> None:
    manifest = singles(20, 30)
    manifest.loc[30:33, "label_icd"] = pd.NA
    manifest.loc[34, "source_id"] = manifest.loc[0, "source_id"]
    manifest.loc[34, "label_icd"] = pd.NA
    manifest.loc[39:44, "decode_ok"] = False
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    assert splits[30:34].eq("traffic").all()
    assert splits[39:45].isna().all()
    assert splits.drop(index=range(39, 45)).notna().all()
    assert splits[34] == splits[0], "an unlabelled video stays with its labelled group"
    assert splits.eq("traffic").sum() == 4, "four unlabelled videos of 44 are all that traffic wants"


def test_more_unlabelled_videos_than_wanted_leave_the_labelled_ones_to_train_val_and_test() -> None:
    manifest = singles(30, 60)
    manifest.loc[manifest.index >= 45, "label_icd"] = pd.NA
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    assert splits[:45].ne("traffic").all()
    assert splits[45:].eq("traffic").all()
    assert splits[:45].value_counts()["train"] == 25


def test_undecodable_videos_tie_no_groups_together() -> None:
    manifest = singles(20, 20)
    manifest["source_id"] = "all"
    manifest.loc[0:38, "source_id"] = [f"s{row}" for row in range(39)]
    manifest.loc[39, "decode_ok"] = False
    manifest["creator_id"] = ["c"] + [f"c{row}" for row in range(1, 39)] + ["c"]
    wanted = params(group_by=("source_id", "creator_id"))
    splits = assign_splits(manifest, ["icd"], wanted, seed=0)
    assert summarize(manifest, splits, ["icd"], wanted)["largest_group"] == 1


def test_two_issues_with_few_positives_each_reach_every_labelled_split() -> None:
    manifest = singles(3, 37)
    manifest["label_ucc"] = pd.array([0] * 37 + [1] * 3, dtype="Int8")
    splits = assign_splits(manifest, ["icd", "ucc"], params(traffic=0.0, train=0.6), seed=0)
    for name in ("train", "val", "test"):
        assert manifest.loc[splits == name, ["label_icd", "label_ucc"]].sum().tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_covering_takes_a_choice_back_that_leads_nowhere(seed: int) -> None:
    # which classes each of six groups holds; the choice that looks best first leaves a split without one
    groups = ["icd1 ucc1", "icd0 ucc1", "icd0 ucc1", "icd0 ucc0 ucc1", "icd1 ucc0 ucc1", "icd1 ucc0"]
    rows = [
        {"source_id": f"s{number}", f"label_{cell[:3]}": int(cell[3])}
        for number, cells in enumerate(groups)
        for cell in cells.split()
    ]
    manifest = singles(len(rows), 0).assign(
        **{
            name: pd.DataFrame(rows)[name].astype("Int8" if name.startswith("label") else "str")
            for name in ("source_id", "label_icd", "label_ucc")
        }
    )
    splits = assign_splits(manifest, ["icd", "ucc"], params(traffic=0.0, train=0.6), seed)
    for name in ("train", "val", "test"):
        assert manifest.loc[splits == name, ["label_icd", "label_ucc"]].nunique().tolist() == [2, 2]


def test_traffic_gets_a_group_even_if_all_are_larger_than_its_share() -> None:
    manifest = table([(8, 2), (7, 2), (8, 3), (8, 2)])
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    check_splits(manifest, splits, ["icd"], params())
    assert manifest.loc[splits == "traffic", "source_id"].unique().tolist() == ["v-source001"]


def test_row_order_does_not_matter() -> None:
    manifest = table(REAL_GROUPS)
    forwards = assign_splits(manifest, ["icd"], params(), seed=0)
    assert assign_splits(manifest[::-1], ["icd"], params(), seed=0)[::-1].equals(forwards)


def test_old_videos_keep_their_split_and_new_ones_fill_the_shares() -> None:
    old = table([(3, 1)] * 20)
    new = table([(1, 0), (1, 1)] * 70, prefix="w")
    splits = assign_splits(old, ["icd"], params(), seed=0)
    grown = pd.concat([new, old], ignore_index=True)
    after = assign_splits(grown, ["icd"], params(), seed=1, previous=by_id(old, splits))
    assert by_id(grown, after).loc[old["video_id"]].tolist() == splits.tolist()
    assert after.value_counts().to_dict() == {"train": 100, "val": 40, "test": 40, "traffic": 20}


def test_a_new_video_of_an_old_group_follows_it_and_a_freed_one_may_move() -> None:
    manifest = singles(30, 30)
    previous = by_id(manifest, assign_splits(manifest, ["icd"], params(), seed=0))
    newcomer = singles(1, 0, prefix="w").assign(source_id="v-source007")
    grown = pd.concat([manifest, newcomer], ignore_index=True)
    after = by_id(grown, assign_splits(grown, ["icd"], params(), 0, previous))
    assert after["w0000"] == previous["v0007"]
    everything_free = by_id(grown, assign_splits(grown, ["icd"], params(), 5, previous.iloc[:0]))
    assert everything_free.equals(by_id(grown, assign_splits(grown, ["icd"], params(), 5)))


@pytest.mark.parametrize(
    ("ties", "followed"),
    [
        ({"train": 2, "test": 1}, "train"),
        ({"train": 1, "test": 2}, "test"),
        ({"train": 1, "test": 1}, "test"),
        ({"train": 1, "val": 1}, "val"),
        ({"train": 1, "traffic": 1}, "traffic"),
    ],
)
def test_a_video_that_ties_old_groups_together(ties: dict[str, int], followed: str) -> None:
    manifest = singles(30, 30)
    wanted = params(group_by=("source_id", "creator_id"))
    splits = assign_splits(manifest, ["icd"], wanted, seed=0)
    previous = by_id(manifest, splits)
    bridge = singles(1, 0, prefix="w").assign(creator_id="bridge")
    grown = pd.concat([manifest, bridge], ignore_index=True)
    tied = [row for name, count in ties.items() for row in splits.index[splits == name][:count]]
    grown.loc[tied, "creator_id"] = "bridge"

    after = assign_splits(grown, ["icd"], wanted, 0, previous)

    assert by_id(grown, after).loc[manifest["video_id"]].tolist() == splits.tolist(), "old videos stay"
    assert by_id(grown, after)["w0000"] == followed
    conflicts = summarize(grown, after, ["icd"], wanted)["conflicts"]
    assert [conflict["rows"] for conflict in conflicts] == [len(tied) + 1]
    assert "w0000" in conflicts[0]["videos"][followed]
    check_splits(grown, after, ["icd"], wanted, previous)
    with pytest.raises(SplitError, match="creator_id='bridge' is in several splits"):
        check_splits(grown, after, ["icd"], wanted)


def test_previous_does_not_excuse_a_new_leak() -> None:
    manifest = table([(2, 1)] * 20)
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    previous = by_id(manifest, splits)
    splits[1] = "val" if splits[0] == "train" else "train"
    with pytest.raises(SplitError, match="source_id='v-source000'"):
        check_splits(manifest, splits, ["icd"], params(), previous)


def test_leakage_names_the_group_and_its_videos() -> None:
    manifest = table([(2, 1)] * 20)
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    splits[0], splits[1] = "train", "test"
    with pytest.raises(SplitError) as caught:
        check_splits(manifest, splits, ["icd"], params())
    message = str(caught.value)
    assert message.startswith("group source_id='v-source000' is in several splits: test ('v0001'), train ('v0000');")
    assert "\n" not in message


def test_an_empty_split_is_explained_by_the_grouping() -> None:
    manifest = table([(20, 10)] * 3)
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    with pytest.raises(SplitError) as caught:
        check_splits(manifest, splits, ["icd"], params())
    message = str(caught.value)
    assert "is empty" in message
    assert "60 decodable video(s) form 3 group(s) by source_id, sha256 (largest 20)" in message
    assert "drop a column from split.group_by" in message


def test_an_empty_split_is_explained_by_a_fraction_of_zero() -> None:
    manifest, wanted = singles(20, 20), params(val=0.0, train=0.7)
    splits = assign_splits(manifest, ["icd"], wanted, seed=0)
    with pytest.raises(SplitError, match=r"'val' is empty: split\.fractions\.val is 0 .* raise split\.fractions\.val$"):
        check_splits(manifest, splits, ["icd"], wanted)


def test_one_class_in_a_split_names_split_issue_and_counts() -> None:
    manifest = singles(2, 38)
    wanted = params(traffic=0.025, train=0.575)
    splits = pd.Series(["train"] * 20 + ["val"] * 10 + ["test"] * 9 + ["traffic"], index=manifest.index)
    with pytest.raises(SplitError) as caught:
        check_splits(manifest, splits, ["icd"], wanted)
    message = str(caught.value)
    assert "split 'val' holds 0 positive and 10 negative video(s) for icd" in message
    assert "train 2/18, test 0/9, traffic 0/1" in message
    assert "label more positive videos" in message


def test_a_labelled_split_without_negatives_is_refused_and_traffic_may_have_one_class() -> None:
    manifest = singles(10, 10)
    placed = ["train", "val", "test"] * 3 + ["traffic"] + ["train"] * 4 + ["val"] * 5 + ["train"]
    with pytest.raises(SplitError, match=r"'test' holds 3 positive and 0 negative.*label more negative videos"):
        check_splits(manifest, pd.Series(placed), ["icd"], params())
    placed[-1] = "test"
    check_splits(manifest, pd.Series(placed), ["icd"], params())


@pytest.mark.parametrize(
    ("previous", "message"),
    [
        (pd.Series(["valid"], index=["v0001"]), "'v0001' is in 'valid', expected train, val, test, traffic"),
        (pd.Series(["val", "val"], index=["v0001", "v0001"]), "'v0001' occurs twice"),
    ],
)
def test_unusable_previous_splits_are_refused(previous: pd.Series[Any], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        assign_splits(singles(5, 5), ["icd"], params(), 0, previous)


def test_nothing_decodable_gives_no_split_at_all() -> None:
    manifest = singles(5, 5).assign(decode_ok=False)
    splits = assign_splits(manifest, ["icd"], params(), seed=0)
    assert splits.isna().all()
    with pytest.raises(SplitError, match=r"'train' is empty: .* 0 decodable"):
        check_splits(manifest, splits, ["icd"], params())


def labelled(count: int, positives: int, prevalence: float | None) -> dict[str, Any]:
    return {"labelled": count, "positives": positives, "prevalence": prevalence}


def test_summary_counts_and_is_json() -> None:
    manifest = table([(4, 1), (1, 1), (1, 0), (1, 0)])
    manifest.loc[6, "decode_ok"] = False
    manifest.loc[3, "label_icd"] = pd.NA
    splits = pd.Series(["train"] * 4 + ["val", "test", None], dtype="str")
    summary = summarize(manifest, splits, ["icd"], params())
    assert json.loads(json.dumps(summary)) == {
        "rows": 7,
        "excluded": 1,
        "groups": 3,
        "largest_group": 4,
        "near_duplicates": {"videos": 0, "groups": 0, "largest": 0},
        "shared_creators": {},
        "splits": {
            "train": {"rows": 4, "kept": 4, "groups": 1, "issues": {"icd": labelled(3, 1, 0.333333)}},
            "val": {"rows": 1, "kept": 1, "groups": 1, "issues": {"icd": labelled(1, 1, 1.0)}},
            "test": {"rows": 1, "kept": 1, "groups": 1, "issues": {"icd": labelled(1, 0, 0.0)}},
            "traffic": {"rows": 0, "kept": 0, "groups": 0, "issues": {"icd": labelled(0, 0, None)}},
            "unlabelled": {"rows": 0, "kept": 0, "groups": 0, "issues": {"icd": labelled(0, 0, None)}},
        },
        "conflicts": [],
    }


def hashed(names: dict[int, str], count: int) -> pd.DataFrame:
    """Single videos, positive every third, with a perceptual hash made of a word each."""
    frame = singles(count // 3, count - count // 3)
    words = [names.get(row, f"{row:02x}") for row in range(count)]
    return frame.assign(phash=[hashlib.sha256(word.encode()).hexdigest() * 4 for word in words])


def with_near(wanted: Split, distance: int | None = 31) -> Split:
    return wanted.model_copy(update={"near_duplicates": distance})


def test_look_alikes_stay_together() -> None:
    manifest = hashed({3: "copy", 40: "copy", 57: "copy"}, 90)
    together = [assign_splits(manifest, ["icd"], with_near(params()), seed).iloc[[3, 40, 57]] for seed in range(6)]
    assert all(splits.nunique() == 1 for splits in together)
    apart = [assign_splits(manifest, ["icd"], params(), seed).iloc[[3, 40, 57]].nunique() for seed in range(6)]
    assert max(apart) > 1
    account = summarize(
        manifest, assign_splits(manifest, ["icd"], with_near(params()), 0), ["icd"], with_near(params())
    )
    assert account["near_duplicates"] == {"videos": 3, "groups": 1, "largest": 3}


def test_look_alikes_in_two_splits_are_a_leak() -> None:
    manifest = hashed({3: "copy", 40: "copy"}, 90)
    splits = assign_splits(manifest, ["icd"], with_near(params()), 0)
    splits[3], splits[40] = "train", "test"
    with pytest.raises(
        SplitError, match=r"group look_alike=0 is in several splits: test \('v0040'\), train \('v0003'\)"
    ):
        check_splits(manifest, splits, ["icd"], with_near(params()))
    check_splits(manifest, splits, ["icd"], params())


def test_an_undecodable_video_is_nobodys_look_alike() -> None:
    manifest = hashed({3: "copy", 40: "copy"}, 90)
    manifest.loc[40, "decode_ok"] = False
    found = with_look_alikes(manifest, with_near(params()))["look_alike"]
    assert found.isna().all()
    twice = with_look_alikes(manifest.assign(look_alike=found), with_near(params()))
    assert twice["look_alike"] is not None
    assert "look_alike" not in with_look_alikes(manifest, params())


def test_all_videos_of_a_torn_group_are_named() -> None:
    manifest = table([(60, 20), (60, 20), (60, 20), (1, 0)])
    splits = pd.Series((["train"] * 30 + ["test"] * 30) + ["val"] * 60 + ["train"] * 60 + ["traffic"], dtype="str")
    assert torn_videos(manifest, splits, find_ties(manifest, params())) == set(manifest["video_id"][:60])


def test_the_users_column_places_whole_groups_and_overrules_the_past() -> None:
    manifest = table([(2, 1)] * 30)
    free = assign_splits(manifest, ["icd"], params(), 1)
    asked = pd.Series(None, index=manifest.index, dtype="str")
    asked[0] = "test"
    asked[2] = "train"
    placed = assign_splits(manifest.assign(split=asked), ["icd"], params(), 1, by_id(manifest, free))
    assert placed[:4].tolist() == ["test", "test", "train", "train"]
    assert (placed[4:] == free[4:]).all()


def test_a_users_column_that_divides_a_group_is_refused() -> None:
    manifest = table([(2, 1)] * 20).assign(split=None)
    manifest.loc[[6, 7], "split"] = ["train", "test"]
    with pytest.raises(SplitError, match=r"column split divides .*'v0006' in train, 'v0007' in test"):
        assign_splits(manifest, ["icd"], params(), 1)


def dated(count: int, first_day: int = 0, prefix: str = "v") -> pd.DataFrame:
    frame = singles(count // 3, count - count // 3, prefix).sample(frac=1.0, random_state=1).reset_index(drop=True)
    days = pd.date_range("2026-01-01", periods=first_day + count, freq="D", tz="UTC")[first_day:]
    return frame.assign(published_at=days.strftime("%Y-%m-%dT%H:%M:%SZ"))


def timed(wanted: Split) -> Split:
    return wanted.model_copy(update={"order": "time"})


def test_time_order_trains_on_the_past_and_tests_on_the_future() -> None:
    manifest = dated(200)
    splits = assign_splits(manifest, ["icd"], timed(params()), 3)
    latest = manifest.groupby(splits)["published_at"].max()
    earliest = manifest.groupby(splits)["published_at"].min()
    assert latest["train"] < earliest["val"]
    assert latest["val"] < min(earliest["test"], earliest["traffic"])
    counts = splits.value_counts()
    assert counts["train"] == 100
    assert counts["val"] == 40
    assert 10 <= counts["traffic"] <= 32
    check_splits(manifest, splits, ["icd"], timed(params()))


def test_new_videos_are_placed_by_the_old_borders() -> None:
    old = dated(100)
    before = assign_splits(old, ["icd"], timed(params()), 3)
    late = dated(20, first_day=150, prefix="w")
    early = dated(5, prefix="x")
    grown = pd.concat([old, late, early], ignore_index=True)
    after = assign_splits(grown, ["icd"], timed(params()), 3, by_id(old, before))
    assert (after[:100] == before).all()
    assert set(after[100:120]) <= {"test", "traffic"}
    assert set(after[120:]) == {"train"}


def test_a_follower_from_the_future_moves_no_border() -> None:
    old = dated(100)
    before = assign_splits(old, ["icd"], timed(params()), 3)
    previous, grown = by_id(old, before), old
    # twice: in the second round the follower itself is an old video of train
    for number, prefix in enumerate("wx"):
        late = dated(20, first_day=150 + 20 * number, prefix=prefix)
        late.loc[19, "source_id"] = old.loc[before == "train", "source_id"].iloc[number]
        grown = pd.concat([grown, late], ignore_index=True)
        previous = by_id(grown, assign_splits(grown, ["icd"], timed(params()), 3, previous))
        newcomers = previous[late["video_id"]]
        assert newcomers.iloc[19] == "train", "it follows its group"
        assert set(newcomers.iloc[:19]) <= {"test", "traffic"}
    account = summarize(grown, previous.set_axis(grown.index), ["icd"], timed(params()))["splits"]
    assert account["train"]["published"][1] == grown["published_at"].iloc[-1], "and the account shows it"
    assert account["val"]["published"][1] < account["test"]["published"][0]


def test_videos_the_user_places_set_no_border() -> None:
    old = dated(100).assign(split=None)
    old.loc[98, "split"], old.loc[99, "split"] = "train", "val"
    splits = assign_splits(old, ["icd"], timed(params()), 3)
    assert splits[98:].tolist() == ["train", "val"]
    assert set(splits[75:98]) <= {"test", "traffic"}
    grown = pd.concat([old, dated(20, first_day=150, prefix="w")], ignore_index=True)
    after = assign_splits(grown, ["icd"], timed(params()), 3, by_id(old, splits))
    assert set(after[100:]) <= {"test", "traffic"}


def test_time_order_gives_traffic_its_share_of_the_newest() -> None:
    counts = assign_splits(dated(1000), ["icd"], timed(params()), 3).value_counts()
    assert counts.to_dict() == {"train": 500, "val": 200, "test": 200, "traffic": 100}


def test_time_order_without_times_is_refused() -> None:
    manifest = dated(30)
    manifest.loc[4, "published_at"] = None
    with pytest.raises(SplitError, match=r"1 video\(s\) have no published_at .*split.order: random"):
        assign_splits(manifest, ["icd"], timed(params()), 1)


def thinned(wanted: Split, **shares: float) -> Split:
    negatives = Negatives(**{"train": 1.0, "val": 1.0, "test": 1.0, **shares})
    return wanted.model_copy(update={"negatives": negatives})


def test_thinning_leaves_positives_and_traffic_alone_and_keeps_the_weight() -> None:
    manifest = singles(200, 2000)
    wanted = thinned(params(), train=0.25, val=0.5)
    splits = assign_splits(manifest, ["icd"], wanted, 5)
    weights = enrichment_weights(manifest, splits, ["icd"], wanted, 5)
    positive = manifest["label_icd"].eq(1)
    assert (weights[positive] == 1.0).all()
    assert (weights[splits.isin(["traffic", "test"])] == 1.0).all()
    assert set(weights[~positive & splits.eq("train")]) == {0.0, 4.0}
    assert set(weights[~positive & splits.eq("val")]) == {0.0, 2.0}
    for name, tolerance in (("train", 0.15), ("val", 0.15)):
        rows = splits.eq(name)
        assert abs(weights[rows].sum() / rows.sum() - 1.0) < tolerance
    account = summarize(manifest, splits, ["icd"], wanted, weights)["splits"]["train"]
    assert account["kept"] < 0.4 * account["rows"]
    assert account["issues"]["icd"]["prevalence"] == pytest.approx(200 / 2200, rel=0.2)


def test_growth_changes_no_earlier_choice_of_negatives() -> None:
    manifest = singles(50, 600)
    wanted = thinned(params(), train=0.3)
    splits = assign_splits(manifest, ["icd"], wanted, 5)
    weights = enrichment_weights(manifest, splits, ["icd"], wanted, 5)
    grown = pd.concat([manifest, singles(5, 60, "w")], ignore_index=True)
    later = assign_splits(grown, ["icd"], wanted, 5, by_id(manifest, splits))
    assert (enrichment_weights(grown, later, ["icd"], wanted, 5)[: len(manifest)] == weights).all()


def test_a_split_whose_negatives_are_all_left_out_is_refused() -> None:
    manifest = singles(40, 40)
    wanted = thinned(params(), val=0.5)
    splits = assign_splits(manifest, ["icd"], wanted, 5)
    weights = pd.Series(1.0, index=manifest.index).mask(splits.eq("val") & manifest["label_icd"].eq(0), 0.0)
    check_splits(manifest, splits, ["icd"], wanted)
    with pytest.raises(SplitError, match=r"'val' holds 8 positive and 0 negative .*raise split.negatives.val or"):
        check_splits(manifest, splits, ["icd"], wanted, None, weights)


def test_a_video_unlabelled_for_one_issue_counts_by_the_other() -> None:
    manifest = singles(2, 6).assign(label_ucc=pd.array([None] * 4 + [1, 0, None, 0], dtype="Int8"))
    wanted = thinned(params(), train=0.5)
    splits = pd.Series("train", index=manifest.index)
    weights = enrichment_weights(manifest, splits, ["icd", "ucc"], wanted, 1)
    assert (weights[[0, 1, 4]] == 1.0).all()  # positive for icd, icd, ucc
    assert set(weights[[2, 3, 5, 6, 7]]) <= {0.0, 2.0}


def with_unlabelled(share: float, **changes: float) -> Split:
    rest = {"train": 0.4, "val": 0.2, "test": 0.2, "traffic": 0.2 - share} | changes
    return params().model_copy(update={"fractions": Fractions(**rest, unlabelled=share)})


def test_unlabelled_gets_its_share_and_nothing_moves_where_there_is_none() -> None:
    manifest = singles(100, 900)
    splits = assign_splits(manifest, ["icd"], with_unlabelled(0.15), 3)
    assert splits.eq("unlabelled").sum() == pytest.approx(150, abs=2)
    check_splits(manifest, splits, ["icd"], with_unlabelled(0.15))
    none = assign_splits(manifest, ["icd"], with_unlabelled(0.0), 3)
    assert not none.eq("unlabelled").any()
    check_splits(manifest, none, ["icd"], with_unlabelled(0.0))
    assert (none[splits.eq("traffic")] == "traffic").all()


def test_videos_without_a_label_go_to_traffic_and_unlabelled_by_their_shares() -> None:
    manifest = singles(100, 900)
    manifest.loc[manifest.index >= 400, "label_icd"] = pd.NA
    counts = assign_splits(manifest, ["icd"], with_unlabelled(0.15), 3).value_counts()
    assert counts["unlabelled"] + counts["traffic"] == 600
    assert counts["unlabelled"] / counts["traffic"] == pytest.approx(3.0, abs=0.05)


def test_an_empty_unlabelled_split_is_refused_only_where_it_has_a_share() -> None:
    manifest = singles(20, 20)
    splits = assign_splits(manifest, ["icd"], with_unlabelled(0.0), 1)
    with pytest.raises(SplitError, match=r"split 'unlabelled' is empty: split\.fractions\.unlabelled is 0\.1"):
        check_splits(manifest, splits, ["icd"], with_unlabelled(0.1))


def test_time_order_takes_unlabelled_from_the_time_of_train() -> None:
    manifest, wanted = dated(1000), timed(with_unlabelled(0.1))
    splits = assign_splits(manifest, ["icd"], wanted, 3)
    assert splits.eq("unlabelled").sum() == pytest.approx(100, abs=2)
    assert splits.eq("train").sum() == pytest.approx(400, abs=2)
    latest = manifest["published_at"].groupby(splits).max()
    first = manifest["published_at"].groupby(splits).min()
    assert latest["unlabelled"] < first["val"] < first["test"]
    after = assign_splits(manifest, ["icd"], wanted, 3, by_id(manifest, splits))
    assert after.equals(splits)
