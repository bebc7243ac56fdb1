"""Names of training runs: issue and model, the experiment it belongs to, and what changed since the last one. Pure."""

from __future__ import annotations

from collections.abc import Mapping

#: changed settings that a name has room for
_SHOWN = 2
#: characters of a value
_LONGEST = 24


def run_name(model: str, experiment: str | None, before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """``violence-mllm · rusty-lamb · learning_rate=0.001``.

    Args:
        model: issue and kind of model.
        experiment: name of a DVC experiment; None outside of one.
        before: parameters of the run before of the same model; None for the first.
        now: parameters of this run.
    """
    parts = [model, *([experiment] if experiment else [])]
    if before is not None and (changes := changed(before, now)):
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        parts.append(", ".join(changes[:_SHOWN]) + more)
    return " · ".join(parts)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """``key=value`` of settings that have another value than before, by their shortest name that is still clear."""
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    return [f"{_short(key, {*before, *now})}={now.get(key, 'none')[:_LONGEST]}" for key in keys]


def _short(key: str, keys: set[str]) -> str:
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key
