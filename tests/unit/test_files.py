"""Atomic writes, hashes, and paths that stay inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.files import atomic_path, inside, read_json, sha256_json, sha256_tree, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"v": 1})
    with pytest.raises(IsADirectoryError), atomic_path(target) as temporary:
        temporary.write_text(tmp_path.read_text())
    assert read_json(target) == {"v": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_new_file_has_the_usual_rights_whoever_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "swapped") as temporary:
        (tmp_path / "other").touch(mode=0o600)
        (tmp_path / "other").replace(temporary)
    assert (tmp_path / "swapped").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"v": float("nan")})


def test_missing_and_broken_json_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match=r"b\.json: not JSON"):
        read_json(tmp_path / "b.json")


def test_json_hash_ignores_key_order_only() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


def test_tree_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    first = sha256_tree(tmp_path)
    (tmp_path / "x").rename(tmp_path / "y")
    renamed = sha256_tree(tmp_path)
    (tmp_path / "y").write_text("2")
    assert len({first, renamed, sha256_tree(tmp_path)}) == 3


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "link/x"])
def test_paths_that_leave_the_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="outside the data root"):
        inside(root, path)


def test_paths_within_the_root(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/../b.mp4") == tmp_path.resolve() / "b.mp4"
