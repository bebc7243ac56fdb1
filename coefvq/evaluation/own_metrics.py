"""Figures that other packages compute, beside those of ``metrics``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coefvq.cascade.curves import FloatArray
from coefvq.errors import ConfigError
from coefvq.extensions import METRICS, extension


def own_metrics(
    names: Sequence[str], label: FloatArray, score: FloatArray, weight: FloatArray
) -> dict[str, float | None]:
    """One figure per name; each is called with ``label``, ``score`` and ``weight``, all float64 [n].

    Labels lie in [0, 1]: a soft label is a known posterior. The score of a withheld row is -inf.

    Raises:
        ConfigError: a metric is not registered, fails, or returns no finite number (None where it is undefined).
    """
    return {name: _figure(name, extension(METRICS, name)(label, score, weight)) for name in names}


def _figure(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"metric {name!r}: returned {value!r:.60}; expected a finite number, or None where undefined")
    return float(value)
