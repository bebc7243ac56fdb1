"""Names of runs: what a person needs to tell one training from the next."""

from __future__ import annotations

import pytest

from coefvq.registry.tracking.run_names import run_name

BEFORE = {"seed": "7", "training.learning_rate": "0.01", "training.bf16": "false", "media.frames": "4", "data": "aa"}


@pytest.mark.parametrize(
    ("experiment", "before", "changes", "name"),
    [
        (None, None, {}, "violence-mllm"),
        (None, BEFORE, {}, "violence-mllm"),
        ("rusty-lamb", BEFORE, {}, "violence-mllm · rusty-lamb"),
        (None, BEFORE, {"training.learning_rate": "0.001"}, "violence-mllm · learning_rate=0.001"),
        ("x", BEFORE, {"data": "bb", "seed": "8"}, "violence-mllm · x · data=bb, seed=8"),
        (
            None,
            BEFORE,
            {"media.frames": "8", "seed": "8", "training.bf16": "true"},
            "violence-mllm · frames=8, seed=8 and 1 more",
        ),
    ],
)
def test_a_name_says_what_changed(
    experiment: str | None, before: dict[str, str] | None, changes: dict[str, str], name: str
) -> None:
    assert run_name("violence-mllm", experiment, before, {**BEFORE, **changes}) == name


def test_equal_last_words_keep_their_section_and_gone_settings_are_named() -> None:
    before = {"lora.rank": "8", "head.rank": "1", "gone": "5"}
    now = {"lora.rank": "16", "head.rank": "1"}
    assert run_name("m", None, before, now) == "m · gone=none, lora.rank=16"
