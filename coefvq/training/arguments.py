"""params.yaml -> transformers.TrainingArguments."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import files
from json import loads
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainingArguments

from coefvq.config import Training
from coefvq.models.frozen import is_frozen
from coefvq.models.towers import SiglipTower
from coefvq.models.vision import SiglipBranch
from coefvq.training.ranks import PATIENCE, launched


@dataclass(frozen=True)
class DdpNeeds:
    """What ranks must do at every step beside adding up gradients, and only where the network asks for it."""

    unused_parameters: bool = True
    buffers: bool = True

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """Search for parameters without a gradient: SigLIP's. Copy buffers: those that training changes."""
        return cls(
            unused_parameters=any(_leaves_some_out(module) for module in network.modules()),
            buffers=any(isinstance(module, _BatchNorm) and not is_frozen(module) for module in network.modules()),
        )


def _leaves_some_out(module: nn.Module) -> bool:
    # the layers behind the one that LLaVA-OneVision reads; scale and bias of SigLIP's own contrastive loss
    tower = module.tower if isinstance(module, SiglipBranch) else module if isinstance(module, SiglipTower) else None
    return tower is not None and not is_frozen(tower)


def training_arguments(
    params: Training, seed: int, scratch: Path, loaders: int = 0, ddp: DdpNeeds | None = None
) -> TrainingArguments:
    """Arguments of the Trainer, with ``loaders`` processes that make batches.

    It saves nothing itself, because it would pickle.
    """
    on_gpu, needs = torch.cuda.is_available(), ddp or DdpNeeds()
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=params.num_train_epochs,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=2 * params.per_device_train_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        activation_checkpointing=params.activation_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if params.activation_checkpointing else None,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        warmup_steps=params.warmup_steps,
        lr_scheduler_type=params.lr_scheduler_type,
        eval_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # a loss that is not finite stops the run, with the videos' names
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
        seed=seed,
        data_seed=seed,
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=loaders,
        dataloader_persistent_workers=loaders > 0,
        dataloader_prefetch_factor=2 if loaders else None,
        bf16=use_bf16(params.bf16),
        # what is left in fp32 (heads, a trained tower) may multiply in TF32 where the card has it
        tf32=True if on_gpu and torch.cuda.get_device_capability() >= (8, 0) else None,
        deepspeed=None if params.deepspeed is None else deepspeed_config(params.deepspeed),
        # set explicitly: transformers accepts bf16 on a CPU only with use_cpu
        use_cpu=not on_gpu and (launched() or not torch.accelerator.is_available()),
        ddp_find_unused_parameters=needs.unused_parameters,
        ddp_broadcast_buffers=needs.buffers,
        ddp_timeout=round(PATIENCE.total_seconds()),
        ddp_backend="gloo" if launched() and not on_gpu else None,
        disable_tqdm=not sys.stderr.isatty(),
    )
    # on several GPUs a lone process would train through torch's DataParallel, which nobody should; use nproc_per_node
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def use_bf16(wanted: bool | Literal["auto"]) -> bool:
    """Whether to train in bf16; ``auto`` where the hardware multiplies it natively: CUDA devices, AMX, AVX-512 BF16."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def deepspeed_config(name: str) -> dict[str, Any]:
    """One of the DeepSpeed configurations shipped beside this file.

    Without a GPU, DeepSpeed would first compile a collective over shared memory (a minute, and a C++ compiler);
    torch's gloo does the same here.
    """
    if not torch.cuda.is_available():
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config: dict[str, Any] = loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return config
