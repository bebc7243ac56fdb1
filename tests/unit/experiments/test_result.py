"""From scores to a table: frozen before test is seen, paired intervals, verdicts, pages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.cascade.curves import best_f1_threshold
from coefvq.errors import DataError
from coefvq.evaluation.intervals import Interval
from coefvq.evaluation.metrics import classification_summary
from coefvq.experiments.certified import certified_row
from coefvq.experiments.grid import shipped_grid
from coefvq.experiments.measure import BEST, F1, MeasureSettings, measure
from coefvq.experiments.pages import BEGIN, END, table_page, terminal_table, written
from coefvq.experiments.result import issue_result
from coefvq.experiments.scores import Frozen, Row, freeze, share_row
from coefvq.experiments.verdicts import verdict
from tests.unit.experiments.worlds import world

TABLES = shipped_grid().tables
SETTINGS = MeasureSettings((60.0, 70.0, 80.0, 90.0), 40, 7)


@pytest.fixture(scope="module")
def whole():
    return world()


@pytest.fixture(scope="module")
def second(whole):
    return issue_result("2", TABLES["2"], whole, SETTINGS, None, {})


def row(part, name):
    return next(entry for entry in part["rows"] if entry["name"] == name)


def test_labels_of_test_change_no_threshold(whole):
    """The guard: whatever stands in the rows of test, what is frozen is the same; and test rows are refused."""
    other = whole.table.copy()
    test = other["split"] == "test"
    other.loc[test, "label"] = 1.0 - other.loc[test, "label"]
    other.loc[test, [name for name in other if "@" in name or name.startswith("posterior")]] = 0.5
    frozen = [list(freeze(replace(whole, table=table).without_test(), TABLES["2"])) for table in (whole.table, other)]
    assert frozen[0] == frozen[1]
    with pytest.raises(DataError, match="before test is seen"):
        list(freeze(whole, TABLES["2"]))


def test_figures_are_those_of_the_library(whole):
    rows = list(freeze(whole.without_test(), TABLES["2"]))
    measured = measure(whole, [entry for entry in rows if entry.name == "MLLM"], SETTINGS, None)
    val, test = (whole.table[whole.table["split"] == name] for name in ("val", "test"))
    each = [
        classification_summary(
            test["posterior"],
            test[f"mllm@{seed}"],
            None,
            best_f1_threshold(val["label"], val[f"mllm@{seed}"]).threshold,
            SETTINGS.precision_targets,
        )
        for seed in (0, 1)
    ]
    for key in (F1, "r_at_p60", "roc_auc"):
        assert measured.interval("MLLM", key).value == pytest.approx(np.mean([found[key] for found in each]))
    assert measured.interval("MLLM", BEST).value >= measured.interval("MLLM", F1).value


def test_a_precision_that_is_not_reached_counts_zero():
    part = world(posterior=False)
    table = part.table.assign(**{"mllm@0": 0.5, "mllm@1": 0.5})
    flat = Row("flat", tuple(Frozen("flat", f"mllm@{seed}", 0.5) for seed in (0, 1)))
    found = measure(replace(part, table=table), [flat], SETTINGS, None).interval("flat", "r_at_p90")
    assert (found.value, found.low, found.high, found.undefined) == (0.0, 0.0, 0.0, 0.0)


@settings(max_examples=3)
@given(st.integers(0, 1000))
def test_a_row_never_differs_from_itself(seed):
    part = world(60, seed=seed)
    rows = [entry for entry in freeze(part.without_test(), TABLES["2"]) if entry.name.endswith("base alone")]
    measured = measure(part, rows, replace(SETTINGS, replicates=10), None)
    for entry in rows:
        same = measured.difference(entry.name, entry.name, F1)
        assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    one, other = rows[0].name, rows[1].name
    forth, back = measured.difference(one, other, F1), measured.difference(other, one, F1)
    assert forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high)


def test_groups_are_drawn_as_wholes(whole):
    rows = [entry for entry in freeze(whole.without_test(), TABLES["2"]) if entry.name == "MLLM"]
    few = {video: f"c{at % 6}" for at, video in enumerate(whole.table["video_id"])}
    widths = [
        found.high - found.low
        for found in (measure(whole, rows, SETTINGS, groups).interval("MLLM", F1) for groups in (None, few))
    ]
    assert widths[0] != widths[1]


def test_the_cascade_s_rows(second):
    names = [entry["name"] for entry in second["rows"]]
    for name in (
        "MLLM",
        "distilled, base alone",
        "paper, P_base 50",
        "random, 10 % of calls",
        "Bayes all, 5 % of calls",
    ):
        assert name in names
    for percent in TABLES["2"].cascade.qps:
        # each half of traffic is measured at the threshold of the other
        assert row(second, share_row("distilled", percent))["qps_ratio"] == pytest.approx(percent, abs=3.0)
    best, chance = (row(second, share_row(base, 10.0))["figures"]["f1"]["value"] for base in ("distilled", "random"))
    assert best > chance + 0.1
    assert row(second, "MLLM")["kept"]["f1"]["value"] == 1.0
    assert row(second, "paper, P_base 50")["paper"]["qps_ratio"] == 16.7
    assert row(second, "MLLM")["paper"]["r_at_p60"] == 92.3


def test_certified_thresholds_keep_their_promise_on_test_or_say_what_they_lack(whole):
    spec = TABLES["2"].cascade.certified
    name = certified_row("distilled", spec)
    many = world(3000)
    (found,) = (entry for entry in freeze(many.without_test(), TABLES["2"]) if entry.name == name)
    test = many.table[many.table["split"] == "test"]
    for seed, part in enumerate(found.parts):
        base, mllm = (test[f"{model}@{seed}"].to_numpy() for model in ("distilled", "mllm"))
        flagged = part.policy.decide(base, mllm)
        assert test["label"][flagged].mean() >= spec.precision / 100.0
        assert part.policy.escalates(base).mean() <= spec.qps / 100.0
        assert part.calls <= spec.qps
    (refused,) = (entry for entry in freeze(world(40).without_test(), TABLES["2"]) if entry.name == name)
    assert refused.parts == ()
    assert "labels" in refused.reason


def test_regret_adds_up(second):
    assert len(second["regret"]) == 3 * len(TABLES["2"].cascade.qps)
    for entry in second["regret"]:
        parts = sum(entry[key]["value"] for key in ("modality", "learning", "selection"))
        assert entry["whole"]["value"] == pytest.approx(parts)
        assert entry["modality"]["value"] >= -1e-12


def test_an_unreachable_p_base_says_so():
    part = world()
    noise = part.table.assign(
        **{f"base@{seed}": np.random.default_rng(seed).random(len(part.table)) for seed in (0, 1)}
    )
    rows = {entry.name: entry for entry in freeze(replace(part, table=noise).without_test(), TABLES["2"])}
    assert rows["paper, P_base 70"].reason.startswith("unreachable: best precision")


def test_a_failed_model_keeps_its_reason_and_the_others_their_rows(whole):
    lost = whole.table.drop(columns=["multitower@0"])
    failed = {"multitower": "ucc-multitower-s0: out of memory"}
    part = issue_result("2", TABLES["2"], replace(whole, table=lost), SETTINGS, None, failed)
    assert row(part, "multi-tower")["reason"] == "failed: ucc-multitower-s0: out of memory"
    assert row(part, "distilled, base alone")["figures"] is not None
    assert "out of memory" in table_page("2", "x", [part])


@pytest.mark.parametrize(
    ("ends", "bound", "expected"),
    [
        ((0.01, 0.2), 0.0, "holds"),
        ((0.0, 0.2), 0.0, "can't tell"),
        ((-0.1, 0.2), 0.0, "can't tell"),
        ((-0.2, -0.01), 0.0, "does not hold"),
        ((0.96, 1.01), 0.97, "can't tell"),
        ((0.98, 1.01), 0.97, "holds"),
        ((None, None), 0.0, "can't tell"),
    ],
)
def test_a_verdict_needs_an_interval_off_the_bound(ends, bound, expected):
    assert verdict(Interval(0.1, *ends), bound) == expected


def test_claims_stand_beside_the_paper_s_figures(second):
    claims = {entry["claim"]: entry for entry in second["claims"]}
    random = claims["The base model's choice of videos beats a random one (distilled base, 10 % of calls)"]
    assert (random["verdict"], random["of_the_paper"], random["paper"]) == ("holds", False, None)


def test_results_are_json_and_the_same_each_time(whole, second):
    again = issue_result("2", TABLES["2"], whole, SETTINGS, None, {})
    assert json.dumps(again, sort_keys=True, allow_nan=False) == json.dumps(second, sort_keys=True, allow_nan=False)


def test_pages(second):
    page = table_page("2", "the cascade", [second])
    assert "| MLLM |" in page
    assert "(92.3)" in page
    assert "best on test" in page
    assert terminal_table("2", "the cascade", second).row_count == len(second["rows"])


def test_only_what_is_between_the_markers_is_written():
    assert written(f"a\n{BEGIN}\nold\n{END}\nb", "new\n", "x.md") == f"a\n{BEGIN}\nnew\n{END}\nb"
    for damaged in ("a", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"):
        with pytest.raises(DataError, match=r"x\.md: expected one line"):
            written(damaged, "new\n", "x.md")
