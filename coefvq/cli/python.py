"""``coefvq.load``: the way into a workspace for scripts, beside the commands."""

from __future__ import annotations

from pathlib import Path

from coefvq.config import PARAMS_FILE, load_params
from coefvq.registry.loaded import LoadedPair, loaded_pair


def load_pair(issue: str, version: str, workspace: str | Path) -> LoadedPair:
    """As :func:`coefvq.load`; the working directory stays as it is."""
    root = Path(workspace).resolve()
    params = load_params(root / PARAMS_FILE)
    params.check_issue(issue)
    return loaded_pair(params.tracking, issue, version, root)
