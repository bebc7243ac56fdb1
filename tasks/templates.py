"""Files of a new workspace, from those at the repository's top, which is a workspace as well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from coefvq.config import read_mapping

TEMPLATES = ("dvc.yaml", "params.yaml", "presets.yaml", "prefect.yaml")
#: the stage of the checkout's dvc.yaml that makes synthetic clips
CLIPS_STAGE = "clips"
_CHECKOUT_ONLY = re.compile(rf"^  - python: .*\n|^  {CLIPS_STAGE}:.*\n(?:    .*\n)+\n", re.MULTILINE)

# the issue whose settings an issue of the user's own begins with, and the lines of both that ship
GENERIC = "ucc"
_SECTIONS = re.compile(r"^(?P<indent> +)icd: (?P<icd>.*)\n(?P=indent)ucc: (?P<ucc>.*)\n", re.MULTILINE)


def template(name: str) -> str:
    """Text of a pipeline file for a new workspace: packaged in a wheel, at the repository's top in a checkout.

    The checkout is a workspace too. Its dvc.yaml begins with a stage that makes synthetic clips, and starts the
    interpreter of its own ``.venv``. A new workspace has neither.
    """
    packaged = files("coefvq") / "templates" / name
    source = packaged if packaged.is_file() else Path(str(files("coefvq"))).parent / name
    text = source.read_text(encoding="utf-8")
    return _CHECKOUT_ONLY.sub("", text).replace("${python} ", "python ") if name == "dvc.yaml" else text


def params_for(issues: Sequence[str]) -> str:
    """The template of params.yaml with the sections of ``issues`` instead of those of the two that ship.

    An issue of the user's own gets the settings of ``ucc``, whose models look at frames, text and sound.
    """

    def lines(shipped: re.Match[str]) -> str:
        indent, own = shipped["indent"], {"icd": shipped["icd"], GENERIC: shipped["ucc"]}
        made = (
            (issue, own.get(issue) or own[GENERIC].replace(f"label_{GENERIC}", f"label_{issue}")) for issue in issues
        )
        return "".join(f"{indent}{issue}: {settings}\n" for issue, settings in made)

    text = template("params.yaml").replace("issues: [icd, ucc]", f"issues: [{', '.join(issues)}]")
    return _SECTIONS.sub(lines, text)


def makes_clips(root: Path) -> bool:
    """Whether a workspace's own pipeline makes its clips, as the checkout's does."""
    path = root / "dvc.yaml"
    stages = read_mapping(path).get("stages") if path.is_file() else None
    return isinstance(stages, dict) and CLIPS_STAGE in stages
