"""Mutations of SQLite databases, and of model weights in safetensors."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz_cli.damage import Mutation, Words, replace_bytes, workspace_of


def _statement(make: Callable[[Random, sqlite3.Connection], str]) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma foreign_keys = off")
            connection.executescript(make(rng, connection))
            connection.commit()
        return ()

    return apply


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    return sorted(name for (name,) in found)


def _filled(connection: sqlite3.Connection) -> list[str]:
    # the names put into statements here are the database's own
    counted = {t: connection.execute(f'select count(*) from "{t}"').fetchone()[0] for t in _tables(connection)}  # noqa: S608
    return [table for table, count in counted.items() if count]


def drop_table(rng: Random, connection: sqlite3.Connection) -> str:
    return f'drop table "{rng.choice(_filled(connection))}"'


def drop_all(rng: Random, connection: sqlite3.Connection) -> str:
    return ";".join(f'drop table "{name}"' for name in _tables(connection))


def rename_column(rng: Random, connection: sqlite3.Connection) -> str:
    table = rng.choice(_filled(connection))
    column = rng.choice([row[1] for row in connection.execute(f'pragma table_info("{table}")')])
    return f'alter table "{table}" rename column "{column}" to zz_gone'


def odd_values(rng: Random, connection: sqlite3.Connection) -> str:
    table = rng.choice(_filled(connection))
    _, column, kind, _, _, is_key = rng.choice(list(connection.execute(f'pragma table_info("{table}")')))
    value = rng.choice(("x'fffe'", "'not a number'", "-1", "9e999", "''", "char(27) || '[2J'", "'{'", "null"))
    if kind.upper() == "INTEGER" and is_key:
        value = "-1"  # the number of a row: SQLite itself takes nothing else there
    return f'update or ignore "{table}" set "{column}" = {value}'  # noqa: S608


def no_rows(rng: Random, connection: sqlite3.Connection) -> str:
    return f'delete from "{rng.choice(_filled(connection))}"'  # noqa: S608


def other_version(rng: Random, connection: sqlite3.Connection) -> str:
    # what MLflow goes by is a table of its own; ours go by SQLite's own number
    if "alembic_version" in _tables(connection):
        return "update alembic_version set version_num = 'ffffffffffff'"
    return f"pragma user_version = {rng.choice((99, -1, 2**31 - 1))}"


def foreign(rng: Random, path: Path) -> Words:
    """A database of somebody else's."""
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("create table shopping (item text); insert into shopping values ('milk')")
        connection.commit()
    return ()


def other_of_ours(rng: Random, path: Path) -> Words:
    """Another database of the workspace in this one's place."""
    root = workspace_of(path)
    names = ("mlflow.db", "vmp/log.sqlite", "vmp/index.sqlite", ".coefvq/cache/probes.sqlite")
    others = [root / name for name in names if root / name != path and (root / name).is_file()]
    replace_bytes(path, rng.choice(others).read_bytes())
    return ()


def bad_journal(rng: Random, path: Path) -> Words:
    path.with_name(path.name + "-wal").write_bytes(rng.randbytes(5000))
    path.with_name(path.name + "-journal").write_bytes(rng.randbytes(5000))
    return ()


def bad_page(rng: Random, path: Path) -> Words:
    data = bytearray(path.read_bytes())
    page = struct.unpack(">H", data[16:18])[0]
    at = page * rng.randrange(1, max(2, len(data) // page))
    data[at : at + page] = rng.randbytes(min(page, len(data) - at))
    replace_bytes(path, bytes(data))
    return ()


SQLITE = (
    Mutation("foreign", foreign, "refuse"),
    Mutation("other_of_ours", other_of_ours, "refuse"),
    Mutation("other_version", _statement(other_version)),
    Mutation("drop_table", _statement(drop_table)),
    Mutation("drop_all", _statement(drop_all), "refuse"),
    Mutation("rename_column", _statement(rename_column)),
    Mutation("odd_values", _statement(odd_values)),
    Mutation("no_rows", _statement(no_rows)),
    Mutation("bad_page", bad_page),
    Mutation("bad_journal", bad_journal),
)


def _tensors(change: Callable[[Random, dict[str, Any]], str]) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(path, "pt") as stored:
            note = stored.metadata()
            values = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        word = change(rng, values)
        path.unlink()
        save_file(values, path, metadata=note)
        return (word,)

    return apply


def tensor_gone(rng: Random, values: dict[str, Any]) -> str:
    name = rng.choice(sorted(values))
    del values[name]
    return name


def tensor_more(rng: Random, values: dict[str, Any]) -> str:
    import torch

    values["zz_unknown"] = torch.zeros(3)
    return "zz_unknown"


def tensor_shape(rng: Random, values: dict[str, Any]) -> str:
    import torch

    name = rng.choice(sorted(values))
    values[name] = torch.zeros((*values[name].shape, 3))
    return name


def tensor_type(rng: Random, values: dict[str, Any]) -> str:
    import torch

    name = rng.choice(sorted(values))
    values[name] = values[name].to(rng.choice((torch.int64, torch.bool, torch.float64, torch.float16)))
    return name


def tensor_nan(rng: Random, values: dict[str, Any]) -> str:
    name = rng.choice([name for name in sorted(values) if values[name].is_floating_point()])
    values[name] = values[name] * rng.choice((float("nan"), float("inf")))
    return name


def header_length(rng: Random, path: Path) -> Words:
    data = path.read_bytes()
    length = rng.choice((0, 1, 2**63, 2**32, len(data) * 2, 10**8))
    replace_bytes(path, struct.pack("<Q", length) + data[8:])
    return ()


def header_lies(rng: Random, path: Path) -> Words:
    """Offsets that leave the file, or overlap."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    name = rng.choice([name for name in sorted(header) if name != "__metadata__"])
    begin, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = rng.choice(([begin, end + 4], [end, begin], [-4, end], [begin, 2**40]))
    text = json.dumps(header).encode()
    replace_bytes(path, struct.pack("<Q", len(text)) + text + data[8 + size :])
    return (name,)


SAFETENSORS = (
    Mutation("tensor_gone", _tensors(tensor_gone), "refuse"),
    Mutation("tensor_more", _tensors(tensor_more)),
    Mutation("tensor_shape", _tensors(tensor_shape), "refuse"),
    Mutation("tensor_type", _tensors(tensor_type)),
    Mutation("tensor_nan", _tensors(tensor_nan)),
    Mutation("header_length", header_length, "refuse"),
    Mutation("header_lies", header_lies, "refuse"),
)
