"""Distilling: the loss against NumPy, which rows have which loss, and what the student becomes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coefvq.errors import DataError
from coefvq.models.attention_base import AttentionClassifier, AttentionHead, AttentionLayer, VectorTokens
from coefvq.models.dataset import VideoDataset
from coefvq.models.heads import MISSING_LABEL
from coefvq.models.vision import motion_count
from coefvq.training.distilling import Lesson, WithTeacher, standardise, teacher_logits, teacher_loss
from coefvq.training.loop import FitData, FitPlan, fit, seed_everything
from coefvq.training.losses import ClassificationLoss, LossSpec
from coefvq.training.objective import WithLoss
from tests.settings import training_settings
from tests.unit.frozen_models import MEDIA, frozen_model, stored_clips


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(0, 1) | st.none()), min_size=1, max_size=9))
def test_the_loss_is_the_mean_squared_error_where_the_teacher_speaks(rows: list[tuple[float, float, Any]]) -> None:
    negative, positive = (np.array([row[k] for row in rows]) for k in (0, 1))
    score = np.array([np.nan if row[2] is None else row[2] for row in rows])
    taught = teacher_logits(score)
    known = ~np.isnan(score)
    assert (np.isnan(taught) == ~known).all()
    assert (np.abs(taught[known]) <= 9.2103).all()
    inside = known & (score > 1e-4) & (score < 1 - 1e-4)
    np.testing.assert_allclose(taught[inside], np.log(score[inside] / (1 - score[inside])), atol=1e-9)
    expected = np.mean((positive - negative - taught)[known] ** 2) if known.any() else 0.0
    logits, teacher = torch.tensor(np.stack([negative, positive], 1)), torch.tensor(taught)
    loss = teacher_loss(logits, teacher, torch.ones(len(rows)))
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5, atol=1e-5)
    # a row of weight 2 counts as it would twice, beside the same number of rows
    weights = torch.arange(1.0, len(rows) + 1.0)
    errors = np.nan_to_num(positive - negative - taught) ** 2 * known * weights.numpy()
    weighed = errors.sum() / max(known.sum(), 1)
    np.testing.assert_allclose(float(teacher_loss(logits, teacher, weights)), weighed, rtol=1e-5, atol=1e-5)


def test_a_teacher_that_gives_no_probabilities_is_refused() -> None:
    with pytest.raises(DataError, match="teacher: a score is no probability; run the stage teach again"):
        teacher_logits([0.2, 1.5])


class Linear(torch.nn.Module):
    """Logits from a number per row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -0.25]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, None] * self.weight


def objective(logits: list[float], weight: float = 0.5) -> WithTeacher:
    labelled = WithLoss(Linear(), ClassificationLoss(LossSpec(), torch.full((1, 2), 0.5)))
    return WithTeacher(labelled, Lesson(torch.tensor(logits), weight))


def gradient(model: WithTeacher, labels: list[int], rows: list[int]) -> torch.Tensor:
    model.zero_grad()
    x = torch.tensor([1.0, -2.0, 0.5])[rows]
    model(torch.tensor(labels), torch.tensor(rows), x=x)["loss"].backward()
    found = model.labelled.network.weight.grad
    assert isinstance(found, torch.Tensor)
    return found.clone()


def test_an_unlabelled_row_learns_from_the_teacher_alone() -> None:
    model = objective([2.0, -1.0, float("nan")]).train()
    # d/dw of 0.5 (x (w1 - w0) - t)², x = 1, w1 - w0 = -0.75, t = 2
    expected = 0.5 * 2 * (-0.75 - 2.0) * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(gradient(model, [MISSING_LABEL], [0]), expected)
    # a row the teacher does not know has its label alone, and one that nobody knows nothing
    alone = objective([float("nan")] * 3).train()
    torch.testing.assert_close(gradient(model, [1], [2]), gradient(alone, [1], [2]))
    assert not gradient(model, [MISSING_LABEL], [2]).any()
    assert gradient(model, [0], [0]).ne(gradient(alone, [0], [0])).any()


def test_rows_weigh_as_they_are_told() -> None:
    labelled = WithLoss(Linear(), ClassificationLoss(LossSpec(), torch.full((1, 2), 0.5)))
    heavy = WithTeacher(labelled, Lesson(torch.tensor([2.0, -1.0, 0.0]), 0.5, torch.tensor([3.0, 1.0, 1.0]))).train()
    plain = WithTeacher(labelled, Lesson(torch.tensor([2.0, -1.0, 0.0]), 0.5)).train()
    torch.testing.assert_close(gradient(heavy, [MISSING_LABEL], [0]), 3.0 * gradient(plain, [MISSING_LABEL], [0]))
    assert torch.equal(gradient(heavy, [MISSING_LABEL], [1]), gradient(plain, [MISSING_LABEL], [1]))


def test_validation_knows_labels_only() -> None:
    first, second = objective([5.0, 5.0, 5.0]).eval(), objective([-5.0, -5.0, -5.0]).eval()
    x = torch.tensor([1.0, -2.0, 0.5])
    labels, rows = torch.tensor([0, 1, 1]), torch.arange(3)
    assert torch.equal(first(labels, rows, x=x)["loss"], second(labels, rows, x=x)["loss"])


def student(tmp_path: Path, lesson: Lesson | None, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a base becomes on 8 labelled and 4 unlabelled clips, judged on 4 others."""
    videos, store = stored_clips(tmp_path / "clips", 16)
    labels = [0, 1] * 4 + [MISSING_LABEL] * 4
    seed_everything(seed)
    made = frozen_model("attention")
    params = training_settings(num_train_epochs=2.0, learning_rate=0.01)
    fit(
        made,
        FitData(
            VideoDataset(videos[:12], store, labels), VideoDataset(videos[12:], store, [0, 1, 0, 1]), lesson=lesson
        ),
        FitPlan(params, seed),
    )
    return {name: value.clone() for name, value in made.network.state_dict().items()}


def lesson(sign: float) -> Lesson:
    return Lesson(sign * torch.linspace(-4.0, 4.0, 12), 1.0)


def test_same_seed_same_weights_and_another_teacher_other_weights(tmp_path: Path) -> None:
    first, again = student(tmp_path, lesson(1.0)), student(tmp_path, lesson(1.0))
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in (student(tmp_path, lesson(-1.0)), student(tmp_path, None)):
        changed = {name.split(".")[2] for name in first if not torch.equal(first[name], other[name])}
        assert changed == {"tokens", "query", "layers", "norm", "out", "bias"}


def test_the_vectors_of_the_training_videos_are_standardised(tmp_path: Path) -> None:
    videos, store = stored_clips(tmp_path, 9)
    made = frozen_model("attention", members=2)
    network = made.network
    assert isinstance(network, AttentionClassifier)
    rows = VideoDataset(videos, store, [0] * 9)
    standardise(network, rows, made.collator)
    batch = made.collator([rows[at] for at in range(9)])
    labels = batch.pop("labels")
    assert len(labels) == 9
    with torch.no_grad():
        for name, vectors in network.vectors(batch).items():
            flat = vectors.flatten(0, 1)
            for head in network.heads:
                assert isinstance(head, AttentionHead)
                tokens = head.tokens[name]
                assert isinstance(tokens, VectorTokens)
                torch.testing.assert_close(tokens.mean, flat.mean(0), atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(tokens.std, flat.std(0, correction=0) + 1e-4, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("taught", [True, False])
def test_each_head_learns_as_if_it_were_alone(taught: bool) -> None:
    made = frozen_model("attention", members=3)
    network = made.network
    assert isinstance(network, AttentionClassifier)
    for part in network.modules():  # heads draw noise one after the other, so that alone they would draw another
        if isinstance(part, VectorTokens):
            part.noise = 0.0
        if isinstance(part, AttentionLayer):
            part.dropout.p = 0.0
        if isinstance(part, AttentionHead):
            part.dropout.p = 0.0
    assert network.audio is not None
    sizes = {
        "vision_features": (MEDIA.frames + motion_count(MEDIA.frames), network.frames.vector_size),
        "text_features": (network.text.output_size,),
        "audio_features": (network.audio.output_size,),
    }
    generator = torch.Generator().manual_seed(0)
    batch = {name: torch.randn(5, *size, generator=generator) for name, size in sizes.items()}
    loss = ClassificationLoss(LossSpec("cross_entropy", 3.0), torch.tensor([[0.7, 0.3]]))
    labels, index = torch.tensor([0, 1, -100, 0, 1]), torch.tensor([3, 1, 0, 2, 4])
    taught_logits = torch.tensor([-2.0, 1.0, math.nan, 3.0, -1.0])
    heads = list(network.heads)

    def gradients(chosen: list[nn.Module]) -> list[torch.Tensor]:
        network.heads = nn.ModuleList(chosen)
        network.zero_grad()
        objective: nn.Module = WithLoss(network, loss)
        if taught:
            objective = WithTeacher(WithLoss(network, loss), Lesson(taught_logits, 5.0))
        objective.train()(labels=labels, index=index, **batch)["loss"].backward()
        return [p.grad.clone() for head in chosen for p in head.parameters() if p.grad is not None]

    together = gradients(heads)
    alone = [gradient for head in heads for gradient in gradients([head])]
    assert len(together) == len(alone) > 0
    for joint, single in zip(together, alone, strict=True):
        torch.testing.assert_close(3.0 * joint, single, atol=1e-5, rtol=1e-4)
