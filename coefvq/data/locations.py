"""The one door to clips: from what a row or a person wrote to a checked local file, an allowed URL, or a refusal.

Rows are a stranger's. A row's path leads to a regular file below the row's root, links resolved, or to nothing; a
URL needs its scheme in ``ingest.protocols``. Paths that a person gives on the command line or in a call are the
person's own: they may lie anywhere and be links, but have to be regular files too.

Not covered: a hard link is the file itself, so one to a file outside cannot be told apart; and who may write to the
root can exchange a folder between the check and the opening (the last name of a path is not followed if it became
a link, see ``open_regular``).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from urllib.parse import urlsplit

from coefvq.config import Paths
from coefvq.data import remote
from coefvq.errors import MediaError
from coefvq.redaction import redact

#: how the files of the containers that ``container`` opens are called, small letters
CLIP_SUFFIXES = frozenset(
    # MP4 and QuickTime, Matroska, AVI
    {".mp4", ".m4v", ".mp4v", ".mov", ".qt", ".f4v", ".3gp", ".3gpp", ".3g2", ".3gp2", ".mj2"}
    | {".mkv", ".mk3d", ".webm", ".avi", ".divx"}
    # MPEG transport and program streams, Flash
    | {".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".flv"}
)
_PIECE = 2**16  # bytes hashed at once
_NO_NAMES = frozenset({"", ".", ".."})
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True)
class Root:
    """Where relative paths start, and what URLs may be opened; ``base`` has no links in it."""

    base: Path
    protocols: tuple[str, ...]

    @cached_property
    def prefix(self) -> str:
        """``base`` with a slash behind it: a path object for each of a million rows is slow."""
        return f"{str(self.base).rstrip('/')}/"


@dataclass(frozen=True)
class Location:
    """A clip's place: ``uri`` as it is written below the root, or the URL.

    A local one also has its file, links resolved, and the file's facts.
    """

    uri: str
    path: Path | None = None
    facts: os.stat_result | None = None

    @property
    def file(self) -> Path:
        """The local file.

        Raises:
            MediaError: ``outside_root``, it is a URL.
        """
        if self.path is None:
            raise MediaError("outside_root", f"{redact(self.uri)}: expected a local file; download it first")
        return self.path


def root_at(folder: Path, protocols: Iterable[str] = ()) -> Root:
    """The root of rows whose paths start in ``folder``."""
    return Root(folder.resolve(), tuple(protocols))


def locate(uri: str, root: Root) -> Location:
    """Check the place that a row names; no byte of it is read and no request is sent.

    Raises:
        MediaError: ``outside_root``, ``missing`` or ``unsupported`` (a folder, pipe, socket or device).
    """
    if remote.is_url(uri):
        _check_url(uri, root.protocols)
        return Location(uri)
    if (facts := _facts_as_written(root.prefix, uri, set())) is not None:
        resolved = root.base / uri
        _check_regular(resolved, facts)
        return Location(uri, resolved, facts)
    name = spelling(uri, root)
    place = root.base / name
    try:
        if (plain := _facts_without_links(root.prefix, name, set())) is not None:
            resolved, facts = place, plain
        else:
            resolved = Path(os.path.realpath(place))
            if not resolved.is_relative_to(root.base):
                raise _outside(uri, root)
            facts = resolved.stat()
    except (OSError, ValueError) as error:  # a name too long, a zero byte, half a character, a circle of links
        if _WINDOWS.match(uri):
            raise _outside(uri, root) from error
        told = (error.strerror or "not readable") if isinstance(error, OSError) else "no file can have this name"
        raise MediaError("missing", f"{place}: {told}; correct the path or delete the row") from error
    _check_regular(resolved, facts)
    return Location(name if remote.is_below(name) else os.path.relpath(resolved, root.base), resolved, facts)


def regular_as_written(uri: str, root: Root, folders: set[str] | None = None) -> os.stat_result | None:
    """Facts of the regular file that a plain relative path names just so; None where ``locate`` has to look.

    ``folders`` as in ``is_as_written``; without it each is looked at.
    """
    facts = _facts_as_written(root.prefix, uri, set() if folders is None else folders)
    return facts if facts is not None and stat.S_ISREG(facts.st_mode) else None


def is_as_written(uri: str, root: Root, folders: set[str]) -> bool:
    """Whether a plain relative path is one below the root up to its last name, of which nothing is said.

    ``folders`` are those that were found to be no links a moment ago; it grows.
    """
    try:
        return remote.is_below(uri) and _is_without_links(root.prefix, uri, folders)
    except (OSError, ValueError):
        return False


def _facts_as_written(prefix: str, uri: str, folders: set[str]) -> os.stat_result | None:
    """Facts of a plain path that is there just so, as nearly all are; None where more has to be looked at."""
    try:
        return _facts_without_links(prefix, uri, folders) if remote.is_below(uri) else None
    except (OSError, ValueError):
        return None


def _facts_without_links(prefix: str, name: str, folders: set[str]) -> os.stat_result | None:
    """Facts of ``name`` below a base without links, if it has none itself; None where ``realpath`` has to look.

    A data set's root is resolved once so, and not again for each of its clips.
    """
    if not _is_without_links(prefix, name, folders):
        return None
    facts = os.lstat(f"{prefix}{name}")
    return None if stat.S_ISLNK(facts.st_mode) else facts


def _is_without_links(prefix: str, name: str, folders: set[str]) -> bool:
    """Whether the folders of ``name`` are no links; those that are not get into ``folders``."""
    folder, slash, last = name.rpartition("/")
    if slash and folder not in folders:
        if not _has_no_links(prefix, folder):
            return False
        folders.add(folder)
    return last not in _NO_NAMES


def _has_no_links(prefix: str, folder: str) -> bool:
    """Whether no part of a path below ``prefix`` is a link or leads up."""
    parts = folder.split("/")
    if not _NO_NAMES.isdisjoint(parts):
        return False
    places = accumulate(parts, lambda place, part: f"{place}/{part}")
    return not any(stat.S_ISLNK(os.lstat(f"{prefix}{place}").st_mode) for place in places)


def file_stamp(facts: os.stat_result) -> str:
    """What changes when somebody writes to a file: its size and the time of its last change."""
    return f"{facts.st_size} {facts.st_mtime_ns}"


def spelling(uri: str, root: Root) -> str:
    r"""The path as the disk writes it: as given if that exists, else with other separators, accents or suffix.

    ``\`` is tried as ``/``, an accented letter as one character (NFC) and as two (NFD), and a clip's suffix in small
    and in capital letters. A URL, a path that leaves the root and one that is not there come back as they are.
    """
    if remote.is_url(uri) or not remote.is_below(uri) or os.path.lexists(root.base / uri):
        return uri
    for written in dict.fromkeys([uri, uri.replace("\\", "/")]):
        found = _name_on_disk(written, root.base) if remote.is_below(written) else None
        if found is not None:
            return found
    return uri


def person_file(path: Path) -> Path:
    """The file that a person named: anywhere, links followed, absolute so that no name reads as a protocol.

    Raises:
        MediaError: ``missing`` or ``unsupported``.
    """
    resolved = Path(os.path.realpath(path))
    try:
        facts = resolved.stat()
    except (OSError, ValueError) as error:
        raise MediaError("missing", f"{path}: no such file; check the path") from error
    _check_regular(path, facts)
    return resolved


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a located file for reading: a link, pipe or device put there meanwhile is refused and never waited for.

    Raises:
        MediaError: ``missing`` or ``unsupported``.
    """
    with os.fdopen(_handle(path), "rb") as stream:
        _check_regular(path, os.fstat(stream.fileno()))
        yield stream


def sha256_regular(path: Path | str) -> str:
    """Hex SHA-256 of a located file.

    Raises:
        MediaError: as ``open_regular``.
    """
    return sha256_and_stamp(path)[0]


def sha256_and_stamp(path: Path | str) -> tuple[str, str]:
    """Hex SHA-256 of a located file, and its ``file_stamp`` before it was read: of what is written later it is none.

    Raises:
        MediaError: as ``open_regular``.
    """
    # no stream and no hashlib.file_digest: they are most of the time of a small file
    handle = _handle(path)
    try:
        facts = os.fstat(handle)
        _check_regular(path, facts)
        digest = hashlib.sha256()
        while piece := os.read(handle, _PIECE):
            digest.update(piece)
        return digest.hexdigest(), file_stamp(facts)
    except OSError as error:
        raise MediaError("missing", f"{path}: {error.strerror}; copy the clip again") from error
    finally:
        os.close(handle)


def _handle(path: Path | str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MediaError("missing", f"{path}: {error.strerror}; add the clip or delete its row") from error


def _check_url(url: str, protocols: tuple[str, ...]) -> None:
    try:
        urlsplit(url)
    except ValueError as error:
        raise MediaError("outside_root", f"an address that cannot be read ({error}); correct the row") from error
    if remote.is_allowed(url, protocols):
        return
    allowed = ", ".join(protocols) or "local files only"
    remedy = "write a file's path without its scheme" if url[:5].lower() == "file:" else "add the scheme there"
    raise MediaError("outside_root", f"{redact(url)}: ingest.protocols allows {allowed}; {remedy}")


def _outside(uri: str, root: Root) -> MediaError:
    why = "is a path of Windows and" if _WINDOWS.match(uri) else "points"
    return MediaError("outside_root", f"{uri}: {why} outside the data root {root.base}; use a path below it")


def _check_regular(path: Path | str, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise MediaError("unsupported", f"{path}: a folder, pipe, socket or device; expected a file")


def _name_on_disk(uri: str, base: Path) -> str | None:
    """The path with each name as the disk has it, if it has one of its forms."""
    names: list[str] = []
    for name in uri.split("/"):
        found = next((form for form in _forms(name) if os.path.lexists(base.joinpath(*names, form))), None)
        if found is None:
            return None
        names.append(found)
    return "/".join(names)


def _forms(name: str) -> Iterator[str]:
    """As given, then with a clip's suffix in small or capital letters, each composed (NFC) and decomposed (NFD)."""
    stem, dot, suffix = name.rpartition(".")
    clip = f".{suffix.lower()}" in CLIP_SUFFIXES
    cased = [name, f"{stem}{dot}{suffix.lower()}", f"{stem}{dot}{suffix.upper()}"] if clip else [name]
    other = (unicodedata.normalize(form, written) for written in cased for form in ("NFC", "NFD"))
    # most names are ASCII, so most forms are equal: each costs a look at the disk
    yield from dict.fromkeys([name, *other])


def media_root(paths: Paths) -> Path:
    """Folder that the manifest's relative ``uri`` values start from.

    With a URL prefix in ``paths.media`` the manifest already holds absolute URLs.
    """
    if paths.media is not None and not remote.is_url(paths.media):
        return Path(paths.media)
    raw = Path(paths.raw)
    return raw if raw.is_dir() else raw.parent


def rooted(paths: Paths, root: Path) -> Paths:
    """The same paths, usable from any working directory."""
    names = ("raw", "manifest", "splits", "reference", "models", "reports")
    moved = {name: str(root / getattr(paths, name)) for name in names}
    if paths.media is not None and not remote.is_url(paths.media):
        moved["media"] = str(root / paths.media)
    return paths.model_copy(update=moved)
