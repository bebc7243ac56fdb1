"""Baselines on the same cached features, each tuned on validation: vision only, multi-tower, and the fair control.

The control is the multi-tower model with an auxiliary head per factor: it gets the same supervision as the MLLM's
descriptions, through the same features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from starter_world_data import ISSUES, Split
from torch import nn

from coefvq.evaluation.metrics import average_precision
from coefvq.models.baselines import fusion_head
from coefvq.simulation.synthetic.factors import FACTOR_TYPES

Floats = np.ndarray[Any, np.dtype[np.float64]]
Kind = Literal["vision only", "multi-tower", "control"]
_LEVELS = [len(kind) for kind in FACTOR_TYPES.values()]


@dataclass(frozen=True)
class Settings:
    """One point of the search; ``auxiliary`` weighs the factors' mean cross-entropy."""

    kind: Kind
    grid: int  # 1: mean over each image, as the library's base; 2: its 2 x 2 cells beside
    dropout: float
    rate: float
    decay: float
    epochs: int
    auxiliary: float
    noise: float = 0.3


class Fusion(nn.Module):
    """The library's fusion head with an output per issue, and heads for factors beside it."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        norm, hidden, act, last = fusion_head(width)
        self.trunk = nn.Sequential(norm, nn.Dropout(dropout), hidden, act, nn.Dropout(dropout))
        self.head = nn.Linear(last.in_features, 2 * len(ISSUES))  # type: ignore[arg-type]
        self.factors = nn.Linear(last.in_features, sum(_LEVELS))  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[N,D] -> logits [N,K,2] and of the factors [N, sum of levels]."""
        hidden = self.trunk(features)
        return self.head(hidden).unflatten(1, (len(ISSUES), 2)), self.factors(hidden)


def inputs(split: Split, kind: Kind, grid: int) -> torch.Tensor:
    """Features [N, D]: means over frames and over motion images, then text and sound."""
    cells = split.cells[:, :, :1] if grid == 1 else split.cells
    seen = [cells[:, :8].float().mean(dim=1).flatten(1), cells[:, 8:].float().mean(dim=1).flatten(1)]
    return torch.cat(seen if kind == "vision only" else [*seen, split.text, split.sound], dim=1)


def factor_levels(split: Split) -> torch.Tensor:
    """int64 [N,7]: number of the level that each clip shows."""
    rows = [
        [list(kind).index(getattr(clip.shown, name)) for name, kind in FACTOR_TYPES.items()] for clip in split.clips
    ]
    return torch.tensor(rows)


class Standard:
    """Zero mean, unit deviation by the training split."""

    def __init__(self, features: torch.Tensor) -> None:
        self.mean, self.std = features.mean(dim=0), features.std(dim=0) + 1e-4

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.std


def fit(settings: Settings, train: Split, seed: int) -> Any:
    """Train; returns a function from a split to P(positive) [N, K]."""
    torch.manual_seed(seed)
    raw = inputs(train, settings.kind, settings.grid)
    standard, labels, levels = Standard(raw), train.labels, factor_levels(train)
    features = standard(raw)
    network = Fusion(features.shape[1], settings.dropout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    size, random = 64, np.random.default_rng(seed)
    total = settings.epochs * -(-len(train) // size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=total, pct_start=0.1)
    for _ in range(settings.epochs):
        for rows in np.array_split(random.permutation(len(train)), -(-len(train) // size)):
            batch = features[rows]
            logits, factors = network(batch + settings.noise * torch.randn_like(batch))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[rows].flatten())
            if settings.auxiliary:
                loss = loss + settings.auxiliary * _factor_loss(factors, levels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    network.eval()

    def score(split: Split) -> Floats:
        with torch.inference_mode():
            odds, _ = network(standard(inputs(split, settings.kind, settings.grid)))
        return (odds[..., 1] - odds[..., 0]).double().sigmoid().numpy()

    return score


def _factor_loss(logits: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    parts = logits.split(_LEVELS, dim=1)
    losses = [nn.functional.cross_entropy(part, levels[:, place]) for place, part in enumerate(parts)]
    return torch.stack(losses).mean()


def candidates(kind: Kind) -> Iterator[Settings]:
    """The grid that is searched on validation."""
    weights = (0.3, 1.0, 3.0) if kind == "control" else (0.0,)
    # the control, with three weights each, is searched at the two ends of dropout and length
    pairs = ((0.2, 8), (0.5, 20)) if kind == "control" else itertools.product((0.2, 0.5), (8, 20))
    for (dropout, epochs), auxiliary in itertools.product(pairs, weights):
        yield Settings(kind, 1, dropout, 1e-3, 0.05, epochs, auxiliary)
    if kind == "control":
        return
    yield Settings(kind, 1, 0.5, 3e-4, 0.05, 20, 0.0)


def val_figure(scores: Floats, split: Split) -> float:
    """Mean average precision of both issues against the drawn labels: what every choice is made by."""
    labels = split.labels.numpy()
    return float(np.mean([average_precision(labels[:, k], scores[:, k]) for k in range(len(ISSUES))]))


def tune(kind: Kind, train: Split, val: Split, tell: Any = print) -> dict[str, Any]:
    """The candidate with the best mean of two seeds on validation, and all that were tried."""
    tried: list[dict[str, Any]] = []
    for settings in candidates(kind):
        figures = [val_figure(fit(settings, train, seed)(val), val) for seed in (100, 101)]
        tried.append({"settings": asdict(settings), "val": float(np.mean(figures))})
    best = max(tried, key=lambda row: row["val"])
    tell(f"{kind}: best of {len(tried)} on validation {best}")
    return {"best": best, "tried": tried}
