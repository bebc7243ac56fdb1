"""The Filter: what a rules file may say, which rule wins, and what an error tells."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coefvq.errors import ConfigError
from coefvq.records import ScoredVideo
from coefvq.vmp.kept_rules import SHIPPED, kept_rules, next_rules
from coefvq.vmp.records import Candidate, Decision, Event
from coefvq.vmp.rules import FIELDS, Rules, load_rules, parse_rules
from coefvq.vmp.ruling import decide

NOW = datetime(2026, 2, 1, tzinfo=UTC)
EVENT = Event("v", title="hello", views=10, published_at="2026-01-31T18:00:00+00:00", source_version=1)


def score(issue: str = "icd", base: float | None = 0.2, mllm: float | None = None, **kw: object) -> ScoredVideo:
    decided_by = "none" if base is None else "base" if mllm is None else "mllm"
    fields = {"positive": False if base is not None else None, **kw}
    return ScoredVideo("v", issue, base, mllm, decided_by=decided_by, bundle_version="3-ab", **fields)


def failed(issue: str = "icd") -> ScoredVideo:
    return score(issue, base=None, error="undecodable")


def one_rule(condition: str, extra: str = "") -> Rules:
    text = f"rules: [{{name: r, {extra} when: [{condition}], then: removed}}]\ndefault: live"
    return parse_rules(text, "rules.yaml")


def fires(rules: Rules, candidate: Candidate) -> bool:
    return decide(candidate, rules, NOW) == Decision("removed", "r")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([score()], Decision("live", "default")),
        ([score(positive=True)], Decision("removed", "positive")),
        ([score("icd"), score("ucc", positive=True)], Decision("removed", "positive")),
        ([failed()], Decision("ignored", "unscored")),
        ([score("icd"), failed("ucc")], Decision("ignored", "unscored")),
        ([score("icd", positive=True), failed("ucc")], Decision("removed", "positive")),
        ([], Decision("ignored", "unscored")),
    ],
)
def test_shipped_rules(scores: list[ScoredVideo], expected: Decision) -> None:
    assert decide(Candidate(EVENT, tuple(scores)), load_rules(), NOW) == expected


def test_deletion_needs_no_rule() -> None:
    rules = parse_rules("rules: []\ndefault: live", "r")
    assert decide(Candidate(Event("v", "delete")), rules, NOW) == Decision("removed", "deleted")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('{field: base_score, op: ">=", value: 0.2}', True),
        ('{field: base_score, op: ">", value: 0.2}', False),
        ('{field: base_score, op: "<=", value: 0.2}', True),
        ('{field: base_score, op: "<", value: 0.2}', False),
        ('{field: base_score, op: "==", value: 0.2}', True),
        ('{field: views, op: "!=", value: 10}', False),
        ('{field: views, op: "in", value: [1, 10]}', True),
        ('{field: title_length, op: "==", value: 5}', True),
        ('{field: age_hours, op: "==", value: 6}', True),
        ('{field: decided_by, op: "in", value: [base, none]}', True),
        ('{field: decided_by, op: "!=", value: base}', False),
        ('{field: error, op: "==", value: false}', True),
        ('{field: positive, op: "!=", value: true}', True),
        ("{field: mllm_score, op: missing, value: true}", True),
        ("{field: mllm_score, op: missing, value: false}", False),
        ("{field: base_score, op: missing, value: false}", True),
    ],
)
def test_operators(condition: str, expected: bool) -> None:
    assert fires(one_rule(condition), Candidate(EVENT, (score(),))) is expected


@pytest.mark.parametrize("op", ["==", "!=", "<", "<=", ">", ">="])
def test_nothing_but_missing_holds_on_a_missing_fact(op: str) -> None:
    rules = one_rule(f'{{field: mllm_score, op: "{op}", value: 0.5}}')
    assert not fires(rules, Candidate(EVENT, (score(mllm=None),)))


def test_conditions_must_hold_for_the_same_issue() -> None:
    both = '{field: base_score, op: ">", value: 0.8}, {field: decided_by, op: "==", value: base}'
    split = Candidate(EVENT, (score("icd", 0.9, 0.1), score("ucc", 0.1)))
    assert not fires(one_rule(both), split)
    assert fires(one_rule(both), Candidate(EVENT, (score("icd", 0.1), score("ucc", 0.9))))


def test_a_rule_may_name_one_issue() -> None:
    rules = one_rule('{field: base_score, op: ">", value: 0.8}', "issue: ucc,")
    assert not fires(rules, Candidate(EVENT, (score("icd", 0.9), score("ucc", 0.1))))
    assert fires(rules, Candidate(EVENT, (score("icd", 0.1), score("ucc", 0.9))))


def test_a_rule_for_an_issue_still_sees_that_nothing_was_scored() -> None:
    assert fires(one_rule('{field: error, op: "==", value: true}', "issue: ucc,"), Candidate(EVENT))


def test_a_rule_for_an_issue_nobody_scores_is_refused_even_behind_a_match() -> None:
    text = """
rules:
  - {name: first, when: [{field: views, op: ">", value: 1}], then: removed}
  - {name: typo, issue: icdd, when: [{field: positive, op: "==", value: true}], then: removed}
default: live
"""
    with pytest.raises(ConfigError, match="rule 'typo': issue 'icdd' is not scored; expected one of icd"):
        decide(Candidate(EVENT, (score(),)), parse_rules(text, "r"), NOW)


CONDITION = 'when: [{field: views, op: ">", value: 1}]'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: []", "r.yaml: default: missing key; add it"),
        ("default: live", "r.yaml: rules: missing key"),
        ("rules: []\ndefault: kept", "r.yaml: default = \"kept\": expected live, removed or ignored"),
        ("rules: []\ndefault: ignored\nfoo: 1", "r.yaml: foo: unknown key"),
        ("- a", "expected the keys rules and default"),
        ("rules: [{name: r, when: [{field: views, op: >=, value: 1}]}]", "r.yaml line 1: not readable as YAML; put"),
        (f"rules: [{{name: r, {CONDITION}, then: removed, iff: 1}}]\ndefault: ignored", r"rule 1 ('r'), iff: unknown"),
        (f"rules: [{{name: r, {CONDITION}}}]\ndefault: ignored", "rule 1 ('r'), then: missing key; add it"),
        (f"rules: [{{name: r, {CONDITION}, thn: removed}}]\ndefault: ignored", "unknown key; did you mean 'then'?"),
        ("rules: [{name: r, when: [], then: removed}]\ndefault: ignored", "rule 1 ('r'), when = []: "),
        (f"rules: [{{name: default, {CONDITION}, then: removed}}]\ndefault: ignored", "used by the platform"),
        (
            f"rules: [{{name: r, {CONDITION}, then: removed}}, {{name: r, {CONDITION}, then: removed}}]"
            "\ndefault: ignored",
            "the name 'r' is used twice",
        ),
    ],
)  # fmt: skip
def test_errors_name_file_rule_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_rules(text, "r.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("r.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('{field: vews, op: ">", value: 1}', "condition 1, field: 'vews': unknown field; did you mean 'views'?"),
        ('{field: xyzq, op: ">", value: 1}', "known here: positive, error"),
        ('{field: views, op: "=>", value: 1}', 'condition 1, op = "=>": expected ==, !=, <'),
        ('{field: views, opp: ">", value: 1}', "condition 1, opp: unknown key; did you mean 'op'?"),
        ('{field: views, op: ">", value: 1, valeu: 2}', "valeu: unknown key; did you mean 'value'?"),
        ('{field: views, op: ">", value: many}', 'value = "many": views takes a number'),
        ('{field: views, op: "==", value: true}', "value = true: views takes a number"),
        ('{field: base_score, op: ">", value: "1e-3"}', "takes a number"),
        ('{field: base_score, op: ">", value: .nan}', "value = NaN: base_score takes a number"),
        ('{field: positive, op: "==", value: 1}', "value = 1: positive takes true or false"),
        ('{field: positive, op: ">", value: true}', "positive is not a number; use == or !="),
        ('{field: decided_by, op: "in", value: base}', "op 'in' on decided_by takes a list of texts"),
        ('{field: views, op: "in", value: [1, x]}', "op 'in' on views takes a list of numbers"),
        ("{field: views, op: missing, value: 3}", "op 'missing' takes true (is missing) or false"),
    ],
)
def test_condition_errors(condition: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        one_rule(condition)
    assert "rules.yaml: rule 1 ('r'), condition 1" in str(error.value)
    assert message in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; --rules takes a YAML file"):
        load_rules(Path("none.yaml"))


def test_rules_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_rules().default = "removed"  # type: ignore[misc]


def test_the_documented_example_loads_and_every_field_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "vmp.md").read_text(encoding="utf-8")
    example = text.partition("## Rules file")[2].split("```yaml\n")[1].split("```")[0]
    assert [rule.then for rule in parse_rules(example, "docs/vmp.md").rules] == ["removed", "ignored", "ignored"]
    assert [field for field in FIELDS if f"`{field}`" not in text] == []


@pytest.mark.parametrize("rule", ["", '{name: seen, when: [{field: views, op: ">", value: 1}], then: live}'])
def test_an_unscored_video_never_remains_unless_a_rule_says_so(rule: str) -> None:
    rules = parse_rules(f"rules: [{rule}]\ndefault: live", "r")
    for scores in ((), (failed(),), (score("icd"), failed("ucc"))):
        assert decide(Candidate(EVENT, scores), rules, NOW) == Decision("ignored", "unscored")
    assert decide(Candidate(EVENT, (score(),)), rules, NOW).outcome == "live"
    says = '{name: anyway, when: [{field: error, op: "==", value: true}], then: live}'
    rules = parse_rules(f"rules: [{says}]\ndefault: ignored", "r")
    assert decide(Candidate(EVENT, (failed(),)), rules, NOW) == Decision("live", "anyway")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{field: title, op: matches, value: '^hel+o$'}", True),
        ("{field: title, op: matches, value: 'x'}", False),
        ('{field: title, op: "==", value: hello}', True),
        ("{field: tags, op: contains, value: SALE}", True),
        ("{field: tags, op: contains, value: SAL}", False),
    ],
)
def test_words_of_a_video(condition: str, expected: bool) -> None:
    event = Event("v", title="hello", stickers=("SALE", "part 2"), source_version=1)
    assert fires(one_rule(condition), Candidate(event, (score(),))) is expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("{field: title, op: matches, value: '('}", "no regular expression"),
        ("{field: views, op: matches, value: 'x'}", "views is not a text"),
        ('{field: tags, op: "==", value: SALE}', "tags takes op 'contains'"),
        ("{field: title, op: contains, value: SALE}", "tags takes op 'contains'"),
        ("{field: tags, op: contains, value: [SALE]}", "tags takes op 'contains'"),
    ],
)
def test_conditions_on_words_that_do_not_fit(condition: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        one_rule(condition)


def test_rules_are_kept_with_the_state_and_a_change_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    state, mine = tmp_path / "vmp", tmp_path / "mine.yaml"
    mine.write_text("rules: []\ndefault: ignored\n")
    assert kept_rules(state, None, said.append) == load_rules()
    assert kept_rules(state, mine, said.append).default == "ignored"
    assert said == []
    assert next_rules(state, None).default == "ignored"
    assert kept_rules(state, None, said.append).default == "ignored"
    assert "those of the last run" in said[-1]
    kept_rules(state, mine, said.append)
    assert len(said) == 1
    mine.write_text("rules: []\ndefault: nonsense\n")
    with pytest.raises(ConfigError):
        kept_rules(state, mine, said.append)
    assert next_rules(state, None).default == "ignored"
    mine.write_text("rules: []\ndefault: removed\n")
    kept_rules(state, mine, said.append)
    assert "differs from those of the last run" in said[-1]
    assert kept_rules(state, SHIPPED, said.append) == load_rules() == next_rules(state, None)
    assert "are gone" in said[-1]
