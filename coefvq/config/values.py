"""Types of single values: ranges, names, and the strict section that every part of the settings is."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Percent = Annotated[float, Field(gt=0.0, lt=100.0)]
Positive = Annotated[float, Field(gt=0.0)]
#: a learning rate; 0: what has it does not train
Rate = Annotated[float, Field(ge=0.0)]
KeptShare = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
PresetName = Annotated[str, Field(min_length=1)]
Precision = Literal["float32", "bfloat16", "auto"]

# small letters, digits and _: a name is part of file names, columns and registry names
_ISSUE = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
# YAML reads these as true, false or nothing
_YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null"})


def check_issue_name(name: str) -> str:
    """Return the name of an issue if it can be one.

    Raises:
        PydanticCustomError: (a ValueError) says what is expected, with a name that is near.
    """
    if _ISSUE.fullmatch(name) and name not in _YAML_WORDS:
        return name
    words = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
    near = words if _ISSUE.fullmatch(words) and words not in _YAML_WORDS else f"issue_{words}".strip("_")[:32]
    raise PydanticCustomError(
        "issue_name",
        "a small letter, then small letters, digits or _, at most 32, and no word that YAML reads as something else "
        "(yes, no, null); for example {near}",
        {"near": near},
    )


IssueName = Annotated[str, AfterValidator(check_issue_name)]


class Section(BaseModel):
    # YAML has .inf and .nan: a limit that is not finite passes or fails everything without a word
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
