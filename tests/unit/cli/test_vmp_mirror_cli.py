"""``coefvq vmp mirror`` on a real Redis: once, up to a signal, and what it says where it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coefvq.cli.vmp import app
from coefvq.errors import ConfigError, DataError
from coefvq.vmp.configuration import load_configuration
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.sources.checks import checks
from tests.redis_index import DURABLE, PREFIX, World, deletion, row, world
from tests.vmp_world import promote


@pytest.fixture(scope="module")
def server() -> Iterator[World]:
    with world(*DURABLE) as made:
        yield made


@pytest.fixture
def redis(server: World) -> World:
    server.client.flushall()
    return server


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexStore]:
    (tmp_path / "vmp").mkdir()
    with open_index(tmp_path / "vmp" / "index.sqlite") as opened:
        epoch = promote(opened, 1, "1-x")
        opened.revise([row(name, epoch) for name in "abc"], "x")
        yield opened


def configure(folder: Path, redis: World, more: str = "") -> Path:
    path = folder / "vmp.yaml"
    path.write_text(
        f"source: {{kind: log}}\nserve: {{kind: redis, url: '{redis.url}', prefix: '{PREFIX}'{more}}}\n"
    )  # fmt: skip
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def result(done: Result) -> dict[str, object]:
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def part(config: Path) -> str:
    """The part ``serve`` of ``vmp check``."""
    return dict(checks(load_configuration(config)))["serve"]()


def test_once_and_what_check_says_before_and_after(redis: World, index: IndexStore, tmp_path: Path) -> None:
    config = configure(tmp_path, redis)
    assert part(config) == "redis: answers, durable; to be built: the server holds none"
    first = run("mirror", "--config", config, "--once")
    assert first.stdout == "3 rows written, 0 removed; 0 changes behind at change 3\n"
    assert "the mirror is built anew: the server holds none" in first.stderr
    index.revise([deletion("a", 1, 2), row("b", 1, 2)], "x")
    assert part(config) == "redis: answers, durable; 2 changes behind"
    again = result(run("mirror", "--config", config, "--once", "--json"))
    assert again == {"written": 2, "removed": 0, "built": 0, "cursor": 5, "lag": 0}
    assert redis.rows()["default/a"]["state"] == "deleted"
    anew = result(run("mirror", "--config", config, "--once", "--rebuild", "--json"))
    assert anew == {"written": 3, "removed": 0, "built": 1, "cursor": 5, "lag": 0}


def test_it_follows_until_a_signal(redis: World, index: IndexStore, tmp_path: Path, repository: Path) -> None:
    config = configure(tmp_path, redis)
    words = ["-m", "coefvq", "vmp", "mirror", "--config", str(config), "--poll-interval", "0.05"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen([sys.executable, *words], cwd=repository, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:  # fmt: skip
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        assert any("0 changes behind" in line for line in lines)
        index.revise([row("d", 1)], "x")
        assert any(line == "1 rows written, 0 removed; 0 changes behind\n" for line in lines)
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "4 rows written, 0 removed; 0 changes behind at change 4\n")
    assert set(redis.rows()) == {f"default/{name}" for name in "abcd"}


def test_what_cannot_be_is_said(redis: World, index: IndexStore, tmp_path: Path) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text("source: {kind: log}\n")
    refusal = run("mirror", "--config", bare, "--once").exception
    assert isinstance(refusal, ConfigError)
    assert "nothing to mirror to; name a server in the section serve" in str(refusal)
    with world() as volatile:
        config = configure(tmp_path, volatile)
        refusal = run("mirror", "--config", config, "--once").exception
        assert isinstance(refusal, ConfigError)
        assert "set appendonly yes and appendfsync always, or serve.durable: false" in str(refusal)
        with pytest.raises(ConfigError, match="appendonly is no"):
            part(config)
        config = configure(tmp_path, volatile, ", durable: false")
        assert result(run("mirror", "--config", config, "--once", "--json"))["written"] == 3
        assert part(config) == "redis: answers, not durable; 0 changes behind"
    gone = run("mirror", "--config", config, "--once").exception
    assert isinstance(gone, DataError)
    assert "start the server, or correct serve.url" in str(gone)
    with pytest.raises(DataError, match="start the server"):
        part(config)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = configure(elsewhere, redis)
    assert "no such state" in str(run("mirror", "--config", config, "--once").exception)
    assert part(config) == "redis: answers, durable; no index yet"
