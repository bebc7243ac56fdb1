"""Clips in remote stores, by fsspec URL: copied once into the local cache, with limits.

Only URL schemes that the user listed in ``ingest.protocols`` are opened at ingest; what the manifest
calls decodable came through that gate. Over http(s) a redirect may not leave the server it began at (``web``), so
an allowed server cannot send us to another one. Messages never hold the user part or the query of a
URL, nor the text of a library's exception, which may quote them.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from coefvq.config import MediaLimits
from coefvq.errors import ConfigError, DataError, MediaError
from coefvq.files import atomic_path, private_folder, sha256_file
from coefvq.redaction import redact

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_CHUNK = 2**20
_LOCAL = frozenset({"file", "local", "dir", "data"})
# fsspec has more schemes, but they read this machine (memory, reference, zip, the caches: a second address hides in
# what they open), show the user's keys to a host that a table names (ssh, smb), or follow redirects of their own
_STORES = frozenset(
    {"http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hdfs", "hf", "ftp"}
)
_WEB = frozenset({"http", "https"})
_CONNECT_SECONDS = 15.0


def is_url(uri: str) -> bool:
    """Whether a manifest's ``uri`` is a URL rather than a path."""
    return _URL.match(uri) is not None


def is_allowed(url: str, protocols: Iterable[str]) -> bool:
    """Whether a URL's scheme is listed and a store's; fsspec's chains (``a::b``) hide a second URL and never are."""
    found = _URL.match(url)
    scheme = "" if found is None else found[1].lower()
    return scheme in _STORES and scheme in protocols and "::" not in url


def check_protocols(protocols: Iterable[str], prefix: str | None) -> None:
    """Check the settings before the first clip: a driver for each scheme, and an allowed ``paths.media``.

    Raises:
        ConfigError: a scheme is local, no store's or lacks its package, or the prefix's is not listed.
    """
    import fsspec

    allowed = tuple(protocols)
    for name in allowed:
        if name in _LOCAL:
            raise ConfigError(f"ingest.protocols: {name} is not remote; set paths.media to the folder instead")
        if name not in _STORES:
            stores = ", ".join(sorted(_STORES))
            raise ConfigError(f"ingest.protocols: {name} cannot be used: expected some of {stores}; remove it")
        try:
            fsspec.get_filesystem_class(name)
        except (ImportError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"ingest.protocols: {name} cannot be used ({reason}); install or remove it") from error
    if prefix is not None and is_url(prefix) and not is_allowed(prefix, allowed):
        scheme = urlsplit(prefix).scheme
        raise ConfigError(f"paths.media = {redact(prefix)}: {scheme} is not in ingest.protocols; add it there")


def address(uri: str, prefix: str | None) -> str:
    """The URL of a clip below a URL prefix; a URL, an absolute path or one with ``..`` stays as it is."""
    if prefix is None or is_url(uri) or not is_below(uri):
        return uri
    # a file name may hold ? # or %, which mean something else in a web address
    path = quote(uri) if urlsplit(prefix).scheme in _WEB else uri
    return f"{prefix.rstrip('/')}/{path}"


def is_below(uri: str) -> bool:
    """Whether a path is relative and never goes up."""
    return not uri.startswith("/") and (".." not in uri or ".." not in uri.split("/"))


def suffix(place: str) -> str:
    """File suffix of a path or URL with its dot, as far as it looks like one."""
    found = PurePosixPath(urlsplit(place).path if is_url(place) else place).suffix
    return found if _SUFFIX.fullmatch(found) else ""


def copy_path(url: str, cache: Path) -> Path:
    """Where the local copy of a URL lies, whether or not it is there yet."""
    return cache / "media" / (hashlib.sha256(url.encode("utf-8")).hexdigest() + suffix(url))


def version(url: str, limits: MediaLimits) -> str:
    """What the store says of the present content (ETag, date, generation); empty if it does not say.

    Raises:
        MediaError: ``unreachable``.
    """
    try:
        filesystem, path = _filesystem(url, limits)
        if urlsplit(url).scheme.lower() not in _WEB:
            return str(filesystem.ukey(path))
        # for the web, fsspec's own key is a hash of the address only
        facts = filesystem.info(path)
    except Exception as error:  # noqa: BLE001  each store has exceptions of its own
        raise _unreachable(url, error) from None
    told = [str(facts[name]) for name in ("ETag", "Content-MD5", "Digest", "Last-Modified") if name in facts]
    return " ".join([str(facts.get("size")), *told]) if told else ""


def fetch(url: str, cache: Path, limits: MediaLimits, sha256: str | None = None) -> Path:
    """Copy a clip into the cache in one step and return its path.

    With ``sha256`` a copy that already holds these bytes is returned without asking the store.

    Raises:
        MediaError: ``unreachable`` (also when it takes longer than ``wall_seconds``) or ``too_large``.
        DataError: the cache cannot be written.
    """
    target = copy_path(url, cache)
    try:
        private_folder(target.parent)  # copies may come from a store that only this user may read
        if sha256 is not None and target.is_file() and sha256_file(target) == sha256:
            return target
        with atomic_path(target, private=True) as temporary, temporary.open("wb") as stream:
            for chunk in _chunks(url, limits):
                stream.write(chunk)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot hold copies of clips ({error.strerror}); make room there") from error
    return target


def _chunks(url: str, limits: MediaLimits) -> Iterator[bytes]:
    deadline, left = time.monotonic() + limits.wall_seconds, limits.megabytes * 2**20
    try:
        filesystem, path = _filesystem(url, limits)
        # block size 0: one plain stream instead of ranged requests; a size given: no request to ask for it
        options = {"block_size": 0, "size": 1} if urlsplit(url).scheme.lower() in _WEB else {}
        with filesystem.open(path, "rb", **options) as stream:
            while chunk := stream.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise MediaError("too_large", f"{redact(url)}: above ingest.limits.megabytes; delete the row")
                if time.monotonic() > deadline:
                    raise TimeoutError
                yield chunk
    except MediaError:
        raise
    except Exception as error:  # noqa: BLE001  each store has exceptions of its own
        raise _unreachable(url, error) from None


def _unreachable(url: str, error: Exception) -> MediaError:
    status = getattr(error, "status", None)
    what = type(error).__name__ + (f" {status}" if isinstance(status, int) else "")
    return MediaError("unreachable", f"{redact(url)}: cannot be fetched ({what}); check the store and run again")


def _filesystem(url: str, limits: MediaLimits) -> tuple[Any, str]:
    filesystem = _client(urlsplit(url).scheme.lower(), limits.wall_seconds)
    return filesystem, filesystem._strip_protocol(url)


@lru_cache(maxsize=8)
def _client(scheme: str, seconds: float) -> Any:
    """One connection pool per scheme and process; credentials come from the environment or fsspec's config."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in _WEB:
        import aiohttp

        from coefvq.data.web import open_session

        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, _CONNECT_SECONDS))
        options |= {"get_client": open_session, "client_kwargs": {"timeout": timeout}}
    if scheme in {"s3", "s3a"}:
        options["config_kwargs"] = {"connect_timeout": min(seconds, _CONNECT_SECONDS), "read_timeout": seconds}
    return fsspec.filesystem(scheme, skip_instance_cache=True, **options)
