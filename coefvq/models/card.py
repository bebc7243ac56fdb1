"""The model card that is written beside a saved model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coefvq.models.aligned import read_facts
from coefvq.models.model_config import ROLES, ModelConfig
from coefvq.models.parts import ALIGNED_KEYS, Preset

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier


def model_card(classifier: Classifier) -> str:
    """Markdown with the metadata block of the model hub; figures of quality belong to the report, not here."""
    config = classifier.config
    preset = config.parts
    media = config.media
    total = sum(parameter.numel() for parameter in classifier.network.parameters())
    trained = sum(parameter.numel() for parameter in classifier.network.parameters() if parameter.requires_grad)
    what = "multimodal LLM (second stage)" if config.kind == "mllm" else "base model (first stage)"
    names = " and ".join(f"`{issue}`" for issue in config.issues)
    issues = f"the issue {names}" if len(config.issues) == 1 else f"the issues {names}, a head for each"
    lines = [
        "---",
        "library_name: coefvq",
        "pipeline_tag: video-classification",
        "tags: [video-classification, cascade, coef-vq]",
        "---",
        "",
        f"# {config.issue}: {what}",
        "",
        f"Says whether a short video is positive for {issues}. One half of a pair; its score "
        "means something only together with the thresholds of the pair's policy.",
        "",
        f"- architecture `{config.architecture}`, preset `{config.preset}` ({preset.summary})",
        f"- {total:,} parameters, {trained:,} of them trained; LoRA rank {config.lora_rank}"
        + (", merged" if config.merged else ""),
        f"- sees {media.frames} frames of {media.frame_size} px"
        + (f", hears {media.audio_seconds:g} s" if config.hears else ", no sound")
        + (", reads title and on-screen text" if config.text else ", no text"),
        *([f"- distilled from the MLLM with SHA-256 {config.teacher}"] if config.teacher else []),
        f"- labels: {', '.join(f'{key} = {label}' for key, label in config.id2label.items())}",
        "",
        "## Published parts",
        "",
        *_published(preset, config.architecture),
        *_aligned(preset, config),
        "",
        "## Limits",
        "",
        "Trained on the labels of one platform: measure it on yours before use. Scores are not calibrated by "
        "themselves. A person should look at what it decides before anyone is harmed by it.",
    ]
    return "\n".join(lines) + "\n"


def _aligned(preset: Preset, config: ModelConfig) -> list[str]:
    """What the aligned file saw that the model started from."""
    if (digest := config.aligned) is None:
        return []
    what = "projectors and adapters" if config.kind == "mllm" else "attention layers"
    start = f"- {what}: started from an aligned file (SHA-256 {digest})"
    part = preset.aligned_for(config.kind)
    if part is None or part.sha256 != digest or not part.file.is_file():
        return [start]
    facts = read_facts(part, f"preset {preset.name}: {ALIGNED_KEYS[config.kind]}")
    saw = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(facts["saw"].items()))
    return [f"{start}, trained on descriptions alone; it saw: {saw}"]


def _published(preset: Preset, architecture: str) -> list[str]:
    rows = []
    for role in ROLES[architecture]:
        if (source := preset.weights.get(role)) is not None:
            rows.append(f"- {role}: {source.origin} ({source.licence})")
    return rows or ["- none: all weights started random"]
