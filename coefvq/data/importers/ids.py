"""Ids of clips that come without one: the id an earlier manifest has, else one of the clip's own path alone.

No other row has a say, so a clip keeps its id when others come.
"""

from __future__ import annotations

import hashlib
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from coefvq.data.importers.seen import Seen
from coefvq.data.remote import address, is_url
from coefvq.errors import DataError

#: a row's uri -> its id
IdRule = Callable[[str], str]
_BATCH = 8192  # rows


def id_from_path(uri: str) -> str:
    """``a`` for ``a.mp4``; elsewhere ``<stem>-<16 hex digits>``, the start of the SHA-256 of the path.

    The path is taken with ``/``, in Unicode's NFC, a URL without user, query and fragment: these change while the
    clip stays.
    """
    place = clip_place(uri)
    stem, suffix = posixpath.splitext(place)
    return stem if suffix == ".mp4" and "/" not in place else _long_id(place)


def clip_place(uri: str) -> str:
    """A path or URL in the form that ids are made of."""
    text = uri if uri.isascii() else unicodedata.normalize("NFC", uri)
    if not is_url(text):
        return posixpath.normpath(text.replace("\\", "/"))
    try:
        parts = urlsplit(text)
    except ValueError:  # no address that anything could be fetched from; probing will say so
        return text
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _long_id(place: str) -> str:
    stem = posixpath.splitext(posixpath.basename(place))[0]
    return f"{stem}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


class KnownIds:
    """Ids that clips have already; a clip that is not known gets one by ``id_from_path``.

    Older versions gave ids by another rule. Were they given anew, every video would count as new, and videos of
    the test split could come to train.

    Args:
        pairs: gives (id, place) of each known clip; asked when the first row without an id comes.
        place_of: a row's uri -> the place that ``pairs`` have it under.
    """

    def __init__(self, pairs: Callable[[], Iterable[tuple[str, str]]], place_of: Callable[[str], str] = str) -> None:
        self._pairs, self._place_of = pairs, place_of
        self._known: Seen | None = None

    def __call__(self, uri: str) -> str:
        """The id of a clip; raises what ``pairs`` raises."""
        if self._known is None:
            self._known = _index(self._pairs())
        place = self._place_of(uri)
        earlier = self._known.get("exact", place) or self._known.get("place", clip_place(place))
        if earlier:
            return earlier
        own = id_from_path(uri)
        # a clip that is known by this id keeps it, so the new one gets the long form
        return own if self._known.get("id", own) is None else _long_id(clip_place(uri))


def manifest_ids(manifest: Path, witness: Path, prefix: str | None = None) -> KnownIds:
    """The ids of a workspace's manifest, stage ingest's own output.

    Args:
        manifest: as the last ingest left it; a first one finds none.
        witness: a file that is there only if there was a manifest, such as the splits.
        prefix: URL that the manifest's addresses begin with, if there is one (``paths.media``).

    Raises:
        DataError: (when the first id is asked for) not readable, or missing although the witness is there.
    """
    return KnownIds(partial(_manifest_pairs, manifest, witness), lambda uri: address(uri, prefix))


def _manifest_pairs(manifest: Path, witness: Path) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not manifest.is_file():
        if witness.is_file():
            raise DataError(
                f"{manifest}: missing, but {witness} shows that there was one, and it says which clip has which id; "
                f"get it (dvc checkout or dvc pull {manifest}), or give each row a video_id"
            )
        return
    try:
        with pq.ParquetFile(manifest) as file:
            for batch in file.iter_batches(_BATCH, columns=["video_id", "uri"]):
                ids, uris = (batch.column(name).to_pylist() for name in ("video_id", "uri"))
                yield from zip(ids, uris, strict=True)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(
            f"{manifest}: not a readable manifest, and it says which clip has which id; get it back (dvc checkout "
            f"{manifest}), or give each row a video_id"
        ) from error


def _index(pairs: Iterable[tuple[str, str]]) -> Seen:
    known = Seen()
    for video_id, exact in pairs:
        place = clip_place(exact)
        known.put("exact", exact, video_id)
        known.put("id", video_id, place)
        if known.first("place", place, video_id) not in (None, video_id):
            known.put("place", place, "")  # URLs that differ in their query only: exact matches alone count
    return known
