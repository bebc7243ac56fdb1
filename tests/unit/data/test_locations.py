"""The door to clips: what is found under which name, and what never opens."""

from __future__ import annotations

import os
import socket
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.data.clip_names import check_clip
from coefvq.data.locations import (
    CLIP_SUFFIXES,
    Location,
    locate,
    open_regular,
    person_file,
    root_at,
    sha256_regular,
    spelling,
)
from coefvq.errors import MediaError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "käse") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with clips under difficult names, beside a folder that is none of its business."""
    root = tmp_path / "root"
    (root / "clips").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for name in ("a.mp4", "clips/a.mp4", "12:30 fight.mp4", "a%20b.mp4", "http:/x.mp4", "C.MOV", "b\\c.mp4", " x .mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode())
    (tmp_path / "outside" / "secret.mp4").write_bytes(b"secret")
    return root


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("a.mp4", "a.mp4"),
        ("clips/a.mp4", "clips/a.mp4"),
        ("clips\\a.mp4", "clips/a.mp4"),
        ("b\\c.mp4", "b\\c.mp4"),  # a name that is there is that name
        ("12:30 fight.mp4", "12:30 fight.mp4"),
        ("a%20b.mp4", "a%20b.mp4"),
        ("http:/x.mp4", "http:/x.mp4"),
        ("C.MOV", "C.MOV"),
        ("C.mov", "C.MOV"),
        ("clips\\a.MP4", "clips/a.mp4"),
        (" x .mp4", " x .mp4"),
        ("clips/../a.mp4", "a.mp4"),
    ],
)
def test_names_that_are_found(folder: Path, uri: str, found: str) -> None:
    place = locate(uri, root_at(folder))
    assert (place.uri, place.file.read_bytes()) == (found, found.encode())


@pytest.mark.parametrize(("written", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_are_found_however_they_are_composed(folder: Path, written: str, stored: str) -> None:
    (folder / stored).mkdir()
    (folder / stored / f"{stored}.mp4").touch()
    for uri in (f"{written}/{written}.mp4", f"{stored}\\{written}.mp4"):
        assert locate(uri, root_at(folder)).uri == f"{stored}/{stored}.mp4"
    assert spelling(f"{written}/none.mp4", root_at(folder)) == f"{written}/none.mp4"


@pytest.mark.parametrize(
    ("uri", "reason", "words"),
    [
        ("../outside/secret.mp4", "outside_root", "points outside the data root"),
        ("..\\outside\\secret.mp4", "missing", "No such file"),
        ("clips/../../outside/secret.mp4", "outside_root", "use a path below it"),
        ("/etc/passwd", "outside_root", "points outside"),
        ("C:\\clips\\a.mp4", "outside_root", "a path of Windows"),
        ("\\\\server\\share\\a.mp4", "outside_root", "a path of Windows"),
        ("file:///etc/passwd", "outside_root", "write a file's path without its scheme"),
        ("FILE:///etc/passwd", "outside_root", "without its scheme"),
        ("http://127.0.0.1:9/a.mp4", "outside_root", "ingest.protocols allows s3; add the scheme there"),
        ("s3://bucket/a.zip::file:///etc/passwd", "outside_root", "ingest.protocols"),
        ("http://[oops/a.mp4", "outside_root", "an address that cannot be read"),
        ("n" * 300 + ".mp4", "missing", "File name too long"),
        ("a\0.mp4", "missing", "no file can have this name"),
        ("\ud800.mp4", "missing", "no file can have this name"),
        ("none.mp4", "missing", "No such file"),
        ("a.mp4/b.mp4", "missing", "Not a directory"),
        ("A.MP4", "missing", "No such file"),
        ("clips", "unsupported", "a folder"),
        ("", "unsupported", "a folder"),
    ],
)
def test_what_is_refused(folder: Path, uri: str, reason: str, words: str) -> None:
    with pytest.raises(MediaError) as caught:
        locate(uri, root_at(folder, ("s3",)))
    assert (caught.value.reason, words in str(caught.value)) == (reason, True), str(caught.value)


def test_an_allowed_url_is_no_file(folder: Path) -> None:
    place = locate("S3://bucket/a.mp4", root_at(folder, ("s3",)))
    assert (place.uri, place.path) == ("S3://bucket/a.mp4", None)
    with pytest.raises(MediaError, match="expected a local file"):
        _ = place.file


def test_links_lead_where_they_lead(folder: Path) -> None:
    root = root_at(folder)
    (folder / "in.mp4").symlink_to("clips/a.mp4")
    (folder / "out.mp4").symlink_to("../outside/secret.mp4")
    (folder / "way").symlink_to("../outside")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder.parent / "alias").symlink_to(folder)
    assert locate("in.mp4", root).path == folder / "clips" / "a.mp4"
    assert locate("in.mp4", root).uri == "in.mp4"
    assert locate(str(folder.parent / "alias" / "a.mp4"), root_at(folder.parent / "alias")).uri == "a.mp4"
    for name, reason in (("out.mp4", "outside_root"), ("way/secret.mp4", "outside_root"), ("loop.mp4", "missing")):
        with pytest.raises(MediaError) as caught:
            locate(name, root)
        assert caught.value.reason == reason
    assert person_file(folder / "out.mp4") == folder.parent / "outside" / "secret.mp4"


@pytest.mark.timeout(20)
def test_nobody_waits_for_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as plug, tempfile.TemporaryDirectory() as short:
        plug.bind(f"{short}/plug.mp4")
        for place in (folder / "pipe.mp4", Path("/dev/zero"), Path(short, "plug.mp4"), folder):
            with pytest.raises(MediaError) as caught:
                person_file(place)
            assert caught.value.reason == "unsupported"
    with pytest.raises(MediaError, match="pipe"):
        locate("pipe.mp4", root_at(folder))
    with pytest.raises(MediaError, match="pipe"):  # put there after the check
        sha256_regular(folder / "pipe.mp4")


def test_a_link_put_there_after_the_check_is_not_followed(folder: Path) -> None:
    found = locate("a.mp4", root_at(folder)).file
    found.unlink()
    found.symlink_to("../outside/secret.mp4")
    with pytest.raises(MediaError) as caught, open_regular(found):
        pass
    assert caught.value.reason == "missing"


def test_what_is_a_clip_by_its_name(folder: Path) -> None:
    (folder / "0a1b2c").write_bytes(b"\0\0\0\x20ftypisom")
    (folder / "notes").write_bytes(b"my notes on the case")
    for name in ("a.mp4", "C.MOV", "x/y.M2TS", *(f"v{suffix}" for suffix in CLIP_SUFFIXES)):
        check_clip(Location(name))
    check_clip(locate("0a1b2c", root_at(folder)))
    plain, hidden = (
        ("dvc.yaml", "metadata.csv", "a.mp4.dvc", "e.wmv", "f.gif"),
        (".a.mp4", ".dvc/a.mp4", ".git/x/a.mp4"),
    )
    for name in (*plain, *hidden):
        with pytest.raises(MediaError) as caught:
            check_clip(Location(name, folder / "0a1b2c"))  # whatever it holds
        assert caught.value.reason == "unsupported"
    with pytest.raises(MediaError, match="not an accepted container"):
        check_clip(locate("notes", root_at(folder)))


PIECES = ["..", ".", "", "a.mp4", "way", "clips", "\\", "..\\..", "/", "\0", "~", "%2e%2e", "x" * 300, "C:", "outside"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.sampled_from(["/", "\\", ""]))
def test_no_path_leads_out(pieces: list[str], between: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        root = Path(top, "root")
        (root / "clips").mkdir(parents=True)
        (root / "a.mp4").touch()
        (root / "clips" / "a.mp4").touch()
        Path(top, "outside").mkdir()
        Path(top, "outside", "a.mp4").touch()
        (root / "way").symlink_to("../outside")
        try:
            found = locate(between.join(pieces), root_at(root))
        except MediaError:
            return
        assert found.file.is_relative_to(root.resolve())
        assert found.file.is_file()
        # the name that is written into a manifest, or copied to, is plain and means the same file
        assert ".." not in found.uri.split("/")
        assert (root / found.uri).resolve() == found.file
