"""The copy in Redis: a hash per video, and a hash that says what of the index the others hold.

Every change is one Lua script, which Redis runs and logs as a whole: rows and place move together. A script that was
prepared for another place than the one that is there does nothing, so several mirrors, and one that slept, do no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from coefvq.errors import ConfigError, DataError
from coefvq.redaction import redact
from coefvq.vmp.configuration import RedisIndex
from coefvq.vmp.keys import key as key_of
from coefvq.vmp.keys import split
from coefvq.vmp.mirror.rows import Row
from coefvq.vmp.redis_client import open_client

if TYPE_CHECKING:
    from redis import Redis

ANSWER_SECONDS = 5.0
#: keys that one step of a sweep looks at
_SWEEP = 1000
#: answers of a server that may take writes later: no memory, full disk, starting, a long script, a replica for now
_PASSING = re.compile(r"\b(OOM|MISCONF|LOADING|BUSY|READONLY|MASTERDOWN|NOREPLICAS)\b")
# KEYS: place, tombstones, rows; ARGV: generation and turn that are expected, and the change as JSON
_GUARD = """
local found = redis.call('HMGET', KEYS[1], 'generation', 'turn')
if (found[1] or '') ~= ARGV[1] or (found[2] or '') ~= ARGV[2] then return -1 end
"""
#: a row replaces one of an older change, or of an earlier copy; what it does not name is gone. A server without memory
#: refuses the first statement that takes some, and only where none came before it: so one that changes nothing is first
_APPLY = (
    _GUARD
    + """
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'turn', ARGV[2]) end
local change, written = cjson.decode(ARGV[3]), 0
for at, row in ipairs(change.rows) do
    local key = KEYS[at + 2]
    local old = redis.call('HMGET', key, 'generation', 'number')
    if old[1] ~= ARGV[4] or tonumber(old[2]) < tonumber(row.number) then
        redis.call('DEL', key)
        redis.call('HSET', key, 'generation', ARGV[4], 'number', row.number, unpack(row.fields))
        if row.deleted then redis.call('ZADD', KEYS[2], row.number, key) else redis.call('ZREM', KEYS[2], key) end
        written = written + 1
    end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(change.place))
return written
"""
)
#: the rest of ARGV: per row the number that it has to have, or '' for one of an earlier copy
_DROP = (
    _GUARD
    + """
local gone = 0
for at = 3, #KEYS do
    local old, number = redis.call('HMGET', KEYS[at], 'generation', 'number'), ARGV[at]
    if old[1] and ((number == '' and old[1] ~= ARGV[1]) or (number ~= '' and old[2] == number)) then
        redis.call('DEL', KEYS[at])
        redis.call('ZREM', KEYS[2], KEYS[at])
        gone = gone + 1
    end
end
return gone
"""
)


class SilentError(DataError):
    """Redis does not take the change now; it may later."""


@dataclass(frozen=True)
class Place:
    """What the copy holds: all of the index ``index`` up to change ``since``, and up to ``after`` while it is built.

    ``generation`` is the name of this building, ``turn`` grows with each change. ``phase`` is ``scan`` (rows are read
    by key), ``sweep`` (rows of earlier generations go) or ``feed``. ``anchor`` is the video whose change was ``mark``.
    ``purged``: what the index had compacted away when tombstones were last looked at.
    """

    generation: str
    turn: int
    index: str
    phase: str
    since: int
    after: str
    mark: int
    anchor: str
    purged: int


class RedisCopy:
    """Hashes under ``prefix``; close it."""

    def __init__(self, url: str, prefix: str, durable: bool) -> None:
        """Nothing is asked yet.

        Raises:
            ConfigError: redis-py is not installed, or refuses the URL.
        """
        self.name, self._prefix, self._durable = redact(url), prefix, durable
        self._client: Redis = open_client(url, ANSWER_SECONDS)
        # no tenant's name begins so
        self._place, self._tombstones = f"{prefix}@place", f"{prefix}@deleted"
        self._apply, self._drop = self._client.register_script(_APPLY), self._client.register_script(_DROP)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def check(self) -> str:
        """How safe what Redis takes is, in a word or two.

        Raises:
            ConfigError: it may lose what it said it took, or drop rows to make room.
            SilentError: it does not answer.
        """
        wanted = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")
        with self._named_errors():
            found = self._settings(wanted)
        if found.get("maxmemory", "0") != "0" and found.get("maxmemory-policy", "").startswith("allkeys"):
            raise ConfigError(
                f"{self.name}: maxmemory-policy {found['maxmemory-policy']} drops rows of the index without a word; "
                "set it to noeviction or a volatile-* policy"
            )
        always = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
        weak = [f"{name} is {found.get(name, 'not shown')}" for name, value in always.items()
                if found.get(name) != value]  # fmt: skip
        if not weak:
            return "durable"
        if self._durable:
            raise ConfigError(
                f"{self.name}: {weak[0]}: after a crash it would show older verdicts; set appendonly yes and "
                "appendfsync always, or serve.durable: false, and the mirror then writes again what was lost"
            )
        return "not durable"

    def place(self) -> Place | None:
        """What the copy holds; None where there is none.

        Raises:
            DataError: the key is somebody else's.
        """
        with self._named_errors():
            found: dict[str, str] = self._client.hgetall(self._place)  # type: ignore[assignment]
        if not found:
            return None
        try:
            numbers = {name: int(found[name]) for name in ("turn", "since", "mark", "purged")}
            texts = {name: found[name] for name in ("generation", "index", "phase", "after", "anchor")}
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{self.name}: {self._place} is no place of a mirror ({error}); choose another serve.prefix"
            ) from error
        return Place(**numbers, **texts)  # type: ignore[arg-type]

    def apply(self, expected: Place | None, rows: Sequence[Row], place: Place) -> int | None:
        """Write rows and move to ``place``; how many were written, None where another mirror moved meanwhile."""
        change = {
            "rows": [{"number": str(row.number), "deleted": row.deleted, "fields": _flat(row.fields)} for row in rows],
            "place": _flat(asdict(place)),
        }
        keys = [self._place, self._tombstones, *(self._key(row.key) for row in rows)]
        words = [*_expected(expected), json.dumps(change, ensure_ascii=False), place.generation]
        with self._named_errors():
            return _written(self._apply(keys, words))

    def sweep(self, place: Place) -> int | None:
        """Remove rows of earlier generations; how many, None where another mirror moved meanwhile."""
        gone = 0
        with self._named_errors():
            for keys in self._pages(f"{self._prefix}*"):
                done = _written(
                    self._drop([self._place, self._tombstones, *keys], [*_expected(place), *[""] * len(keys)])
                )
                if done is None:
                    return None
                gone += done
        return gone

    def tombstones(self, upto: int, skip: int, limit: int) -> list[tuple[str, int]]:
        """Keys of deleted videos and the numbers of their changes, up to one, oldest first."""
        with self._named_errors():
            found: Any = self._client.zrangebyscore(
                self._tombstones, "-inf", upto, start=skip, num=limit, withscores=True
            )
        start = len(self._prefix)
        return [(key_of(*name[start:].split("/", 1)), int(number)) for name, number in found]

    def drop(self, place: Place, rows: Sequence[tuple[str, int]]) -> int | None:
        """Remove rows that still have these numbers; how many, None where another mirror moved meanwhile."""
        keys = [self._place, self._tombstones, *(self._key(key) for key, _ in rows)]
        with self._named_errors():
            return _written(self._drop(keys, [*_expected(place), *(str(number) for _, number in rows)]))

    def _key(self, key: str) -> str:
        return self._prefix + "/".join(split(key))

    def _pages(self, pattern: str) -> Iterator[list[str]]:
        """Keys of our hashes, some at a time; one may come twice."""
        cursor = 0
        while True:
            answer: Any = self._client.scan(cursor, match=pattern, count=_SWEEP, _type="hash")
            cursor, found = answer
            if keys := [name for name in found if name != self._place]:
                yield keys
            if cursor == 0:
                return

    def _settings(self, names: Sequence[str]) -> dict[str, str]:
        """What the server is set to; a hosted one may not tell."""
        import redis

        found: dict[str, str] = {}
        try:
            for name in names:
                answer: Any = self._client.config_get(name)
                found |= answer
        except redis.ResponseError:
            self._client.ping()  # whether it is this question that it refuses
        return found

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.AuthenticationError as error:
            raise ConfigError(f"{self.name}: {error}; correct the user or password in serve.url") from error
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise SilentError(f"{self.name}: {error}; start the server, or correct serve.url") from error
        except redis.RedisError as error:
            passing = isinstance(error, redis.OutOfMemoryError | redis.ReadOnlyError) or _PASSING.search(str(error))
            kind = SilentError if passing else DataError
            raise kind(f"{self.name}: {error}; expected a Redis 6 or newer, and a serve.prefix of its own") from error


@contextmanager
def open_copy(settings: RedisIndex) -> Iterator[RedisCopy]:
    """The copy that a vmp.yaml names.

    Raises:
        ConfigError: redis-py is not installed, or refuses the URL.
    """
    with closing(RedisCopy(settings.url, settings.prefix, settings.durable)) as copy:
        yield copy


def _flat(fields: Mapping[str, Any]) -> list[str]:
    return [str(word) for pair in fields.items() for word in pair]


def _expected(place: Place | None) -> tuple[str, str]:
    return ("", "") if place is None else (place.generation, str(place.turn))


def _written(answer: Any) -> int | None:
    return None if answer == -1 else int(answer)
