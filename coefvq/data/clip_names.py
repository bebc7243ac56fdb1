"""Whether a file is a clip by its name, or, without a suffix, by how it begins; decoding decides later."""

from __future__ import annotations

import re
from pathlib import Path

from coefvq.data.locations import CLIP_SUFFIXES, Location, open_regular
from coefvq.errors import MediaError

# the longest of the signatures below: three transport packets of 192 bytes
_HEAD = 4 + 2 * 192 + 1
# most names, known at one look
_CLIP = re.compile(rf"(?:[^/.][^/]*/)*[^/.][^/]*(?:{'|'.join(map(re.escape, sorted(CLIP_SUFFIXES)))})", re.DOTALL)


def check_clip(place: Location) -> None:
    """Refuse a local file that is no clip by its name, before it is copied or published as one.

    A file without suffix is one if it begins like an accepted container.

    Raises:
        MediaError: ``unsupported``.
    """
    problem = name_problem(place.uri)
    if problem is not None and not (_is_bare(place.uri) and _begins_like_a_clip(place.file)):
        raise MediaError("unsupported", f"{place.uri}: {problem}; rename or re-encode the clip, or delete the row")


def name_problem(uri: str) -> str | None:
    """Why a path is not a clip's, as far as its name tells; None where it is."""
    if _CLIP.fullmatch(uri):
        return None
    parts = _parts(uri)
    if any(part.startswith(".") for part in parts):
        return "hidden"
    stem, dot, suffix = parts[-1].rpartition(".") if parts else ("", "", "")
    return None if stem and f"{dot}{suffix.lower()}" in CLIP_SUFFIXES else "not an accepted container"


def _is_bare(uri: str) -> bool:
    parts = _parts(uri)
    return bool(parts) and not any(part.startswith(".") for part in parts) and "." not in parts[-1]


def _parts(uri: str) -> list[str]:
    """As ``PurePosixPath(uri).parts`` without the root; it is asked of each row, and a path object is slow."""
    return [part for part in uri.split("/") if part not in ("", ".")]


def _begins_like_a_clip(path: Path) -> bool:
    with open_regular(path) as stream:
        head = stream.read(_HEAD)
    packets = any(
        len(head) > start + 2 * size and all(head[start + n * size] == 0x47 for n in range(3))
        for start, size in ((0, 188), (4, 192))
    )
    return (
        packets
        or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head.startswith((b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"))
    )
