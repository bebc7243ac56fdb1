"""A real MariaDB server for tests, where the system has one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from tests import feature_stores as real

_SETTINGS = (
    "--skip-networking",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=16M",
    "--default-time-zone=+05:00",  # the source must not depend on it
)


def program(name: str) -> str:
    """A program of the server; the test skips where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
    if found is None or importlib.util.find_spec("pymysql") is None:
        pytest.skip(f"{name} (apt-get install mariadb-server) or pymysql (coefvq[dev]) is not installed")
    return found


@contextmanager
def server() -> Iterator[str]:
    """Start a server in a folder of its own, reached by a socket only; yield the URL of its system database."""
    daemon, install = program("mariadbd"), program("mariadb-install-db")
    user = ["--user=root"] if os.geteuid() == 0 else []
    # a socket's name has 107 bytes at most
    with tempfile.TemporaryDirectory(prefix="ma", dir="/tmp") as name:
        data, path = Path(name) / "data", f"{name}/s"
        common = ["--no-defaults", f"--datadir={data}", *user]
        subprocess.run([install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        url = f"mariadb://root@localhost/mysql?unix_socket={quote(path, safe='')}"
        command = [daemon, *common, f"--socket={path}", f"--pid-file={name}/pid", *_SETTINGS]
        # not asked through PyMySQL: it leaves open a socket that it could not connect, which warns in a later test
        with real.running(real.Server(command, lambda: real.answers(path, socket.AF_UNIX))):
            yield url


def with_driver(url: str) -> str:
    """The URL as SQLAlchemy wants it."""
    return url.replace("mariadb://", "mariadb+pymysql://")


def database_of(url: str, name: str) -> str:
    """The URL of an empty database of that name."""
    engine = sa.create_engine(with_driver(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    engine.dispose()
    return url.replace("/mysql?", f"/{name}?")
