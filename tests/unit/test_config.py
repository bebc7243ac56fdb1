"""params.yaml: what is accepted, and what the one-line refusals say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coefvq.config import Recipe, check_issue_name, load_params, load_recipe, parse_params, parse_recipe
from coefvq.errors import ConfigError
from flows.commands import init
from flows.demo import DemoRequest, run_demo
from tasks.start import IssueSource
from tasks.workspace import change_params

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def recipe(repository: Path) -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load((repository / "recipe.yaml").read_text()))


@pytest.fixture
def raw(repository: Path) -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load((repository / "params.yaml").read_text()))


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_params(raw, load_recipe(REPOSITORY / "recipe.yaml"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_projects_own_params_are_valid_and_frozen(repository: Path) -> None:
    params = load_params(repository / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1  # type: ignore[misc]


def test_unknown_key_names_the_likely_one(raw: dict[str, Any]) -> None:
    raw["base"]["icd"]["training"] = {"learning_rat": 0.1}
    assert refusal(raw) == ("params.yaml: base.icd.training.learning_rat: unknown key; did you mean 'learning_rate'?")


def test_the_recipe_is_checked_under_its_own_name(recipe: dict[str, Any]) -> None:
    recipe["base"]["training"]["learning_rat"] = 0.1
    del recipe["mllm"]["lora"]["alpha"]
    expected = (
        r"^recipe\.yaml: base\.training\.learning_rat: unknown key; did you mean 'learning_rate'\?"
        r"; mllm\.lora\.alpha: missing key[^\n]*$"
    )
    with pytest.raises(ConfigError, match=expected):
        parse_recipe(recipe, "recipe.yaml")


def test_what_belongs_in_the_other_file_is_said(raw: dict[str, Any], recipe: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml: thresholds: unknown key; known here: base, media, mllm, mod"):
        parse_recipe(recipe | {"thresholds": raw["thresholds"]}, "recipe.yaml")
    assert refusal(raw | {"models": recipe["models"]}) == "params.yaml: models: belongs in recipe.yaml; move it there"
    assert "media.frames = 4: expected" in refusal(raw | {"media": recipe["media"]})


def test_an_override_changes_one_issue_and_nothing_else(raw: dict[str, Any], repository: Path) -> None:
    recipe = load_recipe(repository / "recipe.yaml")
    plain = parse_params(raw, recipe)
    raw["mllm"]["ucc"] = {"lora": {"rank": 3}, "training": {"learning_rate": 0.5}}
    params = parse_params(raw, recipe)
    assert params.mllm["icd"] == plain.mllm["icd"]
    assert params.mllm["ucc"].lora == plain.mllm["ucc"].lora.model_copy(update={"rank": 3})
    assert params.mllm["ucc"].training == plain.mllm["ucc"].training.model_copy(update={"learning_rate": 0.5})
    assert recipe.mllm.lora.rank == 16


def test_an_override_that_contradicts_the_recipe_names_its_key(raw: dict[str, Any]) -> None:
    raw["mllm"]["ucc"] = {"alignment": {"epochs": 1}}  # the recipe has none that it could change
    assert "params.yaml: mllm.ucc.alignment.per_device_train_batch_size: missing key" in refusal(raw)
    raw["mllm"]["ucc"] = {"lora": 3}
    assert "params.yaml: mllm.ucc.lora = 3: expected" in refusal(raw)
    raw["mllm"]["ucc"] = None
    assert "params.yaml: mllm.ucc = null: expected" in refusal(raw)


def test_unknown_key_far_from_any_lists_what_is_known(raw: dict[str, Any]) -> None:
    raw["gate"]["zzz"] = 1
    message = refusal(raw)
    assert "gate.zzz" in message
    assert "max_qps_ratio" in message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("seed",), "seven", 'seed = "seven": expected a valid integer'),
        (("seed",), 1.5, "seed = 1.5: expected a valid integer"),
        (("predict", "batch_size"), 0, "predict.batch_size = 0: expected greater than or equal to 1"),
        (("mllm", "icd", "text"), "yes", 'mllm.icd.text = "yes": expected a valid boolean'),
        (("media", "icd", "frame_size"), 50, "media.icd.frame_size = 50: expected a multiple of 16"),
        (("base", "icd", "architecture"), "vgg", 'base.icd.architecture = "vgg": expected'),
    ],
)
def test_ill_typed_value_says_key_value_and_expectation(
    raw: dict[str, Any], path: tuple[str, ...], value: Any, expected: str
) -> None:
    node = raw
    for part in path[:-1]:
        node = node.setdefault(part, {})
    node[path[-1]] = value
    assert expected in refusal(raw)


def numbers(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a tree of YAML holds numbers."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield from numbers(value, (*path, key))
    if isinstance(node, int | float) and not isinstance(node, bool):
        yield path


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan"])
def test_no_number_of_the_params_may_be_infinite_or_undefined(raw: dict[str, Any], text: str) -> None:
    places = list(numbers(raw))
    assert ("gate", "min_average_precision_gain") in places
    for *parents, last in places:
        changed = copy.deepcopy(raw)
        node = changed
        for key in parents:
            node = node[key]
        node[last] = yaml.safe_load(text)
        assert ".".join(map(str, [*parents, last])) in refusal(changed)


def test_missing_key(raw: dict[str, Any]) -> None:
    del raw["split"]["fractions"]
    assert "split.fractions: missing key" in refusal(raw)


def test_fractions_have_to_add_up(raw: dict[str, Any]) -> None:
    raw["split"]["fractions"]["train"] = 0.9
    assert "must be 1, got 1.34" in refusal(raw)


def test_every_issue_needs_its_sections(raw: dict[str, Any]) -> None:
    del raw["mllm"]["ucc"]
    assert "issue 'ucc' is listed in issues but mllm.ucc is missing" in refusal(raw)


def shared(recipe: dict[str, Any], issues: list[str]) -> Recipe:
    recipe["mllm"]["shared"] = issues
    return parse_recipe(recipe, "recipe.yaml")


def test_issues_that_share_an_mllm_have_its_heads_in_the_order_of_the_list(
    raw: dict[str, Any], recipe: dict[str, Any]
) -> None:
    raw |= {"mllm": {"icd": {}, "ucc": {}}}
    for issue in ("icd", "ucc"):
        made = parse_params(raw, shared(recipe, ["ucc", "icd"])).mllm[issue]
        assert made.issues_with(issue) == ("ucc", "icd")
        assert made.issues_with("spam") == ("spam",)


@pytest.mark.parametrize(
    ("changes", "issues", "expected"),
    [
        (
            {"media": {"icd": {}, "ucc": {"frames": 8}}},
            ["icd", "ucc"],
            "media.ucc.frames = 8, media.icd.frames = 4: icd and ucc share one MLLM (mllm.shared), so both need the "
            "same value; make them equal, or set mllm.shared: null",
        ),
        (
            {"mllm": {"icd": {"lora": {"rank": 4}}, "ucc": {}}},
            ["icd", "ucc"],
            "mllm.ucc.lora.rank = 16, mllm.icd.lora.rank = 4: icd and ucc share one MLLM",
        ),
        (
            {"mllm": {"icd": {"shared": ["ucc", "icd"]}, "ucc": {}}},
            ["icd", "ucc"],
            'mllm.ucc.shared = ["icd", "ucc"], mllm.icd.shared = ["ucc", "icd"]: ',
        ),
        ({"mllm": {"icd": {"shared": None}, "ucc": {}}}, ["icd", "ucc"], "mllm.icd.shared = null, mllm.ucc.shared = "),
        ({}, ["icd", "spam"], "mllm.icd.shared: 'spam' is not one of issues; add it there, or take it out"),
        ({}, ["icd", "icd"], "issue 'icd' comes twice"),
    ],
)
def test_a_shared_mllm_has_one_setting_for_all_its_issues(
    raw: dict[str, Any], recipe: dict[str, Any], changes: dict[str, Any], issues: list[str], expected: str
) -> None:
    raw |= {"mllm": {"icd": {}, "ucc": {}}, **changes}
    with pytest.raises(ConfigError) as caught:
        parse_params(raw, shared(recipe, issues))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_issue_shares_with_nobody(recipe: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"mllm.shared = \[\"icd\"\]"):
        shared(recipe, ["icd"])


def test_unreadable_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nissues: [icd\npaths: {}\n")
    with pytest.raises(ConfigError, match=r"line \d+: not readable as YAML"):
        load_params(path)


def test_a_workspace_without_recipe_says_so(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "params.yaml").write_text((repository / "params.yaml").read_text())
    with pytest.raises(ConfigError, match=r"recipe\.yaml: no such file; .*coefvq init"):
        load_params(tmp_path / "params.yaml")


def test_missing_file_and_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_params(tmp_path / "params.yaml")


def test_issue_that_is_not_configured(repository: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of icd, ucc"):
        load_params(repository / "params.yaml").check_issue("nsfw")


NAMES = {
    "hate-speech": "hate_speech",
    "hate speech": "hate_speech",
    "hate.speech": "hate_speech",
    "2024": "issue_2024",
    "no": "issue_no",
    "null": "issue_null",
    "true": "issue_true",
    "a/b": "a_b",
    "Nudity": "nudity",
    "": "issue",
    "a" * 33: "issue_" + "a" * 26,
    "icd\n": "icd",
}


@pytest.mark.parametrize("name", NAMES)
def test_init_and_demo_check_names_by_the_rule_of_params(tmp_path: Path, raw: dict[str, Any], name: str) -> None:
    expected = "expected a small letter, then small letters, digits or _"
    assert f"issues.0 = {json.dumps(name)}: {expected}" in refusal(raw | {"issues": [name]})
    with pytest.raises(ConfigError) as caught:
        init(tmp_path / "w", [name])
    assert f"--issue {name!r}: {expected}" in str(caught.value)
    assert str(caught.value).endswith(f"for example {NAMES[name]}")
    check_issue_name(NAMES[name])
    request = DemoRequest(tmp_path / "w", tmp_path, (IssueSource(name, "label"),), "tiny", 60, 7)
    with pytest.raises(ConfigError, match=r"--issue .*: expected a small letter"):
        run_demo(request)
    assert not (tmp_path / "w").exists()


def test_an_issue_that_comes_twice(tmp_path: Path, raw: dict[str, Any]) -> None:
    assert "issue 'icd' comes twice" in refusal(raw | {"issues": ["icd", "ucc", "icd"]})
    with pytest.raises(ConfigError, match="--issue: issue 'icd' comes twice"):
        init(tmp_path / "w", ["icd", "icd"])


def test_a_new_issue_starts_with_the_settings_of_the_first(tmp_path: Path, repository: Path) -> None:
    """`init --issue fights` said "ready", and every later command said that ingest.labels.fights is missing."""
    path = tmp_path / "params.yaml"
    for name in ("params.yaml", "recipe.yaml"):
        (tmp_path / name).write_bytes((repository / name).read_bytes())
    change_params(path, {"issues": ["fights", "ucc"]})
    params = load_params(path)
    assert params.issues == ("fights", "ucc")
    assert params.ingest.labels["fights"].column == "label_fights"
    assert params.mllm["fights"] == params.mllm["icd"] != params.mllm["ucc"]
    assert params.ingest.labels["ucc"].column == "label_ucc"
