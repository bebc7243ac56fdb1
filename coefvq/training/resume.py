"""Going on with a killed training: what is saved when, and how the Trainer starts in the middle.

The Trainer would pickle; here the same things go into safetensors and JSON: trained weights and buffers, optimiser
(each rank's part under ZeRO), scheduler, random numbers of every rank, the curve, the best epoch's weights. The order
of batches needs no saving: it follows from seed and epoch, and the Trainer skips the batches that were done.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerState

from coefvq.errors import TrainingError
from coefvq.files import read_json
from coefvq.models.precision import fixed_precision
from coefvq.training.averaging import AverageWeights
from coefvq.training.checkpoints import Checkpoint, CheckpointFolder
from coefvq.training.keeper import KeepBest, Progress, Tensors, changing, copy_into
from coefvq.training.objective import Monitored
from coefvq.training.ranks import from_first, rank, wait_for_all
from coefvq.training.state import is_sharded, pack_optimizer, pack_random, unpack_optimizer, unpack_random

_AVERAGE = "average.safetensors"


class ResumableTrainer(Trainer):
    """The Trainer, except that `Resume` puts back weights and optimiser, not the Trainer's own pickles.

    ``sampler`` is an order of the train set that TrainingArguments cannot name.
    """

    sampler: Sampler[int] | None = None

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if not self.is_deepspeed_enabled:
            # accelerate would import DeepSpeed, and that MLflow, to see that the model is none of its engines
            self.accelerator.unwrap_model = _unwrapped

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler if self.sampler is not None else super()._get_train_sampler(train_dataset)

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        pass

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        with fixed_precision(self.model):  # DeepSpeed casts every parameter, those of a frozen Whisper too
            return super()._prepare_for_training(max_steps, train_dataloader, None)


def _unwrapped(model: nn.Module, *_: Any, **__: Any) -> nn.Module:
    """The model itself, out of what DDP made of it."""
    return model.module if isinstance(model, DistributedDataParallel) else model


class Resume(TrainerCallback):
    """Writes a checkpoint after every evaluation and every so many steps; restores one before the first step."""

    def __init__(
        self, folder: CheckpointFolder, model: Monitored, keeper: KeepBest, average: AverageWeights | None = None
    ) -> None:
        self._folder, self._model, self._keeper, self._average = folder, model, keeper, average
        self._source: Path | None = None
        self._random: tuple[Tensors, dict[str, Any]] | None = None

    def find(self, device: torch.device) -> Checkpoint | None:
        """The checkpoint to go on from, the same on all ranks; the curve and the best weights are taken over."""
        newest = self._folder.newest() if rank() == 0 else None
        step = from_first(newest.step if newest else -1, device)
        if step < 0:
            return None
        checkpoint = self._folder.at(step)
        self._source = checkpoint.path
        saved = read_json(checkpoint.path / "state.json")
        self._keeper.progress = Progress(**saved["progress"])
        self._keeper.best_weights = load_file(checkpoint.path / "best.safetensors")
        if self._average is not None:
            self._average.mean = load_file(checkpoint.path / _AVERAGE)
            self._average.count = saved["averaged"]
        return checkpoint

    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self._source is not None and bool(read_json(self._source / "state.json")["finished"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if self._source is None:
            return
        mine, saved = read_json(self._source / f"rank-{rank()}.json"), read_json(self._source / "state.json")
        optimizer = parts["optimizer"]
        owner = rank() if is_sharded(optimizer) else 0
        copy_into(self._model, load_file(self._source / "model.safetensors"))
        unpack_optimizer(optimizer, load_file(self._source / f"optimizer-{owner}.safetensors"), saved["groups"])
        parts["lr_scheduler"].load_state_dict(saved["scheduler"])
        self._model.loss_sum, self._model.batches = torch.tensor(mine["loss_sum"]), mine["batches"]
        # drawn from until the first step: by the order of batches and by the loader's workers
        self._random = load_file(self._source / f"rank-{rank()}.safetensors"), mine["random"]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if _at_epoch_end(state):
            self._restore_random()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restore_random()

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        # the last step of an epoch waits for its evaluation, which a resumed run would skip
        due = self._folder.steps is not None and state.global_step % self._folder.steps == 0
        if due and not _at_epoch_end(state) and state.global_step < state.max_steps:
            self._save(state, finished=False, **parts)

    def on_evaluate(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        finished = self._keeper.progress.stopped or state.global_step >= state.max_steps
        self._save(state, finished=finished, **parts)

    def _restore_random(self) -> None:
        if self._random is not None:
            unpack_random(*self._random)
            self._random = None

    def _save(self, state: TrainerState, finished: bool, optimizer: Any, lr_scheduler: Any, **_: Any) -> None:
        step, folder = state.global_step, self._folder
        self._model.check_losses()
        weights = dict(changing(self._model))
        if rank() == 0:
            _check_finite(weights, step)
            folder.begin(step)
        wait_for_all()
        tensors, groups = pack_optimizer(optimizer)
        if rank() == 0:
            facts = {
                "finished": finished,
                "progress": asdict(self._keeper.progress),
                "groups": groups,
                "scheduler": lr_scheduler.state_dict(),
                **({} if self._average is None else {"averaged": self._average.count}),
            }
            folder.write(step, {"model.safetensors": _packed(weights), "state.json": _json(facts)})
            folder.write(step, {"best.safetensors": _packed(self._keeper.best_weights)})
            folder.write(step, {"trainer_state.json": _json(asdict(state))})
            if self._average is not None:
                folder.write(step, {_AVERAGE: _packed(self._average.mean)})
        if rank() == 0 or is_sharded(optimizer):
            folder.write(step, {f"optimizer-{rank()}.safetensors": _packed(tensors)})
        states, numbers = pack_random()
        mine = {"random": numbers, "loss_sum": self._model.loss_sum.item(), "batches": self._model.batches}
        folder.write(step, {f"rank-{rank()}.safetensors": _packed(states), f"rank-{rank()}.json": _json(mine)})
        wait_for_all()
        if rank() == 0:
            folder.commit(step)


def _at_epoch_end(state: TrainerState) -> bool:
    return state.epoch is not None and float(state.epoch).is_integer()


def _check_finite(weights: Tensors, step: int) -> None:
    bad = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise TrainingError(
            f"step {step}: weights are not finite ({bad[0]}); the last checkpoint is kept; lower learning_rate"
        )


def _packed(tensors: Tensors) -> bytes:
    # clones, because under ZeRO all parameters are views of one buffer
    packed: bytes = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    return packed


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
