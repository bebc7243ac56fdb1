"""A workspace with its own MLflow store and candidates trained in it, for the registry's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from coefvq.config import Gate
from coefvq.files import write_json
from coefvq.registry import pairs, release, tracking
from coefvq.registry.bundle import PART_KINDS, Candidate, DataRef, ModelRef, build_candidate, model_ref
from coefvq.registry.gates import GateReport
from coefvq.registry.history import Decision

GATE = Gate(min_average_precision_gain=0.0, max_qps_ratio=60.0, max_f1_drop=0.05, max_flip_rate=0.02)
PASSED = GateReport(passed=True, checks=())
DATA = DataRef(manifest_sha256="a" * 64, splits_sha256="b" * 64, version="data-2026-11-22")
Refs = dict[tuple[str, int], dict[str, ModelRef]]


@dataclass(frozen=True)
class Workspace:
    """A folder with its own tracking store; ``trained`` are models logged in it before the test."""

    root: Path
    trained: Refs

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def candidate(self, seed: int, issue: str = "icd", **changes: Any) -> Candidate:
        """The candidate of one seed; other content hashes for other seeds."""
        refs = self.trained.get((issue, seed)) or train(self.root, seed, issue)
        metrics = {
            "n": 200,
            "base": {"f1": 0.4, "roc_auc": 0.8, "n": 200},
            "mllm": {"average_precision": 0.7, "prevalence": 0.1, "n": 200, "f1": 0.6},
            "cascade": {"f1": changes.pop("f1", 0.6), "prevalence": 0.1, "qps_ratio": 20.0, "r_at_p90": None},
            "stability": {"n": 100, "flip_rate": 0.0},
            "bayes": None,
        }
        parts: dict[str, Any] = {
            **refs,
            "policy": {"base_threshold": 0.3, "decision_threshold": 0.5},
            "preprocessing": {"frames": 8},
            "data": DATA,
            "params": {"seed": seed},
            "metrics": metrics,
        }
        return build_candidate(issue, **{**parts, **changes})

    def register(self, seed: int, issue: str = "icd") -> pairs.RegisteredPair:
        return pairs.register_candidate(self.candidate(seed, issue), PASSED)

    def approve(self, seed: int, issue: str = "icd") -> Decision:
        self.register(seed, issue)
        return release.approve(issue, "ana", f"seed {seed} looks good")


def train(root: Path, seed: int, issue: str) -> dict[str, ModelRef]:
    """Fake models whose bytes depend on the seed, logged like real ones."""
    refs = {}
    for kind in PART_KINDS:
        folder = root / "models" / str(seed) / issue / kind
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weight": np.full((2, 3), seed, np.float32)}, folder / "model.safetensors")
        write_json(folder / "config.json", {"kind": kind, "issue": issue})
        with tracking.training_run(f"{issue}-{kind}", issue, kind, {"seed": seed}, DATA) as run:
            run.log_model_folder(folder, kind, issue)
        write_json(folder.parent / f"{kind}_run.json", run.record())
        refs[kind] = model_ref(folder, folder.parent / f"{kind}_run.json")
    return refs


def write_refs(path: Path, refs: Refs) -> None:
    """Keep what was trained for another test process."""
    rows = [[issue, seed, {kind: ref.model_dump(mode="json") for kind, ref in kinds.items()}]
            for (issue, seed), kinds in refs.items()]  # fmt: skip
    write_json(path, rows)


def read_refs(path: Path) -> Refs:
    """What ``write_refs`` kept."""
    return {
        (issue, seed): {kind: ModelRef.model_validate(ref) for kind, ref in kinds.items()}
        for issue, seed, kinds in json.loads(path.read_text())
    }


def champion(issue: str = "icd") -> str | None:
    return pairs.aliases(issue).get("champion")


def challenger(issue: str = "icd") -> str | None:
    return pairs.aliases(issue).get("challenger")
