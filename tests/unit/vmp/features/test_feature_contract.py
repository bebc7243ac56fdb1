"""One contract for all feature stores, each on a real server: rows, absence, wrong values, a kill and a new start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coefvq.vmp.features.lookup import open_guarded
from coefvq.vmp.features.values import StoreError, Unusable
from tests import feature_stores as real
from tests.mariadb import database_of
from tests.postgres import schema_of

ANA = {"reputation": 0.25, "country": "Curaçao", "verified": True}
BO = {"reputation": 3, "verified": False}


@pytest.fixture(scope="module")
def thrift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.World]:
    with real.thrift_service(tmp_path_factory.mktemp("thrift")) as service:
        yield real.thrift_world(*service)


@pytest.fixture(scope="module")
def redis() -> Iterator[real.World]:
    with real.redis_server() as server:
        yield real.redis_world(*server)


@pytest.fixture(params=["thrift", "redis", "cached", "sqlite", "postgres", "mariadb"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> real.World:
    """A store with Ana and Bo."""
    if request.param in ("thrift", "redis"):
        made: real.World = request.getfixturevalue(request.param)
    elif request.param == "cached":
        made, cache = request.getfixturevalue("thrift"), request.getfixturevalue("redis")
        cache.put({})
        made = real.World({**cache.source, "behind": made.source, "ttl_s": 1}, made.put, made.stop, made.start)
    elif request.param == "sqlite":
        made = real.sql_world(f"sqlite:///{tmp_path / 'people 1?.sqlite'}")
    elif request.param == "mariadb":
        made = real.sql_world(database_of(request.getfixturevalue("mariadb_url"), "features"))
    else:
        made = real.sql_world(schema_of(request.getfixturevalue("postgres_url"), "features"))
    made.put({"ana": ANA, "bö": BO})
    return made


def test_rows_of_known_keys_come_and_others_are_left_out(world: real.World) -> None:
    with open_guarded(world.settings(deadline_s=20.0)) as store:
        assert store.fetch(["nobody", "ana", "bö"]) == {"ana": ANA, "bö": BO}
        assert store.fetch(["ana"]) == {"ana": ANA}
        assert store.fetch(["'; DROP TABLE people; --"]) == {}


def test_more_keys_than_one_question_takes(world: real.World) -> None:
    many = {f"k{number}": {"reputation": float(number)} for number in range(1100)}
    world.put(many)
    with open_guarded(world.settings(deadline_s=30.0)) as store:
        assert store.fetch([*many, "nobody"]) == many


def test_a_value_of_another_type_spoils_its_row_alone(world: real.World) -> None:
    world.put({"ana": {"reputation": "high"}, "bö": {"verified": False}})
    with open_guarded(world.settings(deadline_s=20.0)) as store:
        assert store.fetch(["ana", "bö"]) == {
            "ana": Unusable("key 'ana': reputation = 'high': expected a number"),
            "bö": {"verified": False},
        }
        # nor is it kept anywhere
        world.put({"ana": ANA})
        assert store.fetch(["ana"]) == {"ana": ANA}


def test_a_store_that_went_away_answers_again_when_it_is_back(world: real.World) -> None:
    with open_guarded(world.settings(deadline_s=5.0, breaker_failures=100)) as store:
        assert store.fetch(["ana"]) == {"ana": ANA}
        world.stop()
        try:
            with pytest.raises(StoreError):
                store.fetch(["ana", "bö"])
        finally:
            world.start()
        assert store.fetch(["ana", "bö"]) == {"ana": ANA, "bö": BO}
