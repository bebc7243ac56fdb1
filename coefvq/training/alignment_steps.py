"""Both steps of the alignment on descriptions: projectors towards words, then the whole network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from coefvq.config import Alignment
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.text import TextEncoder
from coefvq.training.noise import FeatureNoise, noisy_features
from coefvq.training.warmup import Inputs, description_vocabulary, warm_up
from coefvq.training.word_alignment import align_projectors, description_words, teach_state

#: called with the step, ``projectors`` or ``warmup``, and its row (epoch, loss)
StepReport = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True)
class AlignmentSteps:
    """The alignment of one network on its descriptions; equal values give equal weights.

    ``descriptions[i]`` are those of row i of ``inputs``; ``bf16`` is that of ``warm_up``.
    """

    network: MultimodalLLM
    text: TextEncoder
    inputs: Inputs
    descriptions: Sequence[tuple[str, ...]]
    settings: Alignment
    seed: int
    bf16: bool
    noise: FeatureNoise

    def run(self, report: StepReport) -> list[dict[str, float]]:
        """Train in place; the curve of the second step.

        Raises:
            DataError: no row has a description.
            ModelError: nothing of the network can train, or a loss is not finite.
        """
        with noisy_features(self.network, self.noise):
            return self._run(report)

    def _run(self, report: StepReport) -> list[dict[str, float]]:
        network, text, settings = self.network, self.text, self.settings
        rate, size = settings.learning_rate, settings.per_device_train_batch_size
        words = description_words(text, self.descriptions)
        on_epoch = partial(report, "projectors")
        align_projectors(network, self.inputs, words, settings.projector_epochs, rate, self.seed, on_epoch)
        if not settings.epochs:
            return []
        on_epoch = partial(report, "warmup")
        if settings.objective == "words":
            return teach_state(network, self.inputs, words, settings.epochs, size, rate, self.seed, on_epoch, self.bf16)
        vocabulary = description_vocabulary(network, text, self.inputs, self.descriptions, settings.max_tokens)
        return warm_up(
            network, text, self.inputs, self.descriptions, vocabulary, settings, self.seed, on_epoch, self.bf16
        )
