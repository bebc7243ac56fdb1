"""``grid.yaml`` as frozen, strict models, and the cells that a table needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from coefvq.config.values import Count, Fraction, KeptShare, Percent, Positive, Section
from coefvq.documents import parse_yaml
from coefvq.errors import ConfigError
from coefvq.overrides import merged

Kind = Literal["base", "mllm"]
Modality = Literal["audio", "text"]
Settings = dict[str, Any]


class ModelSpec(Section):
    """What a cell trains: the recipe's section ``kind`` with changes for all issues, one issue, one recipe.

    ``train_share`` of the train split is learnt from; ``teacher`` is the model that a distilled base learns from;
    ``shared``: one MLLM with a head for every issue of the workspace, made as the first issue's is.
    """

    kind: Kind
    settings: Settings = Field(default_factory=dict)
    issues: dict[str, Settings] = Field(default_factory=dict)
    recipes: dict[str, Settings] = Field(default_factory=dict)
    train_share: KeptShare = 1.0
    teacher: str | None = None
    shared: bool = False

    @model_validator(mode="after")
    def _only_an_mllm_is_shared(self) -> Self:
        if self.shared and (self.kind != "mllm" or self.train_share < 1.0):
            raise ValueError("shared is for an MLLM that learns from all of train")
        return self

    def changes(self, issue: str, recipe: str) -> Settings:
        """Keys of the section that differ from the recipe."""
        return merged(merged(self.settings, self.issues.get(issue, {})), self.recipes.get(recipe, {}))


class RowSpec(Section):
    """One model alone; ``paper`` is the name of the paper's row in the same table."""

    name: str
    model: str
    paper: str | None = None


class BaseSpec(Section):
    """A first stage of Table 2; ``view`` says per issue what it sees, as a Bayes bound of the synthetic world."""

    name: str
    model: str
    view: dict[str, Literal["vision", "vision_text", "all"]] = Field(default_factory=dict)


class PromiseSpec(Section):
    """What certified thresholds promise: precision and share of calls in percent, but for a chance of ``delta``."""

    precision: Percent
    qps: Percent
    delta: Fraction


class CascadeSpec(Section):
    """Table 2: each base before one MLLM, at precisions of the base and at shares of calls, both in percent."""

    mllm: str
    bases: tuple[BaseSpec, ...]
    p_base: dict[str, tuple[Percent, ...]]
    paper_base: str
    qps: tuple[Percent, ...]
    certified: PromiseSpec | None = None


class ClaimSpec(Section):
    """A sentence about two rows: ``better`` exceeds ``worse``, by more than the pair ``than`` where that is given.

    ``kept``: ``better`` divided by ``worse`` is at least that share. ``paper``: false where the paper says no such
    thing.
    """

    text: str
    better: str
    worse: str
    figure: str = "f1"
    kept: Fraction | None = None
    than: tuple[str, str] | None = None
    issues: tuple[str, ...] | None = None
    paper: bool = True


class TableSpec(Section):
    """Rows of single models or a cascade, and what the paper claims of them; ``seeds``: no more than so many."""

    title: str
    issues: tuple[str, ...]
    needs: tuple[Modality, ...] = ()
    seeds: Count | None = None
    rows: tuple[RowSpec, ...] = ()
    cascade: CascadeSpec | None = None
    claims: tuple[ClaimSpec, ...] = ()
    yardsticks: bool = False  # the metadata shortcut and, in a synthetic world, the Bayes bounds

    def models(self) -> tuple[str, ...]:
        """Names of the models it needs, in the order of its rows."""
        staged = () if self.cascade is None else (self.cascade.mllm, *(base.model for base in self.cascade.bases))
        return tuple(dict.fromkeys((*(row.model for row in self.rows), *staged)))


class CostSpec(Section):
    """CPU seconds on one thread: per clip (render, features, score), per clip and epoch (mllm, base by its
    architecture, and what adapters of its text tower add), per process.
    """

    render: Positive
    features: Positive
    base: dict[str, Positive]
    text_lora: Positive
    mllm: Positive
    score: Positive
    start: Positive


class GpuSpec(Section):
    """GPUs of one training, memory and peak speed of one, and the share of the peak that is expected."""

    gpus: Count
    memory_gib: Positive
    tflops: Positive
    utilisation: Fraction


class DataSpec(Section):
    """Synthetic clips for one recipe, dotted keys of params.yaml, how many seeds, and what it costs."""

    videos: Count
    seed: int
    prevalence: dict[str, Fraction]
    seeds: Count
    settings: Settings
    cost: CostSpec | None = None
    gpu: GpuSpec | None = None


class Grid(Section):
    """The whole file."""

    models: dict[str, ModelSpec]
    presets: dict[str, dict[str, Settings]]
    tables: dict[str, TableSpec]
    data: dict[str, DataSpec]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for number, table in self.tables.items():
            names = {row.name for row in table.rows}
            for model in (*table.models(), *(m.teacher for m in self.models.values() if m.teacher)):
                if model not in self.models:
                    raise ValueError(f"tables.{number}: model {model!r} is not in models")
            for claim in table.claims if table.cascade is None else ():
                for row in (claim.better, claim.worse, *(claim.than or ())):
                    if row not in names:
                        raise ValueError(f"tables.{number}: claim about {row!r}, which is no row")
        return self

    def chosen(self, wanted: str) -> tuple[str, ...]:
        """Numbers of the tables: ``all`` or one.

        Raises:
            ConfigError: there is no such table.
        """
        if wanted == "all":
            return tuple(self.tables)
        if wanted not in self.tables:
            raise ConfigError(f"tables {wanted!r}: unknown table; expected one of {', '.join(self.tables)} or all")
        return (wanted,)


@dataclass(frozen=True, order=True)
class Cell:
    """One training: a model of the grid, an issue, a seed."""

    model: str
    issue: str
    seed: int

    def __str__(self) -> str:
        return f"{self.issue}-{self.model}-s{self.seed}"


@cache
def shipped_grid() -> Grid:
    """The grid that ships."""
    text = (files("coefvq") / "experiments" / "grid.yaml").read_text(encoding="utf-8")
    return parse_grid(parse_yaml(text, "grid.yaml", "reinstall coefvq"))


def parse_grid(raw: Any) -> Grid:
    """Check an already parsed grid.

    Raises:
        ConfigError: a key does not fit, or a name is not there.
    """
    try:
        # lists of YAML fill tuples
        return TypeAdapter(Grid).validate_python(_tuples(raw))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"grid.yaml: {place}: {first['msg']}; correct the grid") from error


def _tuples(value: Any, inside: str = "") -> Any:
    """Lists as tuples, except in settings, which go back into YAML."""
    if inside in ("settings", "recipes", "presets") or (inside == "issues" and isinstance(value, dict)):
        return value
    if isinstance(value, dict):
        return {key: _tuples(item, str(key)) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def table_issues(table: TableSpec, known: Sequence[str], own: bool) -> tuple[str, ...]:
    """Issues of a table: its own in the synthetic world, those of the data otherwise."""
    return tuple(known) if own else tuple(issue for issue in table.issues if issue in known)


def table_seeds(table: TableSpec, data: DataSpec, asked: int | None) -> range:
    """Seeds of a table: as many as are asked for, else as the grid says."""
    return range(asked or min(data.seeds, table.seeds or data.seeds))


def cells_of(table: TableSpec, issues: Iterable[str], seeds: Iterable[int]) -> tuple[Cell, ...]:
    """All cells whose scores a table shows, each once."""
    models, issues = table.models(), tuple(issues)
    return tuple(Cell(model, issue, seed) for seed in seeds for issue in issues for model in models)
