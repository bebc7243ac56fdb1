"""Which files the product reads, who reads them, and which mutations fit."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.fuzz_cli.damage import BYTES, CONTROL, SPECIAL, Mutation, Verdict
from tests.fuzz_cli.documents import DOCUMENT, YAML
from tests.fuzz_cli.frames import JSONL, PARQUET, PARQUET_IDS, PARQUET_SCORES
from tests.fuzz_cli.media import CLIPS as CLIP_MUTATIONS
from tests.fuzz_cli.stores import SAFETENSORS, SQLITE
from tests.fuzz_cli.tables import CLIPS, CSV, LABELS, SCORES

STRICT: dict[str, Verdict] = dict.fromkeys(
    ("unknown_key", "near_key", "wrong_type", "wrong_type_top", "drop_top"), "refuse"
)
ISSUE = "--issue icd"


@dataclass(frozen=True)
class Target:
    """A file of the workspace (a pattern: one of the files that fit is drawn) and the commands that read it."""

    name: str
    path: str
    mutations: tuple[Mutation, ...]
    commands: tuple[str, ...]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def verdict(self, mutation: Mutation) -> Verdict:
        return self.verdicts.get(mutation.name, mutation.verdict)

    def argv(self, command: str) -> list[str]:
        return shlex.split(command)


def _any(mutations: Iterable[Mutation]) -> dict[str, Verdict]:
    return {mutation.name: "any" for mutation in mutations}


_DOCUMENT = (CONTROL, *DOCUMENT, *SPECIAL, *BYTES)
_CACHE = (CONTROL, *SPECIAL, *BYTES)
#: what a cache holds can be made again: its damage costs time and changes nothing
_MADE_AGAIN: dict[str, Verdict] = {
    **_any((*SPECIAL, *BYTES)),
    **dict.fromkeys(("empty", "one_byte", "half", "zero_fill", "random_bytes", "other_kind", "missing"), "same"),
}
#: what the tokenizers library reads has no strict reader of ours: only what cannot be parsed at all is sure
_UNPARSED = ("blank", "unclosed", "not_utf8", "no_mapping", "empty", "one_byte", "half", "random_bytes", "directory")

_RETUNE = ("retune icd --labels fresh.csv --scores traffic.csv --min-labels 2 --dry-run --json",)

#: DVC's own files: DVC judges them, we pass on what it says
_PIPELINE = (*_DOCUMENT, *YAML)
_SNAPSHOT = ("data snapshot --from batch --no-push --json",)

TARGETS: tuple[Target, ...] = (
    Target(
        "params",
        "params.yaml",
        (*_DOCUMENT, *YAML),
        (
            "cascade audit",
            "split",
            f"evaluate {ISSUE}",
            f"thresholds {ISSUE}",
            "status --json",
            "history --json",
            "features stats --json",
            "plan --rows 1000 --tflops 1 --json",
            "ingest",
            "validate",
            f"candidate {ISSUE}",
            f"register {ISSUE} --json",
            f"report {ISSUE} --no-registry",
            "score data/raw/videos/s7-000001.mp4 --json",
            "vmp run --once --json",
            f"approve {ISSUE} --by ana --reason x",
            f"predict {ISSUE}",
            f"features build {ISSUE} --dry-run --json",
            "data reference",
            f"rollback {ISSUE} --by ana --reason x",
            f"reject {ISSUE} --by ana --reason x",
        ),
        {**STRICT, "drop_top": "any"},
    ),
    Target(
        "recipe",
        "recipe.yaml",
        (*_DOCUMENT, *YAML),
        ("split", f"evaluate {ISSUE}", "status --json", "ingest", f"predict {ISSUE}", f"candidate {ISSUE}"),
        STRICT,
    ),
    Target(
        "rules",
        "rules.yaml",
        (*_DOCUMENT, *YAML),
        ("vmp run --once --json --rules rules.yaml --consumer again", "vmp rules test rules.yaml --json"),
        STRICT,
    ),
    Target(
        "tenants",
        "tenants.yaml",
        (*_DOCUMENT, *YAML),
        ("vmp run --once --json --tenants tenants.yaml --consumer again", "vmp mllm --once --tenants tenants.yaml"),
        {**STRICT, "drop_top": "any"},
    ),
    Target(
        "features",
        "features.yaml",
        (*_DOCUMENT, *YAML),
        ("vmp run --once --json --features features.yaml --consumer again",),
        STRICT,
    ),
    Target(
        "vmp_file",
        "vmp.yaml",
        (*_DOCUMENT, *YAML),
        (
            "vmp check --config vmp.yaml --json",
            "vmp run --once --json --config vmp.yaml",
            "vmp mllm --once --config vmp.yaml",
            "vmp mirror --once --config vmp.yaml --json",
        ),
        # all but the source may be left out; a tab between flow mappings is YAML
        {**STRICT, "drop_top": "any", "tabs": "any"},
    ),
    Target(
        "policy",
        "reports/icd/policy.json",
        _DOCUMENT,
        (f"candidate {ISSUE}", f"stability {ISSUE}"),
        {**STRICT, "drop_top": "any"},  # some keys of a policy have defaults
    ),
    Target(
        "candidate",
        "reports/icd/candidate.json",
        _DOCUMENT,
        (f"register {ISSUE} --json",),
        {**STRICT, "drop_top": "any"},
    ),
    # a report does without what is not there (yet)
    Target(
        "candidate_report",
        "reports/icd/candidate.json",
        _DOCUMENT,
        (f"report {ISSUE}",),
        STRICT | _any(SPECIAL) | {"drop_top": "any"},
    ),
    Target(
        "evaluation",
        "reports/icd/evaluation.json",
        _DOCUMENT,
        (f"cascade audit {ISSUE} --json", f"candidate {ISSUE}", f"report {ISSUE} --no-registry", "show --json"),
    ),
    Target(
        "thresholds",
        "reports/icd/thresholds.json",
        _DOCUMENT,
        (f"cascade audit {ISSUE} --json", f"candidate {ISSUE}", f"report {ISSUE} --no-registry", "show --json"),
    ),
    Target("stability", "reports/icd/stability.json", _DOCUMENT, (f"candidate {ISSUE}",)),
    Target("calibration", "reports/icd/calibration.json", _DOCUMENT, (f"candidate {ISSUE}",)),
    Target(
        "stability_report",
        "reports/icd/stability.json",
        _DOCUMENT,
        (f"report {ISSUE} --no-registry",),
        _any(SPECIAL),
    ),
    Target("reference", "data/reference.json", _DOCUMENT, ("validate",)),
    Target("base_run", "models/icd/base_run.json", _DOCUMENT, (f"candidate {ISSUE}",)),
    Target("mllm_run", "models/icd/mllm_run.json", _DOCUMENT, (f"candidate {ISSUE}",)),
    Target("base_config", "models/icd/base/config.json", _DOCUMENT, (f"predict {ISSUE}",)),
    Target("mllm_config", "models/icd/mllm/config.json", _DOCUMENT, (f"predict {ISSUE}", f"stability {ISSUE}")),
    Target(
        "tokenizer",
        "models/icd/mllm/tokenizer*.json",
        _DOCUMENT,
        (f"predict {ISSUE}",),
        {**_any(_DOCUMENT), **dict.fromkeys(_UNPARSED, "refuse")},
    ),
    Target(
        "weights",
        "models/icd/*/model.safetensors",
        (CONTROL, *SAFETENSORS, *SPECIAL, *BYTES),
        (f"predict {ISSUE}", f"stability {ISSUE}"),
    ),
    Target(
        "champion_files",
        "ml*/**/*.*",
        (*SPECIAL, *BYTES),
        ("score data/raw/videos/s7-000001.mp4 --json", "data reference"),
        _any((*SPECIAL, *BYTES)),
    ),
    Target(
        "manifest",
        "data/manifest.parquet",
        (CONTROL, *PARQUET, *PARQUET_IDS, *SPECIAL, *BYTES),
        ("split", "validate", f"predict {ISSUE}", f"candidate {ISSUE}", f"train-base {ISSUE}", f"evaluate {ISSUE}"),
        {"float_ids": "any", "no_rows": "refuse"},
    ),
    Target(
        "splits",
        "data/splits.parquet",
        (CONTROL, *PARQUET, *SPECIAL, *BYTES),
        (f"predict {ISSUE}", f"train-mllm {ISSUE}", f"candidate {ISSUE}", f"teach {ISSUE}"),
    ),
    Target(
        "teacher",
        "models/icd/teacher.parquet",
        (CONTROL, *PARQUET, *SPECIAL, *BYTES),
        (f"train-base {ISSUE}", f"teach {ISSUE}"),
        _any((*PARQUET, *SPECIAL, *BYTES)),
    ),
    Target(
        "scores_parquet",
        "reports/icd/scores.parquet",
        (CONTROL, *PARQUET, *PARQUET_SCORES, *SPECIAL, *BYTES),
        (
            f"evaluate {ISSUE}",
            f"thresholds {ISSUE}",
            f"stability {ISSUE}",
            f"report {ISSUE} --no-registry",
            "cascade fit reports/icd/scores.parquet --precision 0.3 --json",
        ),
        {"drop_id": "any", "score_above_1": "any"},
    ),
    Target(
        "scores_csv",
        "scores.csv",
        (CONTROL, *CSV, *LABELS, *SCORES, *SPECIAL, *BYTES),
        ("cascade fit scores.csv --precision 0.3 --json",),
        {"cut_last": "any", "column_near": "any", "column_case": "any"},
    ),
    Target(
        "scores_second",
        "scores.csv",
        (CONTROL, *CSV, *SPECIAL, *BYTES),
        ("cascade fit reports/icd/scores.parquet --mllm-file scores.csv --precision 0.3 --json",),
        {"column_near": "any", "column_case": "any", "column_gone": "any"},
    ),
    Target(
        "reviewed",
        "reviewed.csv",
        (CONTROL, *CSV, *LABELS, *SPECIAL, *BYTES),
        (f"vmp audit {ISSUE} --labels reviewed.csv --json",),
    ),
    Target(
        "reviewed_parquet",
        "reviewed.parquet",
        (CONTROL, *PARQUET, *PARQUET_IDS, *SPECIAL, *BYTES),
        (f"vmp audit {ISSUE} --labels reviewed.parquet --json",),
    ),
    Target("fresh", "fresh.csv", (CONTROL, *CSV, *LABELS, *SPECIAL, *BYTES), _RETUNE),
    Target(
        "traffic",
        "traffic.csv",
        (CONTROL, *CSV, *SPECIAL, *BYTES),
        _RETUNE,
        {"cut_last": "any", "column_near": "any", "column_case": "any", "column_gone": "any"},
    ),
    Target(
        "table",
        "near.csv",
        (CONTROL, *CSV, *CLIPS, *SPECIAL, *BYTES),
        ("score near.csv --json", "vmp publish near.csv --state fresh --json"),
        {"header_only": "any"},
    ),
    Target(
        "table_parquet",
        "near.parquet",
        (CONTROL, *PARQUET, *PARQUET_IDS, *SPECIAL, *BYTES),
        ("score near.parquet --json", "vmp publish near.parquet --state fresh --json"),
        {"drop_id": "any", "no_rows": "any"},
    ),
    Target(
        "metadata",
        "data/raw/metadata.csv",
        (CONTROL, *CSV, *LABELS, *SPECIAL, *BYTES),
        ("ingest",),
        {"id_twice": "any", "column_case": "refuse"},
    ),
    Target(
        "batch",
        "batch/metadata.csv",
        (CONTROL, *CSV, *CLIPS, *LABELS, *SPECIAL, *BYTES),
        (
            "data snapshot --from batch --no-push --json",
            "score batch --json",
            "vmp publish batch --state fresh --json",
            "data reupload --from batch --out again --size 64 --fps 5 --seconds 1 --workers 1 --json",
        ),
        {"missing": "any", "bad_label": "any"},
    ),
    Target(
        "batch_jsonl",
        "batch_jsonl/metadata.jsonl",
        (CONTROL, *JSONL, *SPECIAL, *BYTES),
        ("score batch_jsonl --json", "vmp publish batch_jsonl --state fresh --json"),
        {"missing": "any"},
    ),
    Target(
        "clip",
        "data/raw/videos/s7-000001.mp4",
        (CONTROL, *CLIP_MUTATIONS, *SPECIAL, *BYTES),
        (
            "score data/raw/videos/s7-000001.mp4 --json",
            "vmp publish data/raw/videos/s7-000001.mp4 --state fresh --json",
        ),
        {"cut_last": "any"},
    ),
    Target(
        "tracking",
        "mlflow.db",
        (CONTROL, *SQLITE, *SPECIAL, *BYTES),
        (
            "status --json",
            "history --json",
            "score data/raw/videos/s7-000001.mp4 --json",
            f"register {ISSUE} --json",
            f"approve {ISSUE} --by ana --reason x --override",
            f"reject {ISSUE} --by ana --reason x",
            f"rollback {ISSUE} --by ana --reason x",
            "vmp run --once --json",
            "data reference",
            f"report {ISSUE}",
        ),
        {"missing": "any", "dangling_link": "any", "half": "any"},
    ),
    Target(
        "log",
        "vmp/log.sqlite",
        (CONTROL, *SQLITE, *SPECIAL, *BYTES),
        (
            "vmp status --json",
            "vmp publish near.csv --json",
            "vmp dlq replay --json",
            "vmp run --once --json",
            "vmp forget clip0 --json",
            "vmp compact --json",
        ),
        {"half": "any"},
    ),
    Target(
        "index",
        "vmp/index.sqlite",
        (CONTROL, *SQLITE, *SPECIAL, *BYTES),
        (
            "vmp status --json",
            "vmp get clip0 --json",
            "vmp dlq list --json",
            "vmp dlq show clip0 --json",
            "vmp dlq drop clip0 --json",
            "vmp run --once --json",
            f"vmp audit {ISSUE} --labels reviewed.csv --json",
            f"vmp audit draw {ISSUE} --labels 4 --seed 1 --out again.csv --json",
            "vmp audit estimates --json",
            "vmp scan --json",
            "vmp changes --json",
            "vmp export index.csv",
            "vmp export index.jsonl",
            "vmp compact --json",
            "vmp forget clip0 --json",
            "vmp override clip0 --verdict removed --by ana --reason x --json",
            "vmp mllm --once --json",
            "vmp rescore start --dry-run --json",
            "vmp rescore start --json",
            "vmp rescore status --json",
        ),
        {"half": "any", "missing": "any", "dangling_link": "any"},
    ),
    # no campaign runs, so the whole index is refused as well as a damaged one
    Target(
        "campaign",
        "vmp/index.sqlite",
        (*SQLITE, *SPECIAL, *BYTES),
        ("vmp rescore pause --json", "vmp rescore resume --json"),
    ),
    Target(
        "drawn",
        "drawn.csv",
        (CONTROL, *CSV, *LABELS, *SPECIAL, *BYTES),
        ("vmp audit import --draw 1 --labels drawn.csv --batch batch/metadata.csv --json",),
    ),
    Target(
        "probe_cache",
        ".coefvq/cache/probes.sqlite",
        (CONTROL, *SQLITE, *SPECIAL, *BYTES),
        ("ingest",),
        {**_any((*SQLITE, *SPECIAL, *BYTES)), "empty": "accept"},
    ),
    Target(
        "clip_cache",
        ".coefvq/cache/clips/**/*.safetensors",
        _CACHE,
        ("score data/raw --json", f"predict {ISSUE}"),
        _MADE_AGAIN,
    ),
    Target(
        "clip_files",
        ".coefvq/cache/clips/**/*.safetensors",
        _CACHE,
        ("clips stats --json", "clips prune --max-gib 0 --json"),
        _any((*SPECIAL, *BYTES)),
    ),
    Target(
        "feature_cache",
        ".coefvq/cache/features/**/*.*",
        _CACHE,
        (
            f"train-base {ISSUE}",
            "features stats --json",
            "features verify --json",
            "features prune --max-gib 0 --json",
            f"features build {ISSUE} --kind base --json",
        ),
        _any((*SPECIAL, *BYTES)),
    ),
    Target("pipeline", "dvc.yaml", _PIPELINE, _SNAPSHOT, _any(_PIPELINE)),
    Target("raw_pointer", "data/raw.dvc", _PIPELINE, _SNAPSHOT, _any(_PIPELINE)),
)
