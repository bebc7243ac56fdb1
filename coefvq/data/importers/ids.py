"""Ids of clips that come without one: the id an earlier manifest has, else one of the clip's own path alone.

No other row has a say, so a clip keeps its id when others come.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
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
    path = PurePosixPath(place)
    return path.stem if place == f"{path.stem}.mp4" else _long_id(place)


def clip_place(uri: str) -> str:
    """A path or URL in the form that ids are made of."""
    text = unicodedata.normalize("NFC", uri)
    if not is_url(text):
        return str(PurePosixPath(text.replace("\\", "/")))
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _long_id(place: str) -> str:
    return f"{PurePosixPath(place).stem}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


class EarlierIds:
    """The ids that a workspace's manifest has; rows it does not know get one by ``id_from_path``.

    Older versions gave ids by another rule. Were they given anew, every video would count as new, and videos of
    the test split could come to train.

    Args:
        manifest: the last one, stage ingest's own output; read when the first row without an id comes.
        witness: a file that is there only if there was a manifest, such as the splits; without the manifest nothing
            would say which of their videos is which clip.
        prefix: URL that the manifest's addresses begin with, if there is one (``paths.media``).
    """

    def __init__(self, manifest: Path, witness: Path, prefix: str | None = None) -> None:
        self._manifest, self._witness, self._prefix = manifest, witness, prefix
        self._known: Seen | None = None

    def __call__(self, uri: str) -> str:
        """The id of a clip.

        Raises:
            DataError: the manifest is not readable, or missing although the witness is there.
        """
        if self._known is None:
            self._known = self._load()
        known, place = self._known, clip_place(address(uri, self._prefix))
        earlier = known.get("uri", address(uri, self._prefix)) or known.get("place", place)
        if earlier:
            return earlier
        own = id_from_path(uri)
        # a clip that is known by this id keeps it, so the new one gets the long form
        return own if known.get("id", own) is None else _long_id(clip_place(uri))

    def _load(self) -> Seen:
        known = Seen()
        if not self._manifest.is_file():
            if self._witness.is_file():
                raise DataError(
                    f"{self._manifest}: missing, but {self._witness} shows that there was one, and it says which clip "
                    f"has which id; get it (dvc checkout or dvc pull {self._manifest}), or give each row a video_id"
                )
            return known
        for video_id, uri in _rows(self._manifest):
            place = clip_place(uri)
            known.put("uri", uri, video_id)
            known.put("id", video_id, place)
            if known.first("place", place, video_id) not in (None, video_id):
                known.put("place", place, "")  # URLs that differ in their query only: exact matches alone count
        return known


def _rows(manifest: Path) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(manifest) as file:
            for batch in file.iter_batches(_BATCH, columns=["video_id", "uri"]):
                ids, uris = (batch.column(name).to_pylist() for name in ("video_id", "uri"))
                yield from zip(ids, uris, strict=True)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(
            f"{manifest}: not a readable manifest, and the ids of earlier clips are in it; get it back (dvc checkout "
            f"{manifest}), or delete it and the splits to begin anew"
        ) from error
