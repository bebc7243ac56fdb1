"""Sections about models: what they see, what they are made of, how they are trained; together a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from coefvq.config.values import Count, Fraction, IssueName, Positive, PresetName, Rate, Section
from coefvq.extensions import LOSSES, registered

#: a key that is not written where it is null, so that a training from before there was the key keeps its name
_LEFT_OUT = Field(exclude_if=lambda value: value is None)


class MediaSpec(Section):
    """What the decoder hands to the models."""

    frames: Count
    frame_size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)]
    audio_seconds: Annotated[float, Field(gt=0.0, le=30.0)]


#: losses that ship; others come from packages (docs/extend.md)
LOSS_NAMES = ("cross_entropy", "focal", "logit_adjusted")


def _check_loss(name: str) -> str:
    if name in LOSS_NAMES or name in (others := registered(LOSSES)):
        return name
    words = {"words": ", ".join((*LOSS_NAMES, *others)), "group": LOSSES}
    raise PydanticCustomError("loss", "one of {words}, or a name that a package registers in {group}", words)


LossName = Annotated[str, AfterValidator(_check_loss), Field(json_schema_extra={"enum": list(LOSS_NAMES)})]


class Training(Section):
    """Names and meanings of transformers.TrainingArguments, where it has them.

    The batch size is per process. A batch's mean counts alike among ``gradient_accumulation_steps``. ``warmup_steps``
    below 1 is a share of all steps. ``activation_checkpointing`` takes less memory and more time.

    Ours: ``loss`` is ``cross_entropy``, ``focal`` (Lin et al. 2017) or ``logit_adjusted`` (Menon et al. 2021),
    ``positive_weight`` the positive class's weight in each of them. ``head_learning_rate`` (the head and the norm
    before it) and ``projector_learning_rate`` default to ``learning_rate`` where null; what has the rate 0 stays as it
    starts: with ``learning_rate: 0`` adapters and unfrozen towers do. ``average_weights`` is the
    last part of the steps whose weights are averaged, as 0.5: validation sees the mean from then on, and the mean is
    kept. ``bf16: auto`` is on where the hardware has it (CUDA, AMX, AVX-512 BF16).
    """

    num_train_epochs: Positive
    per_device_train_batch_size: Count
    gradient_accumulation_steps: Count
    activation_checkpointing: bool
    learning_rate: Rate
    head_learning_rate: Positive | None
    projector_learning_rate: Rate | None
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: Annotated[float, Field(ge=0.0)]  # 0: no clipping
    warmup_steps: Annotated[float, Field(ge=0.0)]  # below 1: a share of all steps
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    loss: LossName
    focal_gamma: Annotated[float, Field(ge=0.0)]
    positive_weight: Positive
    metric_for_best_model: Annotated[str, Field(pattern=r"^(loss|average_precision|roc_auc|f1|r_at_p[1-9]\d?)$")]
    early_stopping_patience: Count | None
    average_weights: Fraction = 0.0  # last part of the steps whose weights are averaged; 0: off
    bf16: bool | Literal["auto"]
    nproc_per_node: Count
    deepspeed: Literal["zero2", "zero2_offload"] | None

    @model_validator(mode="after")
    def _the_head_trains(self) -> Self:
        if not self.learning_rate and self.head_learning_rate is None:
            raise ValueError("learning_rate = 0: head_learning_rate must be above 0, or nothing trains")
        return self

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate of the ``head``, of the ``projector`` and of the ``rest``."""
        rest, head, projector = self.learning_rate, self.head_learning_rate, self.projector_learning_rate
        return {
            "head": rest if head is None else head,
            "projector": rest if projector is None else projector,
            "rest": rest,
        }


class AttentionLayers(Section):
    """Pre-norm transformer layers over a video's vectors: one of each image, of the text, of the sound.

    ``feature_noise`` is added to the vectors in training, in standard deviations of each of their numbers. ``members``
    such networks learn by themselves, and the score is their mean.
    """

    width: Count
    heads: Count
    layers: Count
    dropout: Fraction
    feature_noise: Annotated[float, Field(ge=0.0)]
    members: Annotated[int, Field(ge=1, le=16)] = 1

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width}: expected a multiple of heads ({self.heads})")
        return self


class Distil(Section):
    """The MLLM's logits as a second target of the base model, on train and on the split ``unlabelled``.

    ``unlabelled: null`` leaves train alone. ``weight`` is that of the squared error beside the labels' loss. With
    ``logged``, a table of `coefvq vmp scores`, the unlabelled videos are those in it, with the scores and the
    propensities that a stream has logged.
    """

    unlabelled: Literal["unlabelled"] | None
    weight: Positive
    logged: Annotated[str | None, _LEFT_OUT] = None

    @model_validator(mode="after")
    def _logged_scores_are_of_unlabelled_videos(self) -> Self:
        if self.logged is not None and self.unlabelled is None:
            raise ValueError("logged: the scores are of videos of split 'unlabelled'; set unlabelled: unlabelled")
        return self


class Lora(Section):
    """LoRA on every linear layer of a language model or text tower; rank 0 leaves it frozen (paper, Table 4).

    ``target_modules`` names the layers instead, by the last part of their names.
    """

    rank: Annotated[int, Field(ge=0)]
    alpha: Annotated[int, Field(ge=0)]
    dropout: Fraction
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None  # null: every linear layer


class BaseModelParams(Section):
    """The first stage of the cascade; ``attention`` and ``aligned`` are read where the architecture is attention.

    ``text_lora`` lets adapters of the text tower train where all towers are frozen otherwise.
    """

    preset: PresetName
    architecture: Literal["frames", "multitower", "siglip", "attention"]
    audio: bool
    motion: bool
    freeze_towers: bool
    text_lora: Annotated[Lora | None, _LEFT_OUT] = None
    attention: AttentionLayers | None = None
    aligned: bool = False  # whether it starts from the preset's aligned_base file
    distil: Distil | None = None  # None: labels alone
    training: Training

    @model_validator(mode="after")
    def _attention_has_its_sizes(self) -> Self:
        if self.architecture == "attention" and self.attention is None:
            raise ValueError(
                "architecture attention needs attention: {width, heads, layers, dropout, feature_noise}; "
                "recipe starter shows values"
            )
        return self

    @model_validator(mode="after")
    def _adapters_have_a_frozen_text_tower(self) -> Self:
        if self.text_lora is not None and self.architecture not in ("multitower", "attention"):
            raise ValueError(f"text_lora: architecture {self.architecture} has no text tower; set text_lora: null")
        if self.text_lora is not None and not self.freeze_towers:
            raise ValueError("text_lora: the whole text tower trains already; set freeze_towers: true")
        return self


class Alignment(Section):
    """Training on descriptions before fine-tuning: projectors alone, then the whole network.

    Step 1 (``projector_epochs``) trains the projectors only: a clip's mean visual token and its sound token learn to
    point at the embeddings of its description's words; the decoder does not run. Step 2 (``epochs``) trains the
    adapters too, by ``objective``: a language-model loss on ``sentences``, or the set of ``words`` predicted from H
    with a linear map that is dropped later. Set either number of epochs to 0 to skip that step. Where no clip has a
    description both are skipped, and the stage says so. Longer descriptions are cut at ``max_tokens``.
    """

    projector_epochs: Annotated[int, Field(ge=0)] = 0
    objective: Literal["sentences", "words"] = "sentences"
    epochs: Annotated[int, Field(ge=0)]
    per_device_train_batch_size: Count
    learning_rate: Positive
    max_tokens: Count  # of a description


class MLLMParams(Section):
    """The second stage of the cascade.

    The issues that ``shared`` lists have one MLLM with a head for each, in that order. An issue that is not in the
    list has an MLLM of its own.
    """

    preset: PresetName
    shared: Annotated[tuple[IssueName, ...], Field(min_length=2)] | None = None
    fusion: Literal["late", "early", "none"]
    pooling: Literal["last", "mean"] = "last"
    text: bool
    audio: bool
    motion: bool
    lora: Lora
    aligned: bool = False  # whether it starts from the preset's aligned file
    alignment: Alignment | None = None  # None: no alignment
    description_weight: Annotated[float, Field(ge=0)] = 0.0  # of the descriptions' words, beside the labels
    feature_noise: Annotated[float, Field(ge=0)] = 0.0  # on what the projector reads, in standard deviations
    feature_dropout: Fraction = 0.0  # share of these numbers set to 0
    training: Training

    @model_validator(mode="after")
    def _a_disturbed_projector_trains(self) -> Self:
        if (self.feature_noise or self.feature_dropout) and self.training.rates["projector"] == 0:
            raise ValueError("feature_noise and feature_dropout are for a projector that trains: set both to 0.0")
        return self

    def issues_with(self, issue: str) -> tuple[str, ...]:
        """The issues whose heads the MLLM of ``issue`` has, in the order of the heads."""
        return self.shared if self.shared is not None and issue in self.shared else (issue,)


class Models(Section):
    """Where the parts of models are described: ``presets`` is a file of your own, beside those that ship."""

    presets: str


class Recipe(Section):
    """The whole of recipe.yaml: how the models of all issues are made."""

    models: Models
    media: MediaSpec
    base: BaseModelParams
    mllm: MLLMParams
