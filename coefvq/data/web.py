"""Requests over http(s) that stay with the server they were meant for.

aiohttp follows a redirect to wherever a server sends it, by the header ``Location`` or else ``URI``. Here redirects
are followed by ourselves: same scheme, host and port, at most five.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

MAX_REDIRECTS = 5
_REDIRECTS = range(300, 400)


async def open_session(**options: Any) -> SameServerSession:
    """What fsspec's http file system calls to get its session; ``timeout.total`` bounds a whole chain of redirects."""
    import aiohttp

    return SameServerSession(aiohttp.ClientSession(**options), options["timeout"].total)


class SameServerSession:
    """Of an aiohttp session, what fsspec needs for reading; other methods would follow redirects and are not there."""

    def __init__(self, session: ClientSession, seconds: float) -> None:
        self._session, self._seconds = session, seconds

    def get(self, url: URL, **options: Any) -> _Request:
        """As aiohttp's; a redirect elsewhere raises PermissionError."""
        return _Request(lambda: self._followed("GET", url, options))

    def head(self, url: URL, **options: Any) -> _Request:
        """As aiohttp's; a redirect elsewhere raises PermissionError."""
        return _Request(lambda: self._followed("HEAD", url, options))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    @property
    def _connector(self) -> Any:
        return self._session._connector  # fsspec closes it where the event loop has ended already

    async def _followed(self, method: str, url: URL, options: dict[str, Any]) -> ClientResponse:
        async with asyncio.timeout(self._seconds):
            for _ in range(1 + MAX_REDIRECTS):
                response = await self._session.request(method, url, **{**options, "allow_redirects": False})
                if response.status not in _REDIRECTS:
                    return response
                response.close()
                url = redirect_target(url, [*_values(response, "Location"), *_values(response, "URI")])
        raise PermissionError(f"more than {MAX_REDIRECTS} redirects")


class _Request:
    """A request that may be awaited or entered, as aiohttp's."""

    def __init__(self, send: Callable[[], Awaitable[ClientResponse]]) -> None:
        self._send = send

    def __await__(self) -> Generator[Any, None, ClientResponse]:
        return self._send().__await__()

    async def __aenter__(self) -> ClientResponse:
        self._response = await self._send()
        return self._response

    async def __aexit__(self, *_: object) -> None:
        self._response.close()


def redirect_target(asked: URL, targets: list[str]) -> URL:
    """Where a redirect from ``asked`` leads, if every header that says so means the same server.

    Raises:
        PermissionError: another scheme, host or port, a user part, no address, or none at all.
    """
    from yarl import URL

    if not targets:
        raise PermissionError("redirect without an address")
    try:
        found = [asked.join(URL(target)) for target in targets]
        named = [URL(target) for target in targets]
        servers = {(url.scheme, url.host, url.port) for url in [asked, *found]}
    except ValueError:
        raise PermissionError("redirect to something that is no address") from None
    if len(servers) > 1 or any(url.user or url.password for url in named):
        raise PermissionError("redirect to another server")
    return found[0].with_user(asked.user).with_password(asked.password)


def _values(response: ClientResponse, name: str) -> list[str]:
    return list(response.headers.getall(name, []))
