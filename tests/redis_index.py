"""A real Redis as the copy of an index, and what an index says its readers should see: for the tests of the mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from coefvq.vmp import served
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import DEFAULT
from coefvq.vmp.mirror.redis_copy import RedisCopy
from coefvq.vmp.records import FULL, Event, SinkRow
from tests import feature_stores as real
from tests.vmp_world import NOW

#: what makes a Redis keep all that it said it took
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
PREFIX = "test:index:"


def row(video_id: str, epoch: int, version: int = 1, title: str = "t", content: str = "") -> SinkRow:
    """A live video."""
    value = json.dumps({"title": title, "views": None, "scores": {}})
    return SinkRow(1, video_id, version, epoch, FULL, f"icd={epoch}-x", "live", "live", "r", value, NOW.isoformat(),
                   content or f"v{version}")  # fmt: skip


def deletion(video_id: str, epoch: int, version: int) -> SinkRow:
    """A deleted one."""
    return SinkRow(1, video_id, version, epoch, FULL, "", "removed", "deleted", "deleted", "{}", NOW.isoformat(),
                   Event(video_id, "delete", source_version=version))  # fmt: skip


@dataclass
class World:
    """A server that is killed and started again, and the copy in it."""

    server: real.Server
    url: str
    copy: RedisCopy

    @property
    def client(self) -> Any:
        return self.copy._client

    def rows(self) -> dict[str, dict[str, str]]:
        """All that a reader finds: ``TENANT/VIDEO`` → fields."""
        found = {}
        for name in self.client.keys(f"{PREFIX}*"):
            if "@" not in name:
                found[name.removeprefix(PREFIX)] = self.client.hgetall(name)
        return found

    def restart(self) -> None:
        """kill -9, and the server is there again."""
        self.server.kill()
        self.server.start()


@contextmanager
def world(*settings: str, durable: bool = False) -> Iterator[World]:
    with real.redis_server(*settings) as (server, url):
        copy = RedisCopy(url, PREFIX, durable)
        try:
            yield World(server, url, copy)
        finally:
            copy.close()


def as_read(found: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Hashes as entries of the index."""
    return {name: _entry(name, dict(fields)) for name, fields in found.items()}


def _entry(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    for one in ("generation", "number"):
        assert fields.pop(one)
    whole = {one: int(fields[one]) for one in ("source_version", "epoch", "rank")}
    word = json.loads(fields["override"]) if "override" in fields else None
    value = json.loads(fields["value"])
    empty = {"decided_at": None}
    return {**empty, **fields, **whole, "override": word, "value": value, "video_id": name.split("/", 1)[1]}


def of_index(index: IndexStore, tenants: Sequence[str] = (DEFAULT,)) -> dict[str, dict[str, Any]]:
    """The oracle: every entry as ``coefvq vmp scan`` shows it."""
    return {
        f"{tenant}/{entry.video_id}": asdict(entry)
        for tenant in tenants
        for entry in served.scan(index.database, tenant=tenant)
    }
