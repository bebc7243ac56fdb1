"""The file of tenants: strict, kept with the state, and part of what a deployment is."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import ConfigError
from coefvq.registry import champions
from coefvq.registry.champions import Head
from coefvq.vmp.budget import Limits
from coefvq.vmp.rules import load_rules
from coefvq.vmp.tenants import FILE, NONE, kept_tenants, load_tenants, next_tenants, own_rules
from coefvq.vmp.worker import order_of

RULES = 'rules: [{name: seen, when: [{field: views, op: ">", value: 5}], then: ignored}]\ndefault: live\n'
TENANTS = "tenants:\n  acme: {rules: acme.yaml, mllm_budget: 36/hour, mllm_burst: 2}\n  globex: {}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "acme.yaml").write_text(RULES)
    made = tmp_path / "tenants.yaml"
    made.write_text(TENANTS)
    return made


def test_each_tenant_has_its_rules_and_its_budget(file: Path) -> None:
    found = load_tenants(file)
    assert {name: one.limits for name, one in found.items()} == {
        "acme": Limits(0.01, 2.0, 1800.0),
        "globex": Limits(),
    }
    shipped = load_rules()
    rules = own_rules(found, shipped)
    assert ([rule.name for rule in rules["acme"].rules], rules["globex"]) == (["seen"], shipped)


def test_tenants_are_kept_with_their_rules_until_none(file: Path, tmp_path: Path) -> None:
    state = tmp_path / "vmp"
    state.mkdir()
    assert (next_tenants(state, file), next_tenants(state, None)) == (load_tenants(file), {})
    given = kept_tenants(state, file)
    file.unlink()
    (tmp_path / "acme.yaml").unlink()
    assert dict(kept_tenants(state, None)) == dict(given)
    assert (kept_tenants(state, NONE), (state / FILE).exists()) == ({}, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the key tenants"),
        ("tenants: [acme]", r"tenants = \[\"acme\"\]: expected"),
        ("tennants: {}", "tennants: unknown key; did you mean 'tenants'"),
        ("tenants: {acme: {budget: 1/s}}", "tenants.acme.budget: unknown key; did you mean 'mllm_budget'"),
        ("tenants: {acme: {mllm_budget: many}}", "tenants.acme.mllm_budget: MLLM budget 'many': expected calls"),
        ("tenants: {acme: {mllm_burst: 0}}", "tenants.acme.mllm_burst = 0: expected"),
        ("tenants: {acme: {mllm_max_wait: .inf}}", "mllm_max_wait"),
        ("tenants: {a/b: {}}", "a/b"),
        ("tenants: {'': {}}", "tenants"),
        ("tenants: {acme: {rules: gone.yaml}}", "gone.yaml: no such file"),
        ("tenants: {acme: {rules: {rules: [], default: gone}}}", "tenants.acme.rules: rules: default"),
        ("tenants: {acme: {rules: 5}}", "tenants.acme.rules"),
        ("tenants: {default: {rules: acme.yaml}}", "default.rules: its rules are those of --rules"),
        ("tenants: {acme: {}, acme: {}}", "acme"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_tenants(file)
    assert "\n" not in str(caught.value)
    assert str(file.parent) in str(caught.value)


def test_a_broken_file_changes_nothing_that_was_kept(file: Path, tmp_path: Path) -> None:
    kept_tenants(tmp_path / "vmp", file)
    (tmp_path / "acme.yaml").write_text("rules: [")
    with pytest.raises(ConfigError, match=r"acme\.yaml"):
        kept_tenants(tmp_path / "vmp", file)
    assert set(next_tenants(tmp_path / "vmp", None)) == {"acme", "globex"}


def test_rules_of_tenants_are_part_of_a_deployment_and_budgets_are_not(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champions, "models_of", lambda head: {"icd": "models"})
    monkeypatch.setattr(champions, "policies_of", lambda head: dict[str, CascadePolicy]())
    head, rules = Head(1, {"icd": "3-ab"}, frozenset()), load_rules()
    alone = order_of(head, rules).rules
    assert order_of(head, rules, {}).rules == alone
    first = order_of(head, rules, load_tenants(file)).rules
    file.write_text(TENANTS.replace("36/hour", "72/hour"))
    assert order_of(head, rules, load_tenants(file)).rules == first
    file.write_text(TENANTS.replace("  globex: {}\n", ""))
    assert len({alone, first, order_of(head, rules, load_tenants(file)).rules}) == 3
    # a default tenant with a budget is the state as it was
    file.write_text("tenants: {default: {mllm_budget: 1/s}}")
    assert order_of(head, rules, load_tenants(file)).rules == alone
