"""Draws for labelling: known probabilities, an estimate without bias, refusals, and the labels as training data."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from coefvq.cascade.audit_sample import AuditEstimate, uniform_draws
from coefvq.cli.vmp import app
from coefvq.data.importers import import_table
from coefvq.errors import DataError
from coefvq.vmp import audit_store
from coefvq.vmp.audit_draws import check_labels, draw, estimates, shares
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW

RATE = 0.2
IDS = [f"v{number}" for number in range(1200)]


def truth(number: int) -> int:
    """60 videos are flagged and 3 of 4 of them positive; of 140 rejected 1 in 7; of 1,000 filtered out 1 in 25."""
    return int(number % 4 != 0 if number < 60 else number % 7 == 0 if number < 200 else number % 25 == 0)


POSITIVE = {video_id: truth(number) for number, video_id in enumerate(IDS)}
FOUND = sum(POSITIVE[name] for name in IDS[:60])
MISSED = sum(POSITIVE.values()) - FOUND


def stream(seed: int, bundle: str = "1-ab") -> list[tuple[str, dict[str, Any]]]:
    """What the index holds after an audit at ``RATE`` with that seed."""
    drawn = uniform_draws(IDS, seed) < RATE
    rows: list[tuple[str, dict[str, Any]]] = []
    for number, video_id in enumerate(IDS):
        score: dict[str, Any] = {
            "base_score": 0.9,
            "mllm_score": 0.9,
            "positive": number < 60,
            "bundle_version": bundle,
        }
        if number >= 200:
            score |= {"base_score": 0.1, "audit_probability": RATE, "mllm_score": 0.5 if drawn[number] else None}
        rows.append((video_id, score))
    return rows


def estimated(seed: int, lose: float = 0.0) -> AuditEstimate:
    """An estimate from 150 labels; ``lose`` is the share of positive audit draws that never get a label."""
    sample = draw("icd", stream(seed), 150, seed)
    hard = uniform_draws([f"hard {row.video_id}" for row in sample.drawn], seed) < lose
    labels = {
        row.video_id: POSITIVE[row.video_id]
        for row, lost in zip(sample.drawn, hard, strict=True)
        if not (lost and row.kind == "audited" and POSITIVE[row.video_id])
    }
    (found,) = estimates(sample.strata, sample.drawn, labels).values()
    assert isinstance(found, AuditEstimate)
    return found


def test_the_estimate_is_unbiased_and_one_that_loses_draws_is_not() -> None:
    whole, lossy = ([estimated(seed, lose) for seed in range(200)] for lose in (0.0, 0.5))
    for name, right in (("found", FOUND), ("missed", MISSED)):
        values = np.array([getattr(one, name).value for one in whole])
        error = (values.mean() - right) / (values.std() / np.sqrt(len(values)))
        assert abs(error) < 3, (name, values.mean(), right)
    covered = sum(one.missed.low <= MISSED <= one.missed.high for one in whole)
    assert covered >= 0.95 * 200 - 8
    # the control: half of the missed positives are lost before somebody labels them
    values = np.array([one.missed.value for one in lossy])
    bias = (values.mean() - MISSED) / (values.std() / np.sqrt(len(values)))
    print(f"200 seeds: missed {np.mean([one.missed.value for one in whole]):.1f}, truth {MISSED}, interval holds it in "
          f"{covered}; with lost draws {values.mean():.1f} ({bias:.0f} standard errors)")  # fmt: skip
    assert bias < -5


def test_probabilities_are_those_of_both_draws() -> None:
    sample = draw("icd", stream(3), 90, 5)
    sizes = {stratum.kind: stratum.videos for stratum in sample.strata}
    assert Counter(row.kind for row in sample.drawn) == {"flagged": 30, "rejected": 30, "audited": 30}
    assert sum(sizes.values()) == len(IDS)
    for row in sample.drawn:
        assert row.probability == pytest.approx((RATE if row.kind == "audited" else 1.0) * 30 / sizes[row.kind])
    assert draw("icd", stream(3), 90, 5) == sample
    assert {row.video_id for row in draw("icd", stream(3), 90, 6).drawn} != {row.video_id for row in sample.drawn}


def test_each_bundle_is_drawn_and_estimated_by_itself() -> None:
    rows = [*stream(3), *((f"w{name}", score | {"bundle_version": "2-cd"}) for name, score in stream(4))]
    sample = draw("icd", rows, 120, 1)
    assert Counter((row.bundle, row.kind) for row in sample.drawn) == {
        (bundle, kind): 20 for bundle in ("1-ab", "2-cd") for kind in ("flagged", "rejected", "audited")
    }
    labels = {row.video_id: POSITIVE[row.video_id.removeprefix("w")] for row in sample.drawn if row.bundle == "1-ab"}
    found = estimates(sample.strata, sample.drawn, labels)
    assert isinstance(found["1-ab"], AuditEstimate)
    assert "has a label; draw more labels" in str(found["2-cd"])


def test_what_waits_for_the_mllm_is_left_out_and_a_waiting_audit_draw_is_not() -> None:
    rows = stream(3)
    waiting = [name for name, score in rows if score["mllm_score"] == 0.5]
    later = [
        (name, score | ({"mllm_score": None, "awaits": "audit"} if name in waiting else {})) for name, score in rows
    ]
    assert draw("icd", later, 90, 5).drawn == draw("icd", rows, 90, 5).drawn
    undecided = [*rows, ("x", {"base_score": 0.9, "mllm_score": None, "awaits": "mllm", "bundle_version": "1-ab"})]
    assert draw("icd", undecided, 90, 5) == draw("icd", rows, 90, 5)


def test_shares_go_round() -> None:
    assert shares({("b", "x"): 2, ("b", "y"): 50, ("b", "z"): 50}, 12) == {("b", "x"): 2, ("b", "y"): 5, ("b", "z"): 5}
    assert shares({("b", "x"): 2, ("b", "y"): 3}, 99) == {("b", "x"): 2, ("b", "y"): 3}
    assert shares({("b", "x"): 9, ("b", "y"): 9}, 3) == {("b", "x"): 2, ("b", "y"): 1}


def test_refusals() -> None:
    sample = draw("icd", stream(3), 200, 5)
    labels = {row.video_id: 0 for row in sample.drawn}
    names = sorted(labels)
    check_labels(sample.drawn, labels)
    check_labels(sample.drawn, labels.keys() - names[:2])  # 1 %
    with pytest.raises(DataError, match=r"3 of 200 drawn videos have no label.*more than 1 % lost"):
        check_labels(sample.drawn, labels.keys() - names[:3])
    with pytest.raises(DataError, match=r"'y'.* was not drawn"):
        check_labels(sample.drawn, labels.keys() | {"y"})
    with pytest.raises(DataError, match="--issue icd: no video of the window was audited"):
        draw("icd", [row for row in stream(3) if row[1]["mllm_score"] != 0.5], 9, 1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[Path, EventLog, IndexStore]]:
    """The stream of seed 3 as a state; every second verdict is a day older."""
    folder = tmp_path / "vmp"
    with open_state(folder) as (log, index):
        log.publish([Event(name, uri=f"/clips/{name}.mp4", sha256=f"{int(name[1:]):064x}",
                           title=f'a "title", {name}', views=3)
                     for name in IDS[:400]])  # fmt: skip
        rows = [
            SinkRow(number, name, 1, 1, 2, "icd=1-ab", "live", "live", "r", json.dumps({"scores": {"icd": score}}),
                    (NOW - timedelta(days=number % 2)).isoformat(), name)
            for number, (name, score) in enumerate(stream(3)[:400], start=1)
        ]  # fmt: skip
        index.apply(rows, "vmp", 400)
        yield folder, log, index


def run(*words: object) -> Any:
    shown = CliRunner().invoke(app, ["audit", *map(str, words)])
    if shown.exception is not None:
        raise shown.exception
    return json.loads(shown.stdout) if "--json" in words else shown.stdout


def test_commands_from_draw_to_batch(state: tuple[Path, EventLog, IndexStore], tmp_path: Path) -> None:
    folder, log, _ = state
    out, at = tmp_path / "label.csv", ("--state", folder)
    drawn = run("draw", "--issue", "icd", "--labels", 100, "--out", out, "--seed", 7, "--json", *at)
    assert (drawn["draw"], len(drawn["drawn"]), drawn["seed"]) == (1, 100, 7)
    with out.open(encoding="utf-8", newline="") as stream_:
        table = list(csv.DictReader(stream_))
    assert [row["video_id"] for row in table] == [row["video_id"] for row in drawn["drawn"]]
    assert table[0]["title"].startswith('a "title", v')
    assert "no draw has its labels yet" in run("estimates", *at)
    with pytest.raises(DataError, match="100 of 100 drawn videos have no label"):
        run("import", "--draw", 1, "--labels", out, *at)  # nobody filled the column in
    for row in table:
        row["label"] = str(POSITIVE[row["video_id"]])
    log.publish([Event(table[0]["video_id"], "delete")])
    with out.open("w", encoding="utf-8", newline="") as stream_:
        writer = csv.DictWriter(stream_, list(table[0]))
        writer.writeheader()
        writer.writerows([*table, table[5]])
    batch = tmp_path / "batch.csv"
    with pytest.raises(DataError, match=rf"id {table[5]['video_id']} comes again"):
        run("import", "--draw", 1, "--labels", out, *at)
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:-1]))
    taken = run("import", "--draw", 1, "--labels", out, "--batch", batch, "--json", *at)
    assert taken["batch"] == {"videos": 99, "left_out": 1}
    assert taken["estimates"]["1-ab"]["labelled"] == 100
    # the batch is a table that ingest reads, and its weights add up to the videos that it stands for
    frame = import_table(batch).frame.set_index("video_id")
    weights = {row["video_id"]: 1 / row["probability"] for row in drawn["drawn"]}
    assert {name: float(weight) for name, weight in frame["weight"].items()} == pytest.approx(
        {name: weight for name, weight in weights.items() if name != table[0]["video_id"]}
    )
    assert all(int(value) == POSITIVE[str(name)] for name, value in frame["label_icd"].items())
    with pytest.raises(DataError, match=r"audit draw 1 got its labels at .*draw again for new ones"):
        run("import", "--draw", 1, "--labels", out, *at)
    with pytest.raises(DataError, match="no audit draw 9; make one"):
        run("import", "--draw", 9, "--labels", out, *at)
    assert run("estimates", "--json", *at)["draws"][0]["estimates"] == taken["estimates"]
    assert "draw 1, icd, the start to 20" in run("estimates", *at)


def test_a_window_draws_among_its_verdicts_only(state: tuple[Path, EventLog, IndexStore], tmp_path: Path) -> None:
    folder, _, index = state
    made, _ = audit_store.make(index, "icd", 50, 1, (NOW, None), NOW)
    assert sum(stratum.videos for stratum in made.strata) == 200
    assert {int(row.video_id[1:]) % 2 for row in made.drawn} == {1}
    words = ("draw", "--issue", "icd", "--labels", 5, "--out", tmp_path / "l.csv", "--state", folder)
    with pytest.raises(DataError, match="no video of the window"):
        run(*words, "--since", "2027-01-01")
    with pytest.raises(Exception, match="--until 'soon': expected ISO 8601"):
        run(*words, "--until", "soon")
