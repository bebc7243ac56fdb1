"""A card that is full: batches are halved; what then does not fit is an answer that the policy knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from coefvq.errors import MLLMUnavailableError, ModelError
from coefvq.inference import score_dataset
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import VideoDataset
from coefvq.models.model_config import ModelConfig
from coefvq.models.text import train_text_encoder
from tests.reliability.training_child import MEDIA, WORDS, rows

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def made(kind: str) -> Classifier:
    torch.manual_seed(4)
    if kind == "base":
        return build(ModelConfig(issues=("icd",), kind="base", preset="tiny", architecture="frames", media=MEDIA), None)
    config = ModelConfig(
        issues=("icd",), kind="mllm", preset="tiny", architecture="mllm", media=MEDIA, text=True, lora_rank=2,
        lora_alpha=4,
    )  # fmt: skip
    return build(config, train_text_encoder(WORDS, 512, 16))


def unlabelled(count: int) -> VideoDataset:
    plain = rows(0, count)
    return VideoDataset(plain._videos, plain._store)


def limited(classifier: Classifier, room: int, error: Exception = FULL) -> list[int]:
    """A card with room for so many videos; the list grows by the size of each batch that is tried."""
    tried: list[int] = []

    def measure(_: Any, __: Any, given: dict[str, torch.Tensor]) -> None:
        tried.append(len(given["pixel_values"]))
        if tried[-1] > room:
            raise error

    classifier.network.register_forward_pre_hook(measure, with_kwargs=True)
    return tried


@pytest.mark.parametrize("kind", ["base", "mllm"])
def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(kind: str) -> None:
    data, classifier = unlabelled(12), made(kind)
    expected = score_dataset(classifier, data, classifier.collator, batch_size=8)
    tried = limited(classifier, 2)
    assert score_dataset(classifier, data, classifier.collator, batch_size=8) == pytest.approx(expected, abs=1e-6)
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("error", [FULL, torch.AcceleratorError("CUDA error: unspecified launch failure")])
def test_an_mllm_without_a_card_is_unavailable(error: Exception) -> None:
    classifier = made("mllm")
    limited(classifier, 0, error)
    failed: list[int] = []
    with pytest.raises(MLLMUnavailableError, match=r"mllm model of icd: .*free the card"):
        score_dataset(classifier, unlabelled(3), classifier.collator, failed=lambda at, _: failed.append(at))
    assert failed == []  # no row is an error of its own: the policy decides about all of them


def test_a_base_model_without_room_gives_error_rows_and_ends_a_run_that_takes_none() -> None:
    classifier, errors = made("base"), dict[int, Exception]()
    limited(classifier, 0)
    scores = score_dataset(classifier, unlabelled(3), classifier.collator, failed=errors.__setitem__)
    assert np.isnan(scores).all()
    assert sorted(errors) == [0, 1, 2]
    with pytest.raises(ModelError, match="base model of icd: one video needs more memory") as caught:
        score_dataset(classifier, unlabelled(3), classifier.collator)
    assert not isinstance(caught.value, MLLMUnavailableError)
