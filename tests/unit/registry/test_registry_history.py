"""Reading the history: who was champion before whom, and what was decided on."""

from __future__ import annotations

import pytest

from coefvq.errors import RegistryError
from coefvq.registry.history import (
    MAX_REASON_CHARS,
    Decision,
    champion_stack,
    checked_person,
    is_decided_champion,
    last_verdict,
)


def _decision(action: str, version: str, state: str = "done", content: str | None = None) -> Decision:
    ends = {"from_version": version} if action == "reject" else {"to_version": version}
    return Decision.model_validate(
        {
            "sequence": 1,
            "at": "2026-11-22T10:00:00.000+00:00",
            "by": "ana",
            "reason": "why",
            "action": action,
            "issue": "icd",
            "content_hash": content or f"hash-of-{version}",
            "state": state,
            **ends,
        }
    )


def _stack(*history: Decision) -> list[str]:
    return [version for version, _ in champion_stack(history)]


def test_approvals_pile_up_and_rollbacks_take_them_off() -> None:
    one, two, three = (_decision("approve", version) for version in "123")
    assert _stack() == []
    assert _stack(one, two, three) == ["1", "2", "3"]
    assert _stack(one, two, three, _decision("rollback", "2")) == ["1", "2"]
    assert _stack(one, two, three, _decision("rollback", "1")) == ["1"]
    assert _stack(one, two, _decision("rollback", "1"), three) == ["1", "3"]
    assert _stack(one, two, one, _decision("rollback", "2")) == ["1", "2"]


def test_a_rollback_to_the_top_after_a_hand_moved_alias_takes_nothing_off() -> None:
    assert _stack(_decision("approve", "1"), _decision("rollback", "1")) == ["1"]


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_only_what_was_carried_out_counts(state: str) -> None:
    undone = _decision("approve", "2", state)
    assert _stack(_decision("approve", "1"), undone, _decision("reject", "3")) == ["1"]
    assert last_verdict([undone], "2", "hash-of-2") is None


def test_the_champion_is_what_the_last_decision_put_there() -> None:
    one, two = (_decision("approve", version) for version in "12")
    back = _decision("rollback", "1")
    interrupted = _decision("approve", "3", "pending")

    def champions(*history: Decision) -> list[str]:
        return [version for version in "123" if is_decided_champion(history, version, f"hash-of-{version}")]

    assert champions() == []
    assert champions(one, two) == ["2"]
    assert champions(one, two, back) == ["1"]
    assert champions(one, two, _decision("reject", "3")) == ["2"]
    # the alias may have moved already or not
    assert champions(one, two, interrupted) == ["2", "3"]
    assert champions(one, two, _decision("approve", "3", "failed")) == ["2"]
    assert not is_decided_champion([one], "1", "another hash")


def test_a_verdict_is_on_a_version_with_its_content() -> None:
    past = [_decision("approve", "1"), _decision("reject", "2"), _decision("rollback", "1")]
    found = last_verdict(past, "2", "hash-of-2")
    assert found is past[1]
    assert last_verdict(past, "1", "hash-of-1") is past[0]
    assert last_verdict(past, "1", "number 1 was given again") is None
    assert last_verdict(past, "3", "hash-of-3") is None


def test_name_and_reason_are_trimmed_and_limited() -> None:
    assert checked_person(" ana ", "\twhy\n") == ("ana", "why")
    checked_person("ana", "x" * MAX_REASON_CHARS)
    for by, reason in (("ana", "x" * (MAX_REASON_CHARS + 1)), ("x" * (MAX_REASON_CHARS + 1), "why")):
        with pytest.raises(RegistryError, match="2000 characters each; shorten"):
            checked_person(by, reason)


def test_a_damaged_record_is_named() -> None:
    damaged = _decision("approve", "1").model_copy(update={"to_version": None, "run_id": "r-7"})
    with pytest.raises(RegistryError, match="decision r-7: approve without a version"):
        _ = damaged.bundle_version
