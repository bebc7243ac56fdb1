"""Mutations of Parquet files through pandas, and of JSON Lines line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.fuzz_cli.damage import Mutation, Words, replace_bytes
from tests.fuzz_cli.documents import STRINGS
from tests.fuzz_cli.tables import ELSEWHERE, changed_bytes

if TYPE_CHECKING:
    import pandas as pd

Change = Callable[[Random, "pd.DataFrame"], tuple["pd.DataFrame", Words]]


def changed_parquet(change: Change) -> Callable[[Random, Path], Words]:
    """A mutation from a change of the frame."""

    def apply(rng: Random, path: Path) -> Words:
        import pandas as pd

        frame, words = change(rng, pd.read_parquet(path))
        path.unlink()
        frame.to_parquet(path, index=False)
        return words

    return apply


def _drop_column(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = rng.choice(list(frame.columns))
    return frame.drop(columns=name), (name,)


def _drop_id(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = "video_id" if "video_id" in frame else frame.columns[0]
    return frame.drop(columns=name), (name,)


def _wrong_type(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = rng.choice(list(frame.columns))
    value: Any = rng.choice(("text", b"\xff", [1, 2], {"a": 1}, True, -1.5, 10**12))
    return frame.assign(**{name: [value] * len(frame)}), (name,)


def _all_null(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    name = rng.choice(list(frame.columns))
    return frame.assign(**{name: None}), (name,)


def _rows_twice(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    import pandas as pd

    return pd.concat([frame, frame.head(2)]), (str(frame["video_id"].iloc[0]) if "video_id" in frame else "",)


def _no_rows(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    return frame.head(0), ()


def _one_row(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    return frame.head(1), ()


def _odd_number(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    names = [name for name in frame.columns if frame[name].dtype.kind in "fi"]
    if not names:
        return _wrong_type(rng, frame)
    name = rng.choice(names)
    values = frame[name].astype(float)
    values.iloc[: max(1, len(values) // 3)] = rng.choice((float("nan"), float("inf"), float("-inf"), -1.0, 1e300))
    return frame.assign(**{name: values}), (name,)


def _odd_text(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    names = [name for name in frame.columns if frame[name].dtype.kind not in "fib"]
    name = rng.choice(names)
    values = list(frame[name].astype(str))
    values[0] = rng.choice([text for text in STRINGS if text != "\ud800"])
    return frame.assign(**{name: values}), (name,)


def _shuffled_columns(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    names = list(frame.columns)
    rng.shuffle(names)
    return frame[names], ()


def _score_out(value: float) -> Change:
    def change(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
        name = rng.choice(("base", "mllm"))
        return frame.assign(**{name: value}), (name,)

    return change


def _float_ids(rng: Random, frame: pd.DataFrame) -> tuple[pd.DataFrame, Words]:
    return frame.assign(video_id=[9007199254740993.0 + 2 * n for n in range(len(frame))]), ("video_id",)


PARQUET = (
    Mutation("drop_column", changed_parquet(_drop_column)),
    Mutation("drop_id", changed_parquet(_drop_id), "refuse"),
    Mutation("wrong_type", changed_parquet(_wrong_type)),
    Mutation("all_null", changed_parquet(_all_null)),
    Mutation("rows_twice", changed_parquet(_rows_twice), "refuse"),
    Mutation("no_rows", changed_parquet(_no_rows), "refuse"),
    Mutation("one_row", changed_parquet(_one_row)),
    Mutation("odd_number", changed_parquet(_odd_number)),
    Mutation("odd_text", changed_parquet(_odd_text)),
    Mutation("shuffled_columns", changed_parquet(_shuffled_columns), "same"),
)
PARQUET_SCORES = (
    Mutation("score_nan", changed_parquet(_score_out(float("nan"))), "refuse"),
    Mutation("score_above_1", changed_parquet(_score_out(1.5)), "refuse"),
    Mutation("score_infinite", changed_parquet(_score_out(float("inf"))), "refuse"),
)
PARQUET_IDS = (Mutation("float_ids", changed_parquet(_float_ids), "refuse"),)


def _lines(change: Callable[[Random, list[str]], Words]) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        lines = path.read_text(encoding="utf-8").splitlines()
        words = change(rng, lines)
        replace_bytes(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
        return words

    return apply


def _line_changed(change: Callable[[Random, dict[str, Any]], None]) -> Callable[[Random, Path], Words]:
    def one(rng: Random, lines: list[str]) -> Words:
        row = json.loads(lines[1])
        change(rng, row)
        lines[1] = json.dumps(row)
        return ()

    return _lines(one)


def _line_set(text: str) -> Callable[[Random, Path], Words]:
    def one(rng: Random, lines: list[str]) -> Words:
        lines[1] = text
        return ()

    return _lines(one)


def _line_key_twice(rng: Random, lines: list[str]) -> Words:
    lines[1] = lines[1].rstrip()[:-1] + ', "title": "again"}'
    return ("title",)


def _odd_value(rng: Random, row: dict[str, Any]) -> None:
    key = rng.choice(list(row))
    row[key] = rng.choice((*STRINGS, 1e400, [1], {"a": 1}, True, None, 10**30))


def _odd_id(rng: Random, row: dict[str, Any]) -> None:
    row["video_id"] = rng.choice((True, [1], {"a": 1}, 1e30))


def _leads_elsewhere(rng: Random, row: dict[str, Any]) -> None:
    row["file_name"] = rng.choice(ELSEWHERE)


JSONL = (
    Mutation("line_cut", _line_set('{"file_name": "a'), "refuse"),
    Mutation("line_no_object", _line_set("[1, 2]"), "refuse"),
    Mutation("line_number", _line_set("7"), "refuse"),
    Mutation("line_deep", _line_set("[" * 100_000), "refuse"),
    Mutation("line_key_twice", _lines(_line_key_twice), "refuse"),
    Mutation("line_odd_value", _line_changed(_odd_value)),
    Mutation("line_odd_id", _line_changed(_odd_id), "refuse"),
    Mutation("line_elsewhere", _line_changed(_leads_elsewhere)),
    Mutation("not_utf8", changed_bytes(lambda rng, data: data + b'{"file_name": "\xff"}\n'), "refuse"),
)
