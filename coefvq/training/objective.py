"""What the Trainer trains: a network with its loss, watched batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from coefvq.errors import DataError, MediaError, TrainingError
from coefvq.models.dataset import ready
from coefvq.models.mllm import MultimodalLLM
from coefvq.training.cost import Meter
from coefvq.training.losses import ClassificationLoss
from coefvq.training.ranks import summed
from coefvq.training.word_alignment import WordReader, Words, watched_state

_BATCHES_A_LOOK = 16
_FLOATS = ("pixel_values", "log_mel")

Batch = dict[str, Any]
Collate = Callable[[Sequence[Any]], Batch]


class TrainingSet(Protocol):
    """A map-style dataset with the ids of its videos; ``labels`` [N] or [N][K], -100 where missing."""

    @property
    def video_ids(self) -> Sequence[str]: ...

    @property
    def labels(self) -> Sequence[Any] | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class CollatedRows:
    """Row numbers of a data set -> the network's inputs, on its device."""

    dataset: TrainingSet
    collator: Collate
    device: torch.device

    def __call__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        batch = self.collator([self.dataset[row] for row in rows])
        return ready({name: tensor.to(self.device) for name, tensor in batch.items()})


class WithLoss(nn.Module):
    """A network that returns logits [B,2] or [B,K,2], with the loss on ``labels``."""

    def __init__(self, network: nn.Module, loss: ClassificationLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(
        self, labels: torch.Tensor, index: torch.Tensor | None = None, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The network's inputs and ``labels`` [B] or [B,K] -> loss and logits; ``index`` is for other objectives."""
        logits = self.network(**_in_trained_type(ready(inputs), self.network))
        return {"loss": self.loss(logits, for_each_head(labels, logits)), "logits": logits}


def for_each_head(targets: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """``targets`` [B,...] as often as the batch is in ``logits``: a network of several heads answers once for each."""
    return torch.cat([targets] * (len(logits) // len(targets)))


def _in_trained_type(inputs: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Pixels and spectrograms in the type of what trains: DeepSpeed casts the floats that a module is given itself."""
    floats = [name for name in _FLOATS if name in inputs]
    if not floats:
        return inputs
    dtype = next((p.dtype for p in network.parameters() if p.requires_grad), torch.float32)
    return {**inputs, **{name: inputs[name].to(dtype) for name in floats}}


class WithDescriptions(nn.Module):
    """Fine-tuning that keeps the description loss on H beside the loss on labels; its linear map is dropped later.

    ``words`` has a row for each row of the training set; validation knows labels only.
    """

    def __init__(self, labelled: WithLoss, words: Words, weight: float) -> None:
        super().__init__()
        if not isinstance(labelled.network, MultimodalLLM):
            raise TypeError("only an MLLM has a state that can be asked for words")
        self.labelled, self.weight = labelled, weight
        device = labelled.network.norm.weight.device
        self.reader = WordReader(labelled.network.language.output_size, words).to(device)

    def forward(self, labels: torch.Tensor, index: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The network's inputs, ``labels`` [B] or [B,K] and the rows ``index`` [B] -> loss and logits."""
        network = self.labelled.network
        with watched_state(network) as states:  # type: ignore[arg-type]
            output: dict[str, torch.Tensor] = self.labelled(labels, **inputs)
        if self.training:
            output["loss"] = output["loss"] + self.weight * self.reader.loss(states[-1], index)
        return output


class Monitored(nn.Module):
    """An objective whose training loss is averaged and must stay finite.

    The Trainer sums the loss too, but forgets its sum when a run is resumed.
    """

    # the Trainer would otherwise hand over num_items_in_batch and expect a summed loss
    accepts_loss_kwargs = False

    def __init__(self, objective: nn.Module, video_ids: Sequence[str]) -> None:
        super().__init__()
        self.objective = objective
        self.loss_sum, self.batches = torch.zeros(()), 0
        self.meter = Meter()
        self._video_ids = video_ids
        self._unchecked: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._parameters_once: tuple[nn.Parameter, ...] | None = None

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As every module's; looked up once, for the Trainer asks twice a step and frozen towers have hundreds."""
        if not recurse:
            return super().parameters(recurse)
        if self._parameters_once is None:
            self._parameters_once = tuple(super().parameters())
        return iter(self._parameters_once)

    def _apply(self, change: Any, recurse: bool = True) -> Self:
        self._parameters_once = None  # a move to another device may make new ones
        super()._apply(change, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, index: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """``index`` [B] are the rows of the dataset; the rest goes to the objective.

        Raises:
            TrainingError: as ``check_losses``; on a GPU up to 16 batches later.
        """
        output: dict[str, torch.Tensor] = self.objective(index=index, **batch)
        if self.training:
            self._watch(output["loss"].detach(), index)
            self.meter.add(len(index), batch.get("attention_mask"))
        return output

    def mean_loss(self) -> float:
        """Mean over the training batches since the last call, over all ranks.

        Raises:
            TrainingError: as ``check_losses``.
        """
        self.check_losses()
        batches = torch.tensor(float(self.batches), device=self.loss_sum.device)
        figures = summed(torch.stack([self.loss_sum, batches]))
        self.loss_sum, self.batches = torch.zeros_like(self.loss_sum), 0
        return (figures[0] / figures[1]).item()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """What ``activation_checkpointing`` of the TrainingArguments calls: recompute in all trained transformers."""
        for module in self.modules():
            if isinstance(module, PreTrainedModel) and any(p.requires_grad for p in module.parameters()):
                module.activation_checkpointing_enable(**options)

    def check_losses(self) -> None:
        """Look at the losses since the last look.

        Raises:
            TrainingError: one is NaN or infinite; its videos are named.
        """
        pending, self._unchecked = self._unchecked, []
        if not pending or bool(torch.stack([loss for loss, _ in pending]).isfinite().all()):
            return
        loss, index = next((loss, index) for loss, index in pending if not bool(loss.isfinite()))
        names = ", ".join(self._video_ids[i] for i in index.tolist())
        raise TrainingError(
            f"training loss is {loss.item():g} on videos {names}; "
            "look at these clips and labels, lower learning_rate or max_grad_norm, or set bf16: false"
        )

    def _watch(self, loss: torch.Tensor, index: torch.Tensor) -> None:
        self._unchecked.append((loss, index))
        # a look at a number on a GPU waits for the GPU, which then waits for the next batch
        if loss.device.type == "cpu" or len(self._unchecked) >= _BATCHES_A_LOOK:
            self.check_losses()
        self.loss_sum = self.loss_sum.to(loss.device) + loss
        self.batches += 1


@dataclass(frozen=True)
class Indexed(Dataset[tuple[int, Any]]):
    """A dataset whose examples carry their row number.

    With ``max_bad_share`` the next row that can be read stands in for one whose clip does not decode: the same one in
    every epoch and process, so that the order of batches stays as the seed has it.
    """

    rows: TrainingSet
    max_bad_share: float | None = None
    _bad: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        if self.max_bad_share is None:
            return index, self.rows[index]
        for at in (*range(index, len(self.rows)), *range(index)):
            try:
                return at, self.rows[at]
            except MediaError as error:
                self._bad.add(at)
                if len(self._bad) > self.max_bad_share * len(self.rows):
                    raise DataError(
                        f"{len(self._bad)} of {len(self.rows)} clips cannot be read, the last: {error}; more than "
                        f"loading.max_bad_share ({self.max_bad_share:g}): run ingest again or raise it"
                    ) from error
        raise DataError("no clip of the training can be read; run ingest again")


@dataclass(frozen=True)
class IndexedCollate:
    """Batches of `Indexed`: what the collator makes of the examples, and ``index`` [B]."""

    collate: Collate

    def __call__(self, rows: Sequence[tuple[int, Any]]) -> Batch:
        return {"index": torch.tensor([index for index, _ in rows]), **self.collate([example for _, example in rows])}
