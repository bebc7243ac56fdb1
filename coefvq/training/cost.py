"""What a training costs: time, throughput, peak memory, and energy where the machine tells."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

_RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Cost:
    """Figures of this process, since it started or resumed the training; ``energy_joules`` None: not readable.

    ``tokens_per_second`` counts what the language model reads, without padding; None without a language model.
    """

    train_seconds: float
    samples_per_second: float
    tokens_per_second: float | None
    peak_memory_mib: float
    energy_joules: float | None


@dataclass
class Meter:
    """Counts between ``start`` and ``cost``; time spent in validation is in it."""

    samples: int = 0
    tokens: int | torch.Tensor = 0
    _started: float = field(default_factory=time.perf_counter)
    _energy: Mapping[str, int] = field(default_factory=lambda: read_energy())

    def add(self, samples: int, attention_mask: torch.Tensor | None) -> None:
        """Count one training batch."""
        self.samples += samples
        if attention_mask is not None:
            self.tokens = self.tokens + attention_mask.sum()  # stays on its device: nobody waits for it

    def cost(self) -> Cost:
        """What was spent until now."""
        seconds, tokens = time.perf_counter() - self._started, int(self.tokens)
        return Cost(
            train_seconds=seconds,
            samples_per_second=self.samples / seconds,
            tokens_per_second=tokens / seconds if tokens else None,
            peak_memory_mib=_peak_memory_mib(),
            energy_joules=spent_joules(self._energy, read_energy()),
        )


def read_energy(root: Path = _RAPL) -> dict[str, int]:
    """Counters in microjoules by name: RAPL packages and this process's GPU, those that may be read."""
    energy = {}
    for package in sorted(root.glob("intel-rapl:[0-9]*")):
        if package.name.count(":") > 1:
            continue  # a part of a package, counted in it
        try:
            energy[str(package)] = int((package / "energy_uj").read_text())
        except (OSError, ValueError):
            continue
    return energy | _nvidia_energy()


def spent_joules(before: Mapping[str, int], after: Mapping[str, int]) -> float | None:
    """Difference of two readings; a RAPL counter that wrapped is set right by its range."""
    if not before.keys() & after.keys():
        return None
    total = 0
    for name in before.keys() & after.keys():
        gone = after[name] - before[name]
        if gone < 0:
            try:
                gone += int((Path(name) / "max_energy_range_uj").read_text())
            except (OSError, ValueError):
                return None
        total += gone
    return total / 1e6


def _nvidia_energy() -> dict[str, int]:
    """Of this process's own card."""
    if not torch.cuda.is_available():
        return {}
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        # by name: NVML counts the machine's cards, CUDA those that this process may use
        name = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        return {name: 1000 * pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(name))}
    except pynvml.NVMLError:
        return {}


def _peak_memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
