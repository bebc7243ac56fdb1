"""Properties of Sink and Filter: order and repetition do not matter, every candidate gets one outcome."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.records import ScoredVideo
from coefvq.vmp.index import open_index
from coefvq.vmp.records import Candidate, Decision, Event, SinkRow, Task
from coefvq.vmp.rows import How, to_row
from coefvq.vmp.rules import FIELDS, Rules, parse_rules
from coefvq.vmp.ruling import UNSCORED, decide
from tests.vmp_world import NOW

COLUMNS = "video_id, state, rule, source_version, epoch, coalesce(views, -1), rank, value"
OUTCOMES = ("live", "removed", "ignored")


@st.composite
def sink_rows(draw: st.DrawFn) -> SinkRow:
    """A row whose content follows from its version, as one publication and one deployment always give the same."""
    video_id, source_version = draw(st.sampled_from("ab")), draw(st.integers(1, 4))
    epoch, rank, views = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.none() | st.integers(0, 2))
    kind = (source_version * 7 + ord(video_id)) % 4
    if kind == 0:
        event = Event(video_id, "delete", source_version=source_version, offset=1)
        return to_row(Candidate(event), Decision("removed", "deleted"), How(epoch, NOW, NOW))
    event = Event(video_id, title=f"{source_version}", source_version=source_version, offset=1, views=views)
    score = ScoredVideo(video_id, "icd", 0.5, None, kind == 1, "base", f"{epoch}-aa", degraded=rank == 1)
    candidate = Candidate(event, (score,), "undecodable" if rank == 0 else None)
    return to_row(candidate, Decision(OUTCOMES[kind - 1], f"rule {kind}"), How(epoch, NOW, NOW))


def entries_after(rows: Sequence[SinkRow], batch: int) -> list[tuple[Any, ...]]:
    """Apply rows in batches, each as a new delivery of the log, and return the index."""
    with tempfile.TemporaryDirectory() as folder, open_index(Path(folder) / "index.sqlite") as index:
        index.database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        for number, start in enumerate(range(0, len(rows), batch)):
            delivery = [_at(row, 1) for row in rows[start : start + batch]]
            index.apply(delivery, f"delivery {number}", 1)
        # each entry is its video's, at the number of its newest change
        astray = "SELECT count(*) FROM entries e LEFT JOIN videos v USING (video_id) WHERE e.change IS NOT v.change"
        assert index.database.query(astray) == [(0,)]
        return index.database.query(f"SELECT {COLUMNS} FROM entries ORDER BY video_id")  # noqa: S608


def _at(row: SinkRow, offset: int) -> SinkRow:
    return row._replace(offset=offset)


def version(row: SinkRow) -> tuple[int, int, int, int]:
    return row.source_version, row.epoch, -1 if row.views is None else row.views, row.rank


def newest_by_definition(rows: Sequence[SinkRow]) -> list[tuple[Any, ...]]:
    """The index as the contract words it: per video the verdict with the highest version."""
    newest = [
        max((row for row in rows if row.video_id == key), key=version) for key in sorted({row.video_id for row in rows})
    ]
    return [(row.video_id, row.state, row.rule, *version(row), row.value) for row in newest]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(sink_rows(), min_size=1, max_size=8), st.integers(1, 4))
def test_any_order_and_any_repetition_end_in_the_newest_version(
    data: st.DataObject, rows: list[SinkRow], batch: int
) -> None:
    judged = [row for row in rows if row.state is not None]
    repeated = judged + data.draw(st.lists(st.sampled_from(judged), max_size=6)) if judged else []
    shuffled = data.draw(st.permutations(repeated))
    expected = newest_by_definition(judged)
    assert entries_after(shuffled, batch) == entries_after(judged, len(rows)) == expected


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(sink_rows(), min_size=1, max_size=8))
def test_nothing_below_the_newest_version_seen_is_written(data: st.DataObject, rows: list[SinkRow]) -> None:
    """Also where the newer event was ignored and left no verdict."""
    newest = max(row.source_version for row in rows if row.video_id == rows[0].video_id)
    late = data.draw(st.lists(st.sampled_from(rows), max_size=6))
    before = entries_after(rows, 8)
    after = entries_after([*rows, *[row for row in late if row.source_version < newest]], 8)
    of = rows[0].video_id
    assert [row for row in before if row[0] == of] == [row for row in after if row[0] == of]


@settings(max_examples=40, deadline=None)
@given(st.lists(sink_rows(), max_size=8), st.sampled_from(["delete", "rule"]))
def test_a_tombstone_is_not_raised_by_older_versions(rows: list[SinkRow], how: str) -> None:
    event = Event("a", "delete" if how == "delete" else "upsert", source_version=5, offset=1)
    scores = () if how == "delete" else (ScoredVideo("a", "icd", 0.9, None, True, "base", "1-aa"),)
    tombstone = to_row(Candidate(event, scores), Decision("removed", "gone"), How(1, NOW, NOW))
    after = {row[0]: row for row in entries_after([tombstone, *rows, tombstone], 2)}
    assert after["a"][1] == ("deleted" if how == "delete" else "removed")
    assert after["a"][2:4] == ("gone", 5)
    assert "title" not in json.loads(after["a"][7])


@settings(max_examples=40, deadline=None)
@given(st.lists(sink_rows(), min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_offsets_never_go_back_and_never_apply_a_row_twice(rows: list[SinkRow], first: int, again: int) -> None:
    numbered = [_at(row, number) for number, row in enumerate(rows, start=1)]
    with tempfile.TemporaryDirectory() as folder, open_index(Path(folder) / "index.sqlite") as index:
        for end in (first, again, len(numbered)):
            index.apply(numbered[:end], "c", min(end, len(numbered)))
            assert index.committed("c") >= min(first, len(numbered))
        effects = index.database.query("SELECT offset, count(*) FROM effects GROUP BY offset ORDER BY offset")
    assert effects == [(number, 1) for number in range(1, len(numbered) + 1)]


@st.composite
def noted_rows(draw: st.DrawFn) -> SinkRow:
    """A row as above that may also fail, wait for the MLLM, name a time, or only say how often it was watched."""
    row = draw(sink_rows())
    how = draw(st.sampled_from(("plain", "failed", "waits", "watched")))
    if how == "watched":
        return row._replace(state=None, outcome="ignored", judged=False, error=None)
    if how == "failed":
        return row._replace(state=None, outcome="ignored", rank=0, error="icd: broken", uri="/a.mp4")
    task = None
    if how == "waits":
        scores = {"icd": {"base_score": 0.9, "awaits": "mllm"}}
        task = Task(row.video_id, row.source_version, row.epoch, row.views, 1, 0.9, 1, scores, 0.0)
        row = row._replace(rank=-1, held=row.state == "live")
    at, waited = draw(st.sampled_from((None, 7.0))), draw(st.sampled_from((None, 2.0)))
    return row._replace(task=task, recheck_at=at, error=None, waited=waited, routes=draw(st.sampled_from((None, "{}"))))


#: all that rows leave, but the times of the writes
LEFT = {
    "entries": "*", "videos": "*", "due": "*", "pending": "*", "recheck": "*",
    "dead_letters": "video_id, offset, source_version, uri, reason, epoch, held",
    "effects": "number, consumer, offset, video_id, source_version, epoch, rank, bundle_version, outcome, rule, "
               "written, error, routes, effective, waited",
}  # fmt: skip


def left_by(rows: Sequence[SinkRow], batch: int) -> dict[str, list[tuple[Any, ...]]]:
    """All tables after the rows were stored in batches of that size."""
    with tempfile.TemporaryDirectory() as folder, open_index(Path(folder) / "index.sqlite") as index:
        index.database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        for start in range(0, len(rows), batch):
            index.revise(rows[start : start + batch], "worker")
        return {
            name: index.database.query(f"SELECT {columns} FROM {name} ORDER BY 1")  # noqa: S608
            for name, columns in LEFT.items()
        }


@settings(max_examples=30, deadline=None)
@given(st.lists(noted_rows(), min_size=2, max_size=12))
def test_a_batch_leaves_what_its_rows_leave_one_by_one(rows: list[SinkRow]) -> None:
    assert left_by(rows, len(rows)) == left_by(rows, 1)


scored = st.builds(
    lambda issue, base, mllm, positive, error: ScoredVideo(
        "v", issue, None if error else base, None if error else mllm, None if error else positive,
        "none" if error else "base" if mllm is None else "mllm", "1-aa", error,
    ),
    st.sampled_from(["icd", "ucc"]),
    st.integers(0, 4).map(lambda n: n / 4),
    st.none() | st.integers(0, 4).map(lambda n: n / 4),
    st.booleans(),
    st.none() | st.just("undecodable"),
)  # fmt: skip
candidates = st.builds(
    lambda scores, title, views, at: Candidate(Event("v", title=title, views=views, published_at=at), tuple(scores)),
    st.lists(scored, max_size=2, unique_by=lambda score: score.issue),
    st.text(max_size=5),
    st.none() | st.integers(0, 10),
    st.none() | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
)


def values(kind: type) -> st.SearchStrategy[Any]:
    return {
        bool: st.booleans(),
        float: st.integers(0, 40).map(lambda n: n / 4),
        str: st.sampled_from(["base", "mllm", "none"]),
    }[kind]


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(sorted(FIELDS)))
    kind = FIELDS[field]
    if kind is tuple:
        op = draw(st.sampled_from(["contains", "missing"]))
        return {"field": field, "op": op, "value": draw(st.booleans() if op == "missing" else st.text(max_size=3))}
    numeric = ["<", "<=", ">", ">="] if kind is float else []
    op = draw(st.sampled_from(["==", "!=", "in", "missing", *numeric]))
    value = {"missing": st.booleans(), "in": st.lists(values(kind), max_size=3)}.get(op, values(kind))
    return {"field": field, "op": op, "value": draw(value)}


@st.composite
def rule_sets(draw: st.DrawFn) -> Rules:
    whens = draw(st.lists(st.lists(conditions(), min_size=1, max_size=2), max_size=4))
    rules = [
        {"name": f"r{number}", "when": when, "then": draw(st.sampled_from(OUTCOMES))}
        for number, when in enumerate(whens)
    ]
    # YAML is a superset of JSON
    return parse_rules(json.dumps({"rules": rules, "default": draw(st.sampled_from(OUTCOMES))}), "rules.yaml")


@settings(max_examples=200, deadline=None)
@given(rule_sets(), candidates)
def test_every_candidate_gets_the_outcome_of_the_first_rule_that_holds_alone(
    rules: Rules, candidate: Candidate
) -> None:
    decision = decide(candidate, rules, NOW)

    def alone(rule: Any) -> Decision:
        return decide(candidate, Rules(rules=(rule,), default="ignored"), NOW)

    holding = [rule for rule in rules.rules if alone(rule).rule == rule.name]
    unscored = any(score.error for score in candidate.scores) or not candidate.scores
    default = UNSCORED if unscored and rules.default == "live" else Decision(rules.default, "default")
    expected = Decision(holding[0].then, holding[0].name) if holding else default
    assert decision == expected


@settings(max_examples=100, deadline=None)
@given(candidates, st.sampled_from(sorted(FIELDS)))
def test_a_fact_of_one_issue_is_either_missing_or_present(candidate: Candidate, field: str) -> None:
    one = Candidate(candidate.event, candidate.scores[:1])

    def fires(missing: bool) -> bool:
        when = [{"field": field, "op": "missing", "value": missing}]
        rules = {"rules": [{"name": "m", "when": when, "then": "removed"}], "default": "live"}
        return decide(one, parse_rules(json.dumps(rules), "rules.yaml"), NOW).rule == "m"

    assert fires(True) != fires(False)
