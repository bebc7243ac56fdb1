"""params.yaml (what is answered) and recipe.yaml (how models are made) as frozen, strict models.

Sections ``media``, ``base`` and ``mllm`` of the recipe hold for all issues. Sections of the same names in params.yaml
hold, for each issue, the keys that differ. ``load_params`` merges them, so that code sees one setting per issue.

A key that is unknown, missing or ill-typed fails with its dotted name, its value, what was expected
and, where one is near, the name that was probably meant. What a run used can be read in the file, which DVC
tracks; the few keys that may be left out are listed with their values in docs/operations.md, held by a test.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from coefvq.errors import ConfigError
from coefvq.files import read_yaml
from coefvq.overrides import merged

PARAMS_FILE = Path("params.yaml")
RECIPE_FILE = Path("recipe.yaml")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Percent = Annotated[float, Field(gt=0.0, lt=100.0)]
Positive = Annotated[float, Field(gt=0.0)]
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


_Model = TypeVar("_Model", bound=BaseModel)


class _Section(BaseModel):
    # YAML has .inf and .nan: a limit that is not finite passes or fails everything without a word
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Paths(_Section):
    """Where stages read and write, relative to the workspace."""

    raw: str
    media: str | None
    manifest: str
    splits: str
    reference: str
    models: str
    reports: str

    def model_dir(self, kind: Literal["base", "mllm"], issue: str) -> Path:
        """Folder of one trained model."""
        return Path(self.models) / issue / kind

    def report(self, issue: str, name: str) -> Path:
        """One report file of an issue."""
        return Path(self.reports) / issue / name


class LabelSource(_Section):
    """Column of the imported table that holds an issue's label, and which values mean positive."""

    column: str
    positive: tuple[str, ...] | None


class Runtime(_Section):
    """Settings that change speed and nothing else; no DVC stage depends on them.

    Checkpoints of a training: ``save_steps`` are those between the ends of epochs, ``resume_from`` is a folder of
    them in another place than the cache.
    ``features`` says whether outputs of frozen towers are kept (``auto``: where it pays), ``features_gib`` how
    much disk they may take.
    """

    workers: Count
    engine: Literal["local", "ray"]
    save_steps: Count | None
    save_total_limit: Count
    resume_from: str | None
    features: Literal["auto", "on", "off"]
    features_gib: Positive


class Loading(_Section):
    """How rows come to the models.

    Clips that no longer decode after ingest are skipped and named; a share above ``max_bad_share`` stops the run.
    ``group_by_length`` puts rows of like length into one training batch.
    """

    max_bad_share: Fraction
    group_by_length: bool


class MediaLimits(_Section):
    """What one clip may cost; a clip above a limit is a rejected row, not an error of the run.

    ``megapixels`` is width times height of one frame, ``frames`` the number of packets walked.
    The last three bound a worker process: address space, CPU time and elapsed time per clip.
    """

    megabytes: Positive
    seconds: Positive
    megapixels: Positive
    streams: Count
    frames: Count
    worker_mib: Count
    cpu_seconds: Count
    wall_seconds: Positive


class Ingest(_Section):
    """Import and probing of the raw clips."""

    format: Literal["auto", "videofolder", "csv", "jsonl", "parquet"]
    protocols: tuple[str, ...]
    limits: MediaLimits
    labels: dict[IssueName, LabelSource]


class Validate(_Section):
    """Expectations the manifest must meet."""

    min_rows: Count
    min_decodable: Fraction
    max_title_chars: Count
    prevalence: dict[IssueName, tuple[Fraction, Fraction]]
    max_psi: Positive | None


class Fractions(_Section):
    """Share of each split; they add up to 1."""

    train: Fraction
    val: Fraction
    test: Fraction
    traffic: Fraction

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test + self.traffic
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + val + test + traffic must be 1, got {total:g}")
        return self


class Negatives(_Section):
    """Share of the videos without any positive label that a split keeps, drawn after traffic."""

    train: KeptShare
    val: KeptShare
    test: KeptShare


class Split(_Section):
    """Grouped, stratified splitting."""

    fractions: Fractions
    order: Literal["random", "time"]
    near_duplicates: Annotated[int, Field(ge=0, le=128)] | None
    negatives: Negatives
    group_by: tuple[Literal["source_id", "creator_id", "sha256"], ...]


class MediaSpec(_Section):
    """What the decoder hands to the models."""

    frames: Count
    frame_size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)]
    audio_seconds: Annotated[float, Field(gt=0.0, le=30.0)]


class Training(_Section):
    """Names and meanings of transformers.TrainingArguments, where it has them.

    Ours are the loss (``loss``, ``focal_gamma``, ``positive_weight``), the rates of parts (null: ``learning_rate``)
    and ``bf16: auto``, which is on where the hardware multiplies it natively.
    """

    num_train_epochs: Positive
    per_device_train_batch_size: Count
    gradient_accumulation_steps: Count
    activation_checkpointing: bool
    learning_rate: Positive
    head_learning_rate: Positive | None
    projector_learning_rate: Positive | None
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: Annotated[float, Field(ge=0.0)]  # 0: no clipping
    warmup_steps: Annotated[float, Field(ge=0.0)]  # below 1: a share of all steps
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    loss: Literal["cross_entropy", "focal", "logit_adjusted"]
    focal_gamma: Annotated[float, Field(ge=0.0)]
    positive_weight: Positive
    metric_for_best_model: Annotated[str, Field(pattern=r"^(loss|average_precision|roc_auc|f1|r_at_p[1-9]\d?)$")]
    early_stopping_patience: Count | None
    bf16: bool | Literal["auto"]
    nproc_per_node: Count
    deepspeed: Literal["zero2", "zero2_offload"] | None


class BaseModelParams(_Section):
    """The first stage of the cascade."""

    preset: PresetName
    architecture: Literal["frames", "multitower", "siglip"]
    audio: bool
    motion: bool
    freeze_towers: bool
    training: Training


class Lora(_Section):
    """LoRA on every linear layer of the language model; rank 0 leaves it frozen (paper, Table 4)."""

    rank: Annotated[int, Field(ge=0)]
    alpha: Annotated[int, Field(ge=0)]
    dropout: Fraction


class Alignment(_Section):
    """Training on descriptions before fine-tuning: projectors alone, then the whole network.

    Set either number of epochs to 0 to skip that step. ``objective`` of the second: a language-model loss on
    ``sentences``, or all ``words`` at H. Where no clip has a description both are skipped, and the stage says so.
    """

    projector_epochs: Annotated[int, Field(ge=0)] = 0
    objective: Literal["sentences", "words"] = "sentences"
    epochs: Annotated[int, Field(ge=0)]
    per_device_train_batch_size: Count
    learning_rate: Positive
    max_tokens: Count  # of a description


class MLLMParams(_Section):
    """The second stage of the cascade."""

    preset: PresetName
    fusion: Literal["late", "early", "none"]
    pooling: Literal["last", "mean"] = "last"
    text: bool
    audio: bool
    motion: bool
    lora: Lora
    alignment: Alignment | None = None  # None: no alignment
    description_weight: Annotated[float, Field(ge=0)] = 0.0  # of the descriptions' words, beside the labels
    training: Training


class Models(_Section):
    """Where the parts of models are described: ``presets`` is a file of your own, beside those that ship."""

    presets: str


class Recipe(_Section):
    """The whole of recipe.yaml: how the models of all issues are made."""

    models: Models
    media: MediaSpec
    base: BaseModelParams
    mllm: MLLMParams


class Approximate(_Section):
    """Savings that change the MLLM's scores; each is off by default."""

    int8: bool
    frames: Count | None
    pool_tokens: Count
    audio_seconds: Positive | None


class Scoring(_Section):
    """How a model is computed, kept with a released pair; ``savings`` are exact to rounding."""

    dtype: Precision
    savings: Literal["exact", "none"]
    approximate: Approximate


class Predict(Scoring):
    """Scoring of the validation, test and traffic splits."""

    batch_size: Count


class Evaluate(_Section):
    """Which R@P figures to report, P in percent; slices of test; the bootstrap behind the intervals."""

    precision_targets: tuple[Percent, ...]
    slices: tuple[str, ...] = ("language", "duration", "has_audio", "views", "creator_size")
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    group_by: str | None = "creator_id"


class PriceList(_Section):
    """Of one MLLM call, one false positive, one missed positive, in one unit."""

    call: Annotated[float, Field(ge=0.0)]
    false_positive: Annotated[float, Field(ge=0.0)]
    miss: Annotated[float, Field(ge=0.0)]


class Thresholds(_Section):
    """P_base in percent; ``max_f1_loss`` is what a cheaper base threshold may cost on validation.

    Mode ``qps``: at most ``max_qps_ratio`` percent of the traffic reach the MLLM, and the cheapest of base alone,
    cascade and MLLM on all is taken that keeps ``min_kept_f1`` (a share) of the MLLM's F1. ``budget``,
    ``recall_floor`` and ``cost`` search all pairs of thresholds for what they name: ``precision`` and
    ``max_qps_ratio`` in percent, ``max_recall_loss`` a share, ``prices`` for ``cost``. ``mllm_down`` says what an
    escalated video is while the MLLM does not answer (``CascadePolicy``); it changes no figure.
    """

    p_base: tuple[Percent, ...] = ()
    max_f1_loss: Fraction | None = None
    views_trigger: Annotated[int, Field(ge=0)] | None
    mode: Literal["paper", "qps", "budget", "cost", "recall_floor"] = "paper"
    min_kept_f1: KeptShare | None = None
    precision: Percent | None = None
    max_qps_ratio: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    max_recall_loss: Fraction | None = None
    prices: PriceList | None = None
    accept_threshold: Fraction | None = None
    mllm_down: Literal["hold", "base_only", "ignore"] = "hold"

    @model_validator(mode="after")
    def _mode_has_its_settings(self) -> Self:
        needed = {
            "paper": ("p_base", "max_f1_loss"),
            "qps": ("max_qps_ratio", "min_kept_f1"),
            "budget": ("precision", "max_qps_ratio"),
            "cost": ("prices",),
            "recall_floor": ("precision", "max_recall_loss"),
        }[self.mode]
        # P_base rows may stand beside any mode's own, for comparison
        allowed = {*needed, "p_base", "max_f1_loss"}
        allowed |= {"accept_threshold"} if self.mode in ("budget", "cost", "recall_floor") else set()
        allowed |= {"max_qps_ratio"} if self.mode == "cost" else set()
        settings = ("precision", "max_qps_ratio", "max_recall_loss", "prices", "accept_threshold")
        for name in (*settings, "min_kept_f1", "p_base", "max_f1_loss"):
            given = getattr(self, name) not in (None, ())
            if name in needed and not given:
                raise ValueError(f"mode {self.mode} needs {name}")
            if given and name not in allowed:
                raise ValueError(f"{name} plays no part in mode {self.mode}; remove it")
        return self


class Stability(_Section):
    """How many videos next to a threshold are scored again in other ways."""

    videos_per_threshold: Annotated[int, Field(ge=1)]


class Gate(_Section):
    """Conditions before a person is asked to approve."""

    min_average_precision_gain: float
    max_qps_ratio: Annotated[float, Field(gt=0.0, le=100.0)]
    min_kept_f1: Fraction = 0.97  # share of the MLLM's F1 on test that the policy keeps
    min_f1_over_base: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0  # the policy's F1 minus the base model's, on test
    max_f1_drop: Fraction
    max_flip_rate: Fraction


class Tracking(_Section):
    """MLflow store and experiment."""

    uri: str | None
    experiment: str


class Params(_Section):
    """The whole of params.yaml, with the recipe's settings filled in for each issue."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    issues: Annotated[tuple[IssueName, ...], Field(min_length=1)]
    paths: Paths
    runtime: Runtime
    ingest: Ingest
    validate_: Annotated[Validate, Field(alias="validate")]
    split: Split
    models: Models
    media: dict[IssueName, MediaSpec]
    base: dict[IssueName, BaseModelParams]
    mllm: dict[IssueName, MLLMParams]
    loading: Loading
    predict: Predict
    evaluate: Evaluate
    thresholds: dict[IssueName, Thresholds]
    stability: Stability
    gate: Gate
    tracking: Tracking

    @model_validator(mode="after")
    def _each_issue_is_configured(self) -> Self:
        sections: dict[str, dict[str, Any]] = {
            "ingest.labels": dict(self.ingest.labels),
            "validate.prevalence": dict(self.validate_.prevalence),
            "media": dict(self.media),
            "base": dict(self.base),
            "mllm": dict(self.mllm),
            "thresholds": dict(self.thresholds),
        }
        _check_distinct(self.issues)
        for issue in self.issues:
            for name, section in sections.items():
                if issue not in section:
                    raise ValueError(f"issue '{issue}' is listed in issues but {name}.{issue} is missing")
        return self

    def check_issue(self, issue: str) -> str:
        """Return ``issue`` if it is configured.

        Raises:
            ConfigError: it is not one of ``issues``.
        """
        if issue not in self.issues:
            raise ConfigError(f"--issue {issue}: expected one of {', '.join(self.issues)} (issues in params.yaml)")
        return issue


def check_issue_names(option: str, names: Sequence[str]) -> list[str]:
    """Names given on the command line, by the rule that ``issues`` in params.yaml is held to.

    Raises:
        ConfigError: one is no name of an issue, or comes twice.
    """
    for name in names:
        try:
            check_issue_name(name)
        except ValueError as error:
            raise ConfigError(f"{option} {name!r}: expected {error}") from error
    try:
        _check_distinct(names)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    return list(names)


def _check_distinct(issues: Sequence[str]) -> None:
    twice = next((name for name in issues if issues.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"issue '{twice}' comes twice; name each issue once")


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file and the recipe beside it.

    Raises:
        ConfigError: a file is missing, is not YAML, or a key does not fit.
    """
    raw = read_mapping(path)
    recipe = path.with_name(RECIPE_FILE.name)
    if not recipe.is_file():
        check_form(raw, path)
    return parse_params(raw, load_recipe(recipe), str(path))


def check_form(raw: dict[str, Any], path: Path) -> None:
    """Refuse a params file of the form that was used before there were recipes.

    Raises:
        ConfigError: it holds whole models; the message says how to convert.
    """
    base = raw.get("base")
    if isinstance(base, dict) and any(isinstance(part, dict) and "preset" in part for part in base.values()):
        raise ConfigError(
            f"{path}: written before there was a {RECIPE_FILE}; run `coefvq init --upgrade` in the workspace"
        )


def load_recipe(path: Path = RECIPE_FILE) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key does not fit.
    """
    return parse_recipe(read_mapping(path), str(path))


def parse_recipe(raw: dict[str, Any], source: str) -> Recipe:
    """Check an already parsed recipe; ``source`` is named in errors.

    Raises:
        ConfigError: a key does not fit.
    """
    return _validated(Recipe, raw, source)


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file of named sections.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds no mapping.
    """
    raw = read_yaml(
        path,
        missing="run inside a workspace (coefvq init makes or completes one)",
        remedy="check indentation and quotes",
    )
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(raw).__name__}")
    return raw


def parse_params(raw: dict[str, Any], recipe: Recipe, source: str = "params.yaml") -> Params:
    """Check an already parsed params file, with the recipe filled in; ``source`` is named in errors.

    Raises:
        ConfigError: a key does not fit.
    """
    if "models" in raw:
        raise ConfigError(f"{source}: models: belongs in {RECIPE_FILE.name}; move it there")
    filled = {**raw, "models": recipe.models.model_dump(mode="json")}
    for name in ("media", "base", "mllm"):
        settings, section = getattr(recipe, name).model_dump(mode="json"), raw.get(name)
        if isinstance(section, dict):
            filled[name] = {
                issue: merged(settings, changes) if isinstance(changes, dict) else changes
                for issue, changes in section.items()
            }
    return _validated(Params, filled, source)


def _validated(model: type[_Model], raw: dict[str, Any], source: str) -> _Model:
    try:
        # JSON mode: strict types, yet YAML lists may fill tuples
        return model.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        reasons = [_explain(item, model) for item in error.errors()[:3]]
        raise ConfigError(f"{source}: " + "; ".join(reasons)) from error


def _explain(item: Any, model: type[BaseModel]) -> str:
    path = [part for part in item["loc"] if part != "[key]"]
    key = ".".join(str(part) for part in path) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggestion(path, model)}"
    if item["type"] == "missing":
        return f"{key}: missing key; add it (`coefvq init` in an empty folder shows a value)"
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}"
    value = json.dumps(item["input"], default=str)
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{key} = {value}: expected {_expected(item)}"


def _expected(item: Any) -> str:
    text = str(item["msg"]).replace("Input should be ", "").strip()
    return text[0].lower() + text[1:]


def _suggestion(path: list[Any], model: type[BaseModel]) -> str:
    names = _known_keys(path[:-1], model)
    near = difflib.get_close_matches(str(path[-1]), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known here: {', '.join(sorted(names))}" if names else "; remove it"


def _known_keys(parents: list[Any], model: type[BaseModel]) -> list[str]:
    """Field names of the section at ``parents``, walked through the schema rather than retyped."""
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    for part in parents:
        child = node.get("properties", {}).get(part) or node.get("additionalProperties") or _first(node, part)
        if not isinstance(child, dict):
            return []
        child = next((choice for choice in child.get("anyOf", ()) if "$ref" in choice), child)  # may be null
        node = schema["$defs"][child["$ref"].split("/")[-1]] if "$ref" in child else child
    return list(node.get("properties", {}))


def _first(node: dict[str, Any], key: Any) -> dict[str, Any] | None:
    patterns: dict[str, Any] = node.get("patternProperties", {})
    return next(iter(patterns.values()), None)
