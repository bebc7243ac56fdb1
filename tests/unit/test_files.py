"""Atomic writes, hashes, and paths that stay inside."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.files import atomic_path, inside, read_json, sha256_json, sha256_tree, write_json, write_text


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


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_is_applied_and_never_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    before = os.umask(umask)
    try:
        # setting it to read it would be a moment in which another thread's files are open to all
        monkeypatch.setattr(os, "umask", None)
        write_json(tmp_path / "new" / "a.json", {})
        with atomic_path(tmp_path / "cache" / "deep" / "a", private=True) as temporary:
            temporary.write_bytes(b"a")
    finally:
        monkeypatch.undo()
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes["a.json"] == 0o666 & ~umask
    assert modes["new"] == 0o777 & ~umask
    assert (modes["cache"], modes["deep"], modes["a"]) == (0o700, 0o700, 0o600)


def test_a_temporary_is_never_another_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".a.guessed.tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError), atomic_path(tmp_path / "a"):
        pass
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / ".a.guessed.tmp").is_symlink()


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


def test_a_pipe_a_device_or_a_folder_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DataError, match=rf"{name}: a folder, pipe or device, not a file"):
            write_text(tmp_path / name, "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]
