"""The id of a clip without one: from its own path alone, and the one it had before where there was one."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.data.importers import open_table
from coefvq.data.importers.ids import KnownIds, clip_place, id_from_path, manifest_ids
from coefvq.errors import DataError


def write(folder: Path, uris: list[str]) -> Path:
    pd.DataFrame({"file_name": uris}).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def ids(folder: Path, uris: list[str]) -> dict[str, str]:
    return {row["uri"]: row["video_id"] for row in open_table(write(folder, uris), labels={}).rows()}


def manifest(folder: Path, known: dict[str, str]) -> Path:
    pd.DataFrame({"video_id": list(known), "uri": list(known.values())}).to_parquet(folder / "manifest.parquet")
    return folder / "manifest.parquet"


def test_others_do_not_change_a_clips_id(tmp_path: Path) -> None:
    """One repeated file name changed the ids of all clips once, and moved videos of the test split into train."""
    first = ids(tmp_path, ["a.mp4", "fight/b.mp4", "c.mov"])
    more = ids(tmp_path, ["calm/b.mp4", "x/a.mp4", "c.mp4", "a.mov", "fight/b.mp4", "c.mov", "a.mp4"])
    assert {uri: more[uri] for uri in first} == first
    assert len(set(more.values())) == 7
    assert first["a.mp4"] == "a"
    assert first["fight/b.mp4"].startswith("b-")


SEGMENT = st.text("ab.-é_", min_size=1, max_size=4).filter(lambda text: set(text) != {"."})
PATH = st.builds(
    lambda parts, suffix: "/".join(parts) + suffix,
    st.lists(SEGMENT, min_size=1, max_size=3),
    st.sampled_from([".mp4", ".MP4", ".mov", ""]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(PATH, min_size=1, max_size=8, unique_by=clip_place), st.randoms(use_true_random=False))
def test_ids_depend_on_no_other_row(
    tmp_path_factory: pytest.TempPathFactory, uris: list[str], chance: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    alone = {uri: ids(folder, [uri])[uri] for uri in uris}
    shuffled = chance.sample(uris, len(uris))
    assert ids(folder, shuffled) == alone
    assert len(set(alone.values())) == len(uris)


def test_spellings_of_one_path_and_of_two(tmp_path: Path) -> None:
    long = id_from_path("clips/käse.mp4")
    for spelling in ("clips\\käse.mp4", "./clips//käse.mp4", unicodedata.normalize("NFD", "clips/käse.mp4")):
        assert id_from_path(spelling) == long
    assert id_from_path("https://me:pw@h/a.mp4?token=1#t") == id_from_path("https://h/a.mp4?token=2")
    assert all(id_from_path(uri) for uri in (".mp4", "a/.mp4", "https://[h/a.mp4", "/", "."))
    apart = ["a/b.mp4", "a-b.mp4", "a_b.mp4", "b.mp4", "b.MP4", "b.mov", "B.mp4", "https://h/b.mp4", "https://g/b.mp4"]
    assert len({id_from_path(uri) for uri in apart}) == len(apart)
    with pytest.raises(DataError, match=r"row 3: duplicate video_id 'käse-\w+' \(first in row 2\)"):
        open_table(write(tmp_path, ["clips/käse.mp4", unicodedata.normalize("NFD", "clips/käse.mp4")]))


def test_known_clips_keep_their_ids(tmp_path: Path) -> None:
    """By the older rule: the stem, wherever the clip lies, or a hash for all where one stem came again."""
    earlier = manifest(tmp_path, {"x": "fight/x.mp4", "y-0123456789abcdef": "y.mp4", "old": "https://h/z.mp4?s=1"})
    id_of = manifest_ids(earlier, tmp_path / "splits.parquet")
    assert [id_of(uri) for uri in ("fight/x.mp4", "fight\\x.mp4", "y.mp4")] == ["x", "x", "y-0123456789abcdef"]
    assert id_of("https://h/z.mp4?s=2") == "old"
    assert id_of("w.mp4") == "w"
    # a new clip would be called x, but that is another clip's id
    assert id_of("x.mp4") not in ("x", id_of("fight/x.mp4"))
    assert id_of("x.mp4").startswith("x-")


def test_addresses_that_differ_in_their_query_only(tmp_path: Path) -> None:
    earlier = manifest(tmp_path, {"one": "https://h/watch?v=1", "two": "https://h/watch?v=2"})
    id_of = manifest_ids(earlier, tmp_path / "splits.parquet")
    assert [id_of("https://h/watch?v=1"), id_of("https://h/watch?v=2")] == ["one", "two"]
    assert id_of("https://h/watch?v=3") == id_from_path("https://h/watch")


def test_below_a_prefix_the_manifest_holds_whole_addresses(tmp_path: Path) -> None:
    earlier = manifest(tmp_path, {"x": "s3://bucket/fight/x.mp4"})
    assert manifest_ids(earlier, tmp_path / "s", "s3://bucket")("fight/x.mp4") == "x"
    assert manifest_ids(earlier, tmp_path / "s")("fight/x.mp4") == id_from_path("fight/x.mp4")


def test_splits_without_their_manifest_are_refused(tmp_path: Path) -> None:
    id_of = manifest_ids(tmp_path / "manifest.parquet", tmp_path / "splits.parquet")
    assert id_of("a/b.mp4") == id_from_path("a/b.mp4")
    (tmp_path / "splits.parquet").touch()
    id_of = manifest_ids(tmp_path / "manifest.parquet", tmp_path / "splits.parquet")
    with pytest.raises(DataError, match=r"manifest\.parquet: missing, but .*splits\.parquet shows that there was one"):
        id_of("a/b.mp4")
    (tmp_path / "manifest.parquet").write_text("x")
    with pytest.raises(DataError, match="not a readable manifest"):
        manifest_ids(tmp_path / "manifest.parquet", tmp_path / "splits.parquet")("a/b.mp4")


def test_the_manifest_is_not_read_where_every_row_has_an_id(tmp_path: Path) -> None:
    pd.DataFrame({"file_name": ["a.mp4"], "video_id": ["7"]}).to_csv(tmp_path / "t.csv", index=False)

    def unread() -> list[tuple[str, str]]:
        raise AssertionError("read")

    assert [row["video_id"] for row in open_table(tmp_path / "t.csv", id_of=KnownIds(unread)).rows()] == ["7"]
