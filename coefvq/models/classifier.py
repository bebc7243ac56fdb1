"""One trained classifier = a network, its text encoder, and the description both can be rebuilt from.

On disk it is a folder: config.json, model.safetensors, tokenizer.json, and chat.json where texts stand in a chat
template. Nothing is unpickled. Published weights that were not trained are named by the preset and not copied.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from coefvq.config import Lora, MediaLimits
from coefvq.data.media.limits import kept_limits
from coefvq.errors import ModelError
from coefvq.files import atomic_path, check_regular, write_json
from coefvq.models.assembly import NetworkBuilder, TokenIds, check_frame_size, device
from coefvq.models.backbones import Backbone
from coefvq.models.chat import load_template
from coefvq.models.dataset import Collator
from coefvq.models.heads import probabilities_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import CONFIG_FILE, ModelConfig, read_config
from coefvq.models.precision import DTYPES
from coefvq.models.text import TextEncoder, check_fits, load_text_encoder
from coefvq.models.vocabulary import chats, special_tokens, text_limit, vocabulary_key, vocabulary_size

WEIGHTS_FILE = "model.safetensors"
#: ``no_init_weights`` replaces torch's initialisers for the whole process: one thread at a time builds or loads
_INITIALISING = threading.RLock()


@dataclass(frozen=True)
class Classifier:
    """A network in eval or train mode with everything needed to feed it."""

    config: ModelConfig
    network: nn.Module
    text: TextEncoder | None

    @property
    def collator(self) -> Collator:
        """Turns examples into batches for this network."""
        tokens = self.network.visual_tokens if isinstance(self.network, MultimodalLLM) else 0
        return Collator(
            text=self.text,
            visual_tokens=tokens,
            audio_seconds=self.config.media.audio_seconds if self.config.hears else None,
            use_text=self.config.text,
        )

    @property
    def limits(self) -> MediaLimits:
        """What decoding a clip for this model may cost."""
        return kept_limits(self.config.limits)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The network's logits [B,2] or [B,K,2] -> P(positive) of each issue, float64 [B,K]."""
        return probabilities_of(logits, self.config.issues)

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and tokenizer.json.

        Frozen published weights are not copied: the preset names them, and they are megabytes to
        gigabytes. What was trained (adapter, head, projector, unfrozen towers) is all there.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if self.text is not None:
            self.text.save(folder)
        left_out = published_names(self)
        state = self.network.state_dict()
        tensors = {name: value.detach().contiguous().clone() for name, value in state.items() if name not in left_out}
        with atomic_path(folder / WEIGHTS_FILE) as temporary:
            save_file(tensors, temporary)
        write_json(folder / CONFIG_FILE, self.config.model_dump(exclude_none=True))


def published_names(classifier: Classifier) -> frozenset[str]:
    """Names of the tensors that are as published: parameters that do not train, and buffers of frozen parts."""
    preset = classifier.config.parts
    if classifier.config.merged or not preset.pretrained or preset.local:
        return frozenset()
    network = classifier.network
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    training = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    buffers = {name for name, _ in network.named_buffers() if name.rpartition(".")[0] not in training}
    return frozenset(frozen | buffers)


def build(
    config: ModelConfig,
    text: TextEncoder | None,
    lora_dropout: float = 0.0,
    weights: bool = True,
    mapped: bool = False,
    backbone: Backbone | None = None,
) -> Classifier:
    """A classifier ready to be trained: published weights where the preset has them, else random ones.

    torch's global generator decides the random weights; ``weights`` False leaves all random, ``mapped`` maps published
    ones from their files instead of copying them (for scoring). A published LLaVA-OneVision is read to the GPU at once,
    where there is one; it is the one of ``backbone`` if that is given.

    Raises:
        ModelError: unknown preset, a text encoder is needed and missing, weights cannot be had, or the
            preset's towers see another frame size.
    """
    with _INITIALISING:
        preset = config.parts
        check_frame_size(preset, config.media)
        make = NetworkBuilder(
            preset,
            config.media,
            weights and not config.merged,  # a merged folder holds every weight itself
            mapped,
            DTYPES[config.dtype],
            device(),
            backbone,
        )
        return _built(config, text, lora_dropout, make)


def _built(config: ModelConfig, text: TextEncoder | None, lora_dropout: float, make: NetworkBuilder) -> Classifier:
    if config.architecture == "frames":
        return Classifier(config, make.frames(config.motion, config.freeze_towers), None)
    if text is None:
        raise ModelError(f"{config.kind} model of {config.issue}: {config.architecture} needs a text encoder")
    check_fits(
        text, vocabulary_size(config), f"{config.architecture} of preset {config.preset}", vocabulary_key(config)
    )
    ids = TokenIds(pad=text.pad_id, video=text.video_id)
    targets = config.lora_target_modules
    lora = Lora(rank=config.lora_rank, alpha=config.lora_alpha, dropout=lora_dropout, target_modules=targets)
    if config.architecture == "multitower":
        return Classifier(config, make.multitower(ids, config.motion, config.freeze_towers, lora), text)
    if config.architecture == "attention" and config.attention is not None:
        attending = make.attention(ids, config.attention, config.hears, config.motion, config.freeze_towers, lora)
        return Classifier(config, attending, text)
    if config.architecture == "siglip":
        return Classifier(config, make.siglip(ids, config.hears, config.freeze_towers), text)
    heads = len(config.issues)
    network = make.mllm(ids, lora=lora, fusion=config.fusion, pooling=config.pooling, motion=config.motion, heads=heads)
    return Classifier(config, network, text)


def load(folder: Path, backbone: Backbone | None = None) -> Classifier:
    """Rebuild a classifier from its folder, in eval mode, on the GPU where there is one.

    ``backbone`` is a published LLaVA-OneVision that other models have too.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    from transformers.initialization import no_init_weights

    config, text = read_description(folder)
    # of local weights the folder holds every tensor, since they may not be on this machine
    with _INITIALISING, no_init_weights():  # every tensor comes from a file; missing ones are refused below
        classifier = build(config, text, weights=not config.parts.local, mapped=True, backbone=backbone)
    weights = read_weights(folder)
    try:
        mismatch = classifier.network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise misfit(folder, error) from error
    wrong = [*mismatch.unexpected_keys, *sorted(set(mismatch.missing_keys) - published_names(classifier))]
    if wrong:
        raise ModelError(
            f"{folder / WEIGHTS_FILE}: does not fit config.json ({len(wrong)} tensors, e.g. {wrong[0]}); train it again"
        )
    classifier.network.to(device()).eval()
    return classifier


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a trained model that are not as published.

    Raises:
        ModelError: the file is missing or unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = "train it again"
    check_regular(folder / WEIGHTS_FILE, missing=remedy, remedy=remedy, error=ModelError)
    try:
        return dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, ValueError, SafetensorError) as error:
        raise misfit(folder, error) from error


def misfit(folder: Path, error: Exception) -> ModelError:
    """The refusal of weights that are unreadable or not those of config.json."""
    reason = str(error).splitlines()[-1].strip()  # torch names the tensors below a heading
    return ModelError(f"{folder / WEIGHTS_FILE}: does not fit config.json ({reason}); train it again")


def read_description(folder: Path) -> tuple[ModelConfig, TextEncoder | None]:
    """What a trained model is and how it reads texts, without its weights.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    config = read_config(folder)
    if not config.reads_text:
        return config, None
    text = load_text_encoder(folder, text_limit(config), special_tokens(config))
    return config, replace(text, chat=load_template(folder)) if chats(config) else text
