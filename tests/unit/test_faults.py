"""Every exception ends as one line and a documented exit code; the documents say the same codes."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import coefvq.errors as errors
from coefvq.errors import CoefVQError, ConfigError
from coefvq.faults import explained, report


def raised(action: object) -> Exception:
    try:
        action()  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def system(number: int, name: str | None = "/some/where") -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("params.yaml: x"), 2, "params.yaml: x"),
        (system(errno.ENOSPC), 7, "/some/where: No space left on device; make room"),
        (system(errno.EDQUOT), 7, "make room"),
        (system(errno.EROFS), 7, "/some/where: Read-only file system; give this user the right"),
        (system(errno.EACCES), 7, "/some/where: Permission denied; give this user the right"),
        (system(errno.EACCES, None), 7, "a file: Permission denied"),
        (system(errno.ENOENT), 3, "/some/where: No such file or directory; check the path"),
        (system(errno.EISDIR), 3, "give a file"),
        (system(errno.ENAMETOOLONG), 3, "use a shorter name"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, b"/b"), 3, "/a -> /b: Invalid"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 3, "not UTF-8"),
        (RecursionError("maximum recursion depth exceeded"), 3, "nested too deeply"),
        (MemoryError(), 7, "not enough memory"),
        (sqlite3.DatabaseError("file is not a database"), 3, "file is not a database"),
        (sqlite3.OperationalError("database or disk is full"), 7, "cannot be written"),
        (sqlite3.OperationalError("attempt to write a readonly database"), 7, "cannot be written"),
        (KeyError("base"), 1, "internal error: KeyError: 'base'; this is a bug: set COEFVQ_DEBUG=1"),
        (ValueError("\x1b[31mred\nsecond"), 1, "internal error: ValueError: \\x1b[31mred; this"),
    ],
)
def test_errors_have_a_line_and_a_code(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COEFVQ_DEBUG", raising=False)
    assert report(error) == code
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert words in printed
    assert len(printed.splitlines()) == 1


def test_libraries_errors_are_known_by_their_package(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no table" * 20)
    assert explained(raised(lambda: pq.read_table(tmp_path / "x"))).exit_code == 3
    assert explained(raised(lambda: load_file(tmp_path / "x"))).exit_code == 5


def test_a_traceback_comes_only_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = raised(lambda: {}["https://u:pw@host/"])
    monkeypatch.setenv("COEFVQ_DEBUG", "1")
    report(error)
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "pw" not in printed
    assert printed.splitlines()[-1].startswith("error: internal error: KeyError")


def test_a_line_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    report(ConfigError("x" * 100_000))
    assert len(capsys.readouterr().err) < 5000


def test_the_documents_list_every_class_and_code(repository: Path) -> None:
    """docs/operations.md and the tree in errors.py say the codes that the classes have."""
    classes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, CoefVQError)
    }
    table = (repository / "docs" / "operations.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", table.partition("\n## ")[0], flags=re.MULTILINE)
    documented = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert documented == classes
    tree = dict(re.findall(r"^[ │├└─]*(\w+(?:Error)) +(?:exit code )?(\d)", errors.__doc__ or "", flags=re.MULTILINE))
    assert {name: int(code) for name, code in tree.items()} == classes


def command(*argv: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coefvq", *argv],
        cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_closed_pipe_ends_a_command_quietly(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "coefvq", "models", "show", "paper", "--json"],
        cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
    )  # fmt: skip
    os.close(write)
    assert done.stderr == ""


def test_a_full_disk_under_stdout_is_a_storage_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "coefvq", "models", "list"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 7
    assert done.stderr.startswith("error: ")
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_usage_errors_do_not_obey_arguments(tmp_path: Path) -> None:
    done = command("sta\x1b[2Jtus\nerror: forged", cwd=tmp_path)
    assert done.returncode == 2
    assert "\x1b[2J" not in done.stderr
    assert "\nerror" not in done.stderr


def test_names_that_are_no_utf8_and_ascii_terminals(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coefvq", "status", "--params", b"caf\xff\xc3\xa9.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: caf\\udcff\\xe9.yaml: no such file")


def test_a_disk_that_takes_no_more_is_named_and_leaves_no_litter(tmp_path: Path) -> None:
    # a limit of the process stands in for a full disk: the same write fails half-way
    script = (
        "import resource, pathlib, pandas; from coefvq.files import write_json; "
        "from coefvq.data.manifest import write_table; from coefvq.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "for write, name in ((lambda p: write_json(p, ['x' * 5000]), 'a.json'),"
        " (lambda p: write_table(pandas.DataFrame({'x': range(5000)}), p), 'a.parquet')):\n"
        "    try:\n"
        "        write(pathlib.Path(name))\n"
        "    except StorageError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("a.json: File too large; make room there"), done.stderr
    assert lines[1].startswith("a.parquet: File too large; make room there"), done.stderr
    assert list(tmp_path.iterdir()) == []
