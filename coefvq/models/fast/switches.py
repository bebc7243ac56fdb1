"""The list of switches as data, and ``prepare``, which turns them on in a built classifier.

An exact switch gives the same logits to rounding (1e-5 in float32). Of those, ``prepare`` takes the ones that gain
time on this hardware; named ones are taken wherever they can work. An approximate switch changes the answer and is
on only where ``predict.approximate`` asks for it. A prepared network is for scoring: it cannot be saved or trained.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from coefvq.config import Approximate, Precision
from coefvq.errors import ModelError
from coefvq.models.classifier import Classifier
from coefvq.models.fast import approximate as approx
from coefvq.models.fast import conditions, turns

_DONE = "_fast_switches"


@dataclass(frozen=True)
class Switch:
    """``possible`` and ``pays`` give a reason against, or an empty string; ``turn`` does it in place.

    ``replaces_weights`` marks one that gives a model weights of its own, in place of those that others have too.
    """

    name: str
    kind: Literal["exact", "approximate"]
    when: str
    possible: Callable[[Classifier], str]
    turn: Callable[[Classifier], Classifier]
    pays: Callable[[Classifier], str] = lambda _: ""
    replaces_weights: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one switch."""

    name: str
    kind: str
    on: bool
    reason: str = ""


def prepare(
    classifier: Classifier, switches: Collection[Switch], *, only_if_it_pays: bool = True
) -> tuple[Classifier, list[Outcome]]:
    """Turn ``switches`` on in place, in the order given; those that are on already stay so.

    Raises:
        ModelError: an approximate switch does not fit this model (an exact one is left off, with its reason).
    """
    classifier.network.eval()
    report = []
    for switch in switches:
        done: set[str] = getattr(classifier.network, _DONE, set())
        if switch.name in done:
            report.append(Outcome(switch.name, switch.kind, True, "was on"))
            continue
        reason = switch.possible(classifier) or (only_if_it_pays and switch.pays(classifier)) or ""
        if reason and switch.kind == "approximate":
            raise ModelError(f"{switch.name}: {reason}; change predict.approximate or predict.dtype")
        if not reason:
            if not done:
                classifier.network.register_state_dict_pre_hook(_refuse_to_save)  # type: ignore[no-untyped-call]
            classifier = switch.turn(classifier)
            setattr(classifier.network, _DONE, done | {switch.name})
        report.append(Outcome(switch.name, switch.kind, not reason, reason))
    return classifier, report


def choose(savings: Literal["exact", "none"], dtype: Precision, approximations: Approximate) -> tuple[Switch, ...]:
    """The switches that params.yaml's ``predict`` section asks for, in the order they have to be turned."""
    half = dtype == "bfloat16" or (dtype == "auto" and conditions.has_bfloat16())
    exact = exact_switches(torch.bfloat16 if half else torch.float32) if savings == "exact" else ()
    merge = [switch for switch in exact if switch.name == "merge_lora"]
    rest = [switch for switch in exact if switch.name != "merge_lora"]
    # adapters are merged before rounding, and int8 takes the layers before they are packed
    return (*merge, _precision(half), *approximate_switches(approximations), *rest)


def exact_switches(dtype: torch.dtype = torch.float32) -> tuple[Switch, ...]:
    """Same logits to rounding, less work; ``dtype`` is what the model will compute in."""
    merge = partial(turns.merge_lora, dtype=dtype)
    return (
        Switch("merge_lora", "exact", "MLLM with adapters", conditions.has_lora, merge, replaces_weights=True),
        Switch(
            "flash_attention", "exact", "MLLM, CUDA with flash-attn, half precision", conditions.has_flash, turns.flash
        ),
        Switch("patch_matmul", "exact", "SigLIP vision, CPU", conditions.sees_siglip_on_cpu, turns.patch_matmul),
        Switch("chunked_frames", "exact", "SigLIP vision, CPU", conditions.can_chunk, turns.chunk),
        Switch(
            "blocked_attention",
            "exact",
            "CPU, bfloat16, no AMX",
            conditions.attends_on_cpu,
            turns.blocked,
            conditions.blocked_pays,
        ),
        Switch(
            "padded_attention",
            "exact",
            "CPU, bfloat16, AMX",
            conditions.attends_on_cpu,
            turns.padded,
            conditions.padded_pays,
        ),
        Switch("packed_linears", "exact", "CPU with oneDNN", conditions.can_pack, turns.pack, replaces_weights=True),
    )


def approximate_switches(approximations: Approximate) -> tuple[Switch, ...]:
    """Those of ``predict.approximate`` that are set."""
    switches = []
    if approximations.frames is not None:
        turn = partial(approx.fewer_frames, frames=approximations.frames)
        switches.append(
            Switch("frames", "approximate", "any", partial(conditions.fewer_frames, frames=approximations.frames), turn)
        )
    if approximations.audio_seconds is not None:
        possible = partial(conditions.shorter_sound, seconds=approximations.audio_seconds)
        turn = partial(approx.shorter_sound, seconds=approximations.audio_seconds)
        switches.append(Switch("audio_seconds", "approximate", "models that hear", possible, turn))
    if approximations.pool_tokens > 1:
        turn = partial(approx.pool_tokens, factor=approximations.pool_tokens)
        switches.append(
            Switch("pool_tokens", "approximate", "MLLM, more than one token a frame", conditions.has_grid, turn)
        )
    if approximations.int8:
        switches.append(
            Switch("int8", "approximate", "CPU with oneDNN's quantised products", conditions.can_quantise, turns.int8)
        )
    return tuple(switches)


def _precision(half: bool) -> Switch:
    if half:
        return Switch("bfloat16", "approximate", "AMX, avx512_bf16, GPUs", lambda _: "", turns.bfloat16)
    return Switch("float32", "exact", "models trained in bfloat16", conditions.is_half, turns.float32)


def _refuse_to_save(network: nn.Module, *_: Any) -> None:
    raise ModelError("this model was prepared for scoring and cannot be saved; load it from its folder and save that")
