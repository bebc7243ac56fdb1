"""The answers of Great Expectations as ``Check``s."""

from __future__ import annotations

from typing import Any

import pandas as pd

from coefvq.data.validation.manifest_rules import Rule
from coefvq.data.validation.report import MAX_IDS, Check


def to_check(rule: Rule, answer: Any, table: pd.DataFrame) -> Check:
    """What the engine answered to a rule; rows are named by ``video_id`` of ``table``."""
    result = answer.result
    places = result.get("partial_unexpected_index_list") or []
    return Check(
        name=rule.name,
        column=rule.column,
        success=bool(answer.success),
        expected=rule.expected,
        observed=_failure(answer.exception_info) or rule.observed or _observed(rule, result),
        failing_ids=tuple(dict.fromkeys(_row_name(place, table) for place in places[:MAX_IDS])),
        n_failing=int(result.get("unexpected_count") or 0),
    )


def _failure(info: dict[str, Any]) -> str | None:
    """Why the engine could not answer, e.g. text in a column of numbers; ``info`` is flat or per metric."""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    return f"values of an unfit type ({messages[0]})" if messages else None


def _observed(rule: Rule, result: dict[str, Any]) -> str:
    if "unexpected_count" in result:
        return _observed_rows(result)
    value = result.get("observed_value")
    if rule.name == "columns":
        missing = result.get("details", {}).get("mismatched", {}).get("missing", [])
        return f"{', '.join(missing)} missing" if missing else "all of them"
    if rule.name == "rows":
        return f"{value} rows"
    return "no value" if value is None or pd.isna(value) else f"{float(value):.4g}"


def _observed_rows(result: dict[str, Any]) -> str:
    total, failing = int(result["element_count"]), int(result["unexpected_count"])
    if not failing:
        return f"holds in all {total} rows"
    values = [str(value) for value in result.get("partial_unexpected_list") or [] if not pd.isna(value)]
    shown = ", ".join(_clip(value) for value in list(dict.fromkeys(values))[:3])
    return f"fails in {failing} of {total} rows" + (f", e.g. {shown}" if shown else "")


def _clip(value: str, longest: int = 40) -> str:
    return repr(value if len(value) <= longest else value[: longest - 1] + "…")


def _row_name(place: int, table: pd.DataFrame) -> str:
    video_id = table["video_id"].iloc[place] if "video_id" in table else None
    return f"row {place}" if video_id is None or pd.isna(video_id) else str(video_id)
