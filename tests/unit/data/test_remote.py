"""Remote clips over a real web server and fsspec's memory store: copied whole, within limits, without secrets."""

from __future__ import annotations

import hashlib
import stat
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from yarl import URL

from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.remote import address, check_protocols, copy_path, fetch, is_allowed, version
from coefvq.data.web import redirect_target
from coefvq.errors import ConfigError, DataError, MediaError
from coefvq.redaction import redact
from tests.unit.clip_server import ClipServer, serving

BYTES = bytes(range(256)) * 9000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClipServer]:
    """A web server with one file."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.mp4").write_bytes(BYTES)
    with serving(tmp_path / "www") as state:
        yield state


def test_a_clip_is_copied_whole_under_the_hash_of_its_address(server: ClipServer, tmp_path: Path) -> None:
    url = server.url("a.mp4?signature=1")
    path = fetch(url, tmp_path / "cache", DEFAULT_LIMITS)
    assert path == tmp_path / "cache" / "media" / f"{hashlib.sha256(url.encode()).hexdigest()}.mp4"
    assert path == copy_path(url, tmp_path / "cache")
    assert path.read_bytes() == BYTES
    assert server.hits.total() == 1


def test_a_copy_with_the_wanted_bytes_is_not_fetched_again(server: ClipServer, tmp_path: Path) -> None:
    url, wanted = server.url("a.mp4"), hashlib.sha256(BYTES).hexdigest()
    path = fetch(url, tmp_path, DEFAULT_LIMITS)
    fetch(url, tmp_path, DEFAULT_LIMITS, wanted)
    assert server.hits.total() == 1
    path.write_bytes(b"rotten")
    assert fetch(url, tmp_path, DEFAULT_LIMITS, wanted).read_bytes() == BYTES
    assert server.hits.total() == 2


def test_the_version_follows_the_content(server: ClipServer) -> None:
    first = version(server.url("a.mp4"), DEFAULT_LIMITS)
    assert first
    assert version(server.url("a.mp4"), DEFAULT_LIMITS) == first
    (server.folder / "a.mp4").write_bytes(BYTES[::-1])
    assert version(server.url("a.mp4"), DEFAULT_LIMITS) != first
    server.etags = False
    assert version(server.url("a.mp4"), DEFAULT_LIMITS) == ""


def test_any_fsspec_store(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.mp4", BYTES)
    first = version("memory://bucket/a.mp4", DEFAULT_LIMITS)
    assert fetch("memory://bucket/a.mp4", tmp_path, DEFAULT_LIMITS).read_bytes() == BYTES
    store.pipe("/bucket/a.mp4", BYTES[::-1])
    assert version("memory://bucket/a.mp4", DEFAULT_LIMITS) != first
    assert fetch("memory://bucket/a.mp4", tmp_path, DEFAULT_LIMITS).read_bytes() == BYTES[::-1]
    store.rm("/bucket/a.mp4")
    with pytest.raises(MediaError, match=r"memory://bucket/a.mp4: cannot be fetched \(FileNotFoundError\)"):
        fetch("memory://bucket/a.mp4", tmp_path, DEFAULT_LIMITS)


@pytest.mark.parametrize("path", ["404", "403", "500", "cut/a.mp4", "to/http://localhost:9/a.mp4", "to//404"])
def test_what_does_not_arrive_is_unreachable_and_leaves_nothing(server: ClipServer, tmp_path: Path, path: str) -> None:
    with pytest.raises(MediaError) as caught:
        fetch(server.url(path), tmp_path / "cache", DEFAULT_LIMITS)
    assert caught.value.reason == "unreachable"
    assert list((tmp_path / "cache" / "media").iterdir()) == []


def test_a_redirect_may_not_leave_the_host(server: ClipServer, tmp_path: Path) -> None:
    elsewhere = f"http://localhost:{server.port}/a.mp4"
    with pytest.raises(MediaError, match="PermissionError"):
        fetch(server.url(f"to/{elsewhere}"), tmp_path, DEFAULT_LIMITS)
    assert server.hits["/a.mp4"] == 0
    assert fetch(server.url("to//a.mp4"), tmp_path, DEFAULT_LIMITS).read_bytes() == BYTES


def test_too_large_is_noticed_on_the_way(server: ClipServer, tmp_path: Path) -> None:
    small = DEFAULT_LIMITS.model_copy(update={"megabytes": 1.0})
    with pytest.raises(MediaError, match=r"megabytes") as caught:
        fetch(server.url("a.mp4"), tmp_path / "cache", small)
    assert caught.value.reason == "too_large"
    assert list((tmp_path / "cache" / "media").iterdir()) == []


def test_a_server_that_never_answers(server: ClipServer, tmp_path: Path) -> None:
    server.held["a.mp4"] = threading.Event()
    impatient = DEFAULT_LIMITS.model_copy(update={"wall_seconds": 0.3})
    with pytest.raises(MediaError) as caught:
        fetch(server.url("a.mp4"), tmp_path, impatient)
    assert caught.value.reason == "unreachable"
    server.held["a.mp4"].set()


@pytest.mark.parametrize("path", ["403", "a.mp4"])
def test_no_message_holds_a_secret(server: ClipServer, tmp_path: Path, path: str) -> None:
    small, secret = DEFAULT_LIMITS.model_copy(update={"megabytes": 0.1}), "5" * 20
    with pytest.raises(MediaError) as caught:
        fetch(server.url(f"{path}?X-Amz-Signature={secret}#{secret}", user=f"me:{secret}@"), tmp_path, small)
    assert secret not in "".join(traceback.format_exception(caught.value))
    assert f"127.0.0.1:{server.port}/{path}" in str(caught.value)


def test_redaction() -> None:
    assert redact("s3://key:secret@bucket/a/b.mp4?versionId=1#x") == "s3://***@bucket/a/b.mp4?***"


def test_a_cache_that_cannot_be_written(server: ClipServer, tmp_path: Path) -> None:
    (tmp_path / "media").write_text("a file")
    with pytest.raises(DataError, match="cannot hold copies of clips"):
        fetch(server.url("a.mp4"), tmp_path, DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://h/a.mp4", True),
        ("HTTPS://h/a.mp4", True),
        ("http://h/a.mp4", False),
        ("file:///etc/passwd", False),
        ("https://h/a.zip::file:///etc/passwd", False),
        ("a.mp4", False),
    ],
)
def test_only_listed_schemes(url: str, allowed: bool) -> None:
    assert is_allowed(url, ("https", "s3")) is allowed


def test_addresses_below_a_prefix() -> None:
    assert address("a/b.mp4", "s3://bucket/clips/") == "s3://bucket/clips/a/b.mp4"
    assert address("a?b#c%2e.mp4", "https://h/clips") == "https://h/clips/a%3Fb%23c%252e.mp4"
    assert address("a?b.mp4", "s3://bucket") == "s3://bucket/a?b.mp4"
    for kept in ("../a.mp4", "/a.mp4", "x/../../a.mp4", "https://other/a.mp4"):
        assert address(kept, "s3://bucket/clips") == kept
    assert address("a.mp4", None) == "a.mp4"


@pytest.mark.parametrize(
    ("protocols", "prefix", "expected"),
    [
        (("file",), None, "ingest.protocols: file is not remote"),
        (("nosuch",), None, "ingest.protocols: nosuch cannot be used"),
        ((), "s3://key:secret@bucket/a", "paths.media = s3://***@bucket/a: s3 is not in ingest.protocols"),
    ],
)
def test_settings_are_checked_first(protocols: tuple[str, ...], prefix: str | None, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_protocols(protocols, prefix)
    assert expected in str(caught.value)
    check_protocols(("https", "ftp"), "ftp://host")
    check_protocols((), "folder")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ClipServer]:
    """A second server on another port, which nobody must be sent to."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.mp4").write_bytes(b"not yours")
    with serving(tmp_path / "other") as state:
        yield state


REDIRECTS = {
    "port": {"Location": "{other}"},
    "the header URI": {"URI": "{other}"},
    "both headers": {"Location": "/a.mp4", "URI": "{other}"},
    "both headers, turned": {"URI": "/a.mp4", "Location": "{other}"},
    "no scheme": {"Location": "//127.0.0.1:{port}/a.mp4"},
    "a name of the host": {"Location": "http://localhost:{own}/a.mp4"},
    "another scheme": {"Location": "https://127.0.0.1:{own}/a.mp4"},
    "a file": {"Location": "file:///etc/passwd"},
    "an account": {"Location": "http://me:secret@127.0.0.1:{own}/a.mp4"},
    "no address": {"Location": "http://[oops/a.mp4"},
    "nowhere": {},
    "itself": {"Location": "/start"},
    "two hops": {"Location": "/to/{other}"},
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", REDIRECTS)
def test_a_redirect_elsewhere_sends_no_request(
    server: ClipServer, other: ClipServer, tmp_path: Path, kind: str, status: int
) -> None:
    facts = {"other": other.url("a.mp4"), "port": other.port, "own": server.port}
    server.answers["start"] = (status, {name: text.format(**facts) for name, text in REDIRECTS[kind].items()})
    with pytest.raises(MediaError) as caught:
        fetch(server.url("start"), tmp_path / "cache", DEFAULT_LIMITS)
    assert caught.value.reason == "unreachable"
    with pytest.raises(MediaError):
        version(server.url("start"), DEFAULT_LIMITS)
    assert not other.requests
    assert server.hits["/a.mp4"] == 0
    assert sum(server.requests.values()) <= 3 * 6  # a GET, a HEAD, and the GET that fsspec tries after it


def test_five_redirects_on_one_server_are_followed(server: ClipServer, tmp_path: Path) -> None:
    places = [f"hop{number}" for number in range(6)]
    for place, following in zip(places, [*places[1:], "a.mp4"], strict=True):
        server.answers[place] = (302, {"Location": f"../{following}"})
    assert fetch(server.url("hop1"), tmp_path, DEFAULT_LIMITS).read_bytes() == BYTES
    assert version(server.url("hop1"), DEFAULT_LIMITS) == version(server.url("a.mp4"), DEFAULT_LIMITS)
    with pytest.raises(MediaError, match="PermissionError"):
        fetch(server.url("hop0"), tmp_path, DEFAULT_LIMITS)


def test_the_same_account_is_used_after_a_redirect() -> None:
    asked = URL("http://me:pw@h/a.mp4")
    for target in ("/b.mp4", "HTTP://H:80/b.mp4"):
        assert str(redirect_target(asked, [target])) == "http://me:pw@h/b.mp4"
    with pytest.raises(PermissionError):
        redirect_target(URL("https://h/a.mp4"), ["http://h/a.mp4"])


def test_copies_are_for_their_owner_alone(server: ClipServer, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir(mode=0o755)  # as an earlier release made it
    path = fetch(server.url("a.mp4"), tmp_path, DEFAULT_LIMITS)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]


NO_STORES = """reference simplecache filecache blockcache cached zip tar libarchive memory dask jupyter git github
    sftp ssh smb generic webhdfs asyncwrapper"""


@pytest.mark.parametrize("name", NO_STORES.split())
def test_schemes_that_are_no_stores(name: str) -> None:
    with pytest.raises(ConfigError, match=f"ingest.protocols: {name} cannot be used: expected some of"):
        check_protocols((name,), None)
    assert not is_allowed(f"{name}://h/a.mp4", (name,))
