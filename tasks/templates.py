"""Files of a new workspace, from those at the repository's top, which is a workspace as well."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from coefvq.config import read_mapping

TEMPLATES = ("dvc.yaml", "params.yaml", "presets.yaml", "prefect.yaml")
#: the stage of the checkout's dvc.yaml that makes synthetic clips
CLIPS_STAGE = "clips"
_CHECKOUT_ONLY = re.compile(rf"^  - python: .*\n|^  {CLIPS_STAGE}:.*\n(?:    .*\n)+\n", re.MULTILINE)


def template(name: str) -> str:
    """Text of a pipeline file for a new workspace: packaged in a wheel, at the repository's top in a checkout.

    The checkout is a workspace too. Its dvc.yaml begins with a stage that makes synthetic clips, and starts the
    interpreter of its own ``.venv``. A new workspace has neither.
    """
    packaged = files("coefvq") / "templates" / name
    source = packaged if packaged.is_file() else Path(str(files("coefvq"))).parent / name
    text = source.read_text(encoding="utf-8")
    return _CHECKOUT_ONLY.sub("", text).replace("${python} ", "python ") if name == "dvc.yaml" else text


def makes_clips(root: Path) -> bool:
    """Whether a workspace's own pipeline makes its clips, as the checkout's does."""
    path = root / "dvc.yaml"
    stages = read_mapping(path).get("stages") if path.is_file() else None
    return isinstance(stages, dict) and CLIPS_STAGE in stages
