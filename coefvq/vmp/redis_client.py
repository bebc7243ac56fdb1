"""Redis, for feature stores and for the mirror of the index: a client that fails at once and repeats nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coefvq.errors import ConfigError
from coefvq.redaction import redact

if TYPE_CHECKING:
    from redis import Redis


def open_client(url: str, seconds: float) -> Redis:
    """A client of texts; connections are made at the first question, each waits at most ``seconds`` for an answer.

    Raises:
        ConfigError: redis-py is not installed, or refuses the URL.
    """
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError("kind: redis needs redis-py: pip install 'coefvq[redis]'") from error
    try:
        return Redis.from_url(
            url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            encoding_errors="replace",
        )
    except ValueError as error:
        raise ConfigError(f"{redact(url)}: {error}; correct the url") from error
