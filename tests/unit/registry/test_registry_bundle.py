"""The candidate: what its hash covers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coefvq.errors import DataError, RegistryError
from coefvq.files import sha256_tree
from coefvq.registry.bundle import (
    bundle_version,
    model_ref,
    parse_candidate,
    read_candidate,
    registered_name,
)
from tests.unit.registry_samples import BASE, DATA, METRICS, MLLM, candidate


@pytest.mark.parametrize(
    "changes",
    [
        {"issue": "ucc"},
        {"base": BASE.model_copy(update={"sha256": "3" * 64})},
        {"mllm": MLLM.model_copy(update={"sha256": "3" * 64})},
        {"base": BASE.model_copy(update={"sha256": "2" * 64}), "mllm": MLLM.model_copy(update={"sha256": "1" * 64})},
        {"policy": {"base_threshold": 0.31}},
        {"preprocessing": {"frames": 9}},
    ],
)
def test_what_changes_an_answer_changes_the_hash(changes: dict[str, Any]) -> None:
    assert candidate(**changes).content_hash != candidate().content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"base": BASE.model_copy(update={"run_id": "r-9", "model_id": "m-9"})},
        {"data": DATA.model_copy(update={"manifest_sha256": "c" * 64, "version": None})},
        {"params": {"seed": 8}},
        {"metrics": {**METRICS, "cascade": {"f1": 0.1}, "control": {"f1": 0.2}, "n": 3}},
    ],
)
def test_what_does_not_change_an_answer_does_not(changes: dict[str, Any]) -> None:
    assert candidate(**changes).content_hash == candidate().content_hash


def test_it_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps(candidate().to_json()))
    assert read_candidate(path) == candidate()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("base", "sha256"), "abc", "candidate.json: base.sha256: "),
        (("base", "extra"), 1, "candidate.json: base.extra: "),
        (("data", "version"), 3, "candidate.json: data.version: "),
        (("issue",), "Icd!", "candidate.json: issue: "),
        (("metrics", "cascade"), None, "metrics.cascade: expected an object"),
        (("policy", "base_threshold"), 0.5, "content_hash .* is not that of its parts .* edited by hand"),
        (("params", "seed"), float("nan"), "not plain JSON"),
    ],
)
def test_a_wrong_value_is_named(path: tuple[str, ...], value: Any, message: str) -> None:
    raw: Any = candidate().to_json()
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RegistryError, match=message) as caught:
        parse_candidate(raw, "candidate.json")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    raw = candidate().to_json()
    del raw["mllm"]["run_id"]
    with pytest.raises(RegistryError, match=r"reports/icd/candidate\.json: mllm\.run_id: "):
        parse_candidate(raw, "reports/icd/candidate.json")


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_something_else_entirely_is_refused(raw: Any) -> None:
    with pytest.raises(RegistryError, match=r"^pair\.json: .*object"):
        parse_candidate(raw, "pair.json")


def test_a_policy_that_json_cannot_hold_is_refused() -> None:
    for value in (float("inf"), {1, 2}):
        with pytest.raises(RegistryError, match="policy or preprocessing is not plain JSON"):
            candidate(policy={"base_threshold": value})


def test_a_model_reference_comes_from_its_folder_and_its_run(tmp_path: Path) -> None:
    folder, record = tmp_path / "base", tmp_path / "base_run.json"
    with pytest.raises(RegistryError, match="base: no trained model here"):
        model_ref(folder, record)
    folder.mkdir()
    with pytest.raises(RegistryError, match="base: no trained model here"):
        model_ref(folder, record)
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"base_run\.json: no such file"):
        model_ref(folder, record)
    record.write_text("[]")
    with pytest.raises(DataError, match=r"base_run\.json: expected an object, got a list"):
        model_ref(folder, record)
    for text in ('{"run_id": "r"}', '{"run_id": 1, "model_id": "m"}'):
        record.write_text(text)
        with pytest.raises(RegistryError, match=r"base_run\.json: (run_id|model_id): expected a text"):
            model_ref(folder, record)
    record.write_text('{"run_id": "r", "model_id": "m", "model_uri": "models:/m"}')
    assert model_ref(folder, record).sha256 == sha256_tree(folder)
    assert model_ref(folder, record).teacher is None


def test_a_distilled_base_names_its_teacher(tmp_path: Path) -> None:
    folder, record = tmp_path / "base", tmp_path / "base_run.json"
    folder.mkdir()
    record.write_text('{"run_id": "r", "model_id": "m"}')
    (folder / "config.json").write_text(f'{{"teacher": "{"a" * 64}"}}')
    taught = model_ref(folder, record)
    assert taught.teacher == "a" * 64
    plain = candidate()
    pair = candidate(base=plain.base.model_copy(update={"teacher": taught.teacher}))
    assert pair.content_hash == plain.content_hash
    assert parse_candidate(pair.to_json(), "x").base.teacher == taught.teacher
    (folder / "config.json").write_text('{"teacher": 3}')
    with pytest.raises(RegistryError, match="base: teacher: Input should be a valid string; run the training stage"):
        model_ref(folder, record)


def test_names() -> None:
    assert registered_name("icd", "cascade") == "coefvq-icd-cascade"
    assert bundle_version("3", "0123456789abcdef") == "3-0123456789ab"
