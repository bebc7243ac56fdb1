"""One clip probed in the test's own process: a limited worker would take a second to start."""

from __future__ import annotations

from pathlib import Path

from coefvq.config import MediaLimits
from coefvq.data.media.probe import _plan
from coefvq.data.media.probe_worker import Probe, inspect, probe_settings


def probe_clip(uri: str, root: Path, limits: MediaLimits) -> Probe:
    """What ``probe_all`` gives for one local clip."""
    task = _plan(uri, root.resolve(), limits, (), None)
    return task if isinstance(task, Probe) else inspect(task, probe_settings(limits, None)).probe
