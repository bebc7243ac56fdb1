"""coefvq: cascaded multimodal video classification, after the paper COEF-VQ.

Importing the package has no effects and pulls in no heavy library; see ``coefvq.__main__`` for the
commands and ``docs/architecture.md`` for the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coefvq.version import __version__

__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from pathlib import Path

    from coefvq.registry.loaded import LoadedPair


def load(issue: str, version: str = "champion", workspace: str | Path = ".") -> LoadedPair:
    """The approved pair of an issue, ready to score files.

        coefvq.load("violence").score(["a.mp4", "b.mp4"], titles=["street", "kitchen"])

    Args:
        issue: a name of ``issues`` in params.yaml.
        version: alias or number of a registered pair.
        workspace: the folder with params.yaml.

    Raises:
        ConfigError: the workspace's settings do not fit, or the issue is none of them.
        RegistryError: no pair stands behind the version, or its files were changed.
    """
    from coefvq.telemetry import switch_off

    switch_off()
    from coefvq.cli.python import load_pair

    return load_pair(issue, version, workspace)
