"""Training settings of tests: short, constant rate, nothing switched on."""

from __future__ import annotations

from typing import Any

from coefvq.config import Training


def training_settings(**changes: Any) -> Training:
    """``params.yaml``'s section ``training`` as small as it gets, with ``changes``."""
    values: dict[str, Any] = {
        "num_train_epochs": 1.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "activation_checkpointing": False,
        "learning_rate": 1e-3,
        "head_learning_rate": None,
        "projector_learning_rate": None,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "warmup_steps": 0.0,
        "lr_scheduler_type": "constant",
        "loss": "cross_entropy",
        "focal_gamma": 2.0,
        "positive_weight": 1.0,
        "metric_for_best_model": "average_precision",
        "early_stopping_patience": None,
        "bf16": False,
        "nproc_per_node": 1,
        "deepspeed": None,
    }
    return Training(**values | changes)
