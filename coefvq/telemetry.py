"""Telemetry of every library is off unless the user has said otherwise."""

from __future__ import annotations

import os

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def switch_off() -> None:
    """Set what is not set; to be called before these libraries are imported, by whatever is started."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
