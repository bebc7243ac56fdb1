"""What a rules file would have said about the videos of the index: on stored scores, with nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from coefvq.records import ScoredVideo
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import DEFAULT, split, within
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import Event, Features, Outcome, State, Verdict
from coefvq.vmp.retriever import candidate_of
from coefvq.vmp.rules import Rules
from coefvq.vmp.ruling import decide
from coefvq.vmp.schema_steps import ENTRY_OF_VIDEO

_BATCH = 500
_EXAMPLES = 3


@dataclass
class Row:
    """How many videos are ``before`` and would be ``after`` by a rule; ``after`` of ``ignored`` is as before."""

    before: State
    after: Outcome
    rule: str
    videos: int
    examples: list[str]

    @property
    def changes(self) -> bool:
        """Whether readers would see another state."""
        return self.after not in ("ignored", self.before)


@dataclass(frozen=True)
class Trial:
    """Rows of a table; ``waiting`` videos have newer content that was not decided yet."""

    rows: tuple[Row, ...]
    waiting: int

    @property
    def videos(self) -> int:
        """Videos that were decided."""
        return sum(row.videos for row in self.rows)

    @property
    def changed(self) -> int:
        """Videos that readers would see otherwise."""
        return sum(row.videos for row in self.rows if row.changes)


def trial(log: EventLog, index: IndexStore, rules: Rules, now: datetime, tenant: str = DEFAULT) -> Trial:
    """Decide every video of a tenant by ``rules``, on the scores that are stored.

    Raises:
        ConfigError: a rule names an issue that is not scored.
    """
    rows: dict[tuple[State, Outcome, str], Row] = {}
    waiting = 0
    for video_id, event, verdict in _history(log, index, tenant):
        if event is None or event.source_version != verdict.source_version:
            waiting += 1
            continue
        scores = [_score(video_id, issue, stored) for issue, stored in verdict.value.get("scores", {}).items()]
        features = Features(verdict.value.get("features", {}))
        made = decide(candidate_of(event, scores).with_features(features), rules, now)
        key = (verdict.state, made.outcome, made.rule)
        row = rows.setdefault(key, Row(*key, 0, []))
        row.videos += 1
        if len(row.examples) < _EXAMPLES:
            row.examples.append(split(video_id)[1])
    # what changes stands first
    ordered = sorted(rows.values(), key=lambda row: (not row.changes, -row.videos, row.rule, row.before))
    return Trial(tuple(ordered), waiting)


def _history(log: EventLog, index: IndexStore, tenant: str) -> Iterator[tuple[str, Event | None, Verdict]]:
    """Each video that the index holds of a tenant, with its newest content and its verdict."""
    last, (mine, names) = "", within(tenant, "v.video_id")
    where = f"WHERE e.state != 'deleted' AND v.video_id > ? AND {mine}"
    sql = f"SELECT v.video_id FROM {ENTRY_OF_VIDEO} {where} ORDER BY v.video_id LIMIT ?"  # noqa: S608
    while found := [video_id for (video_id,) in index.database.query(sql, (last, *names, _BATCH))]:
        known, newest = index.known(found), log.newest(found)
        for video_id in found:
            seen, event = known[video_id], newest.get(video_id)
            if seen.verdict is not None:
                yield video_id, None if event is None else replace(event, views=seen.views), seen.verdict
        last = found[-1]


def _score(video_id: str, issue: str, stored: Mapping[str, Any]) -> ScoredVideo:
    return ScoredVideo(
        video_id,
        issue,
        stored.get("base_score"),
        stored.get("mllm_score"),
        stored.get("positive"),
        stored.get("decided_by", "none"),
        stored.get("bundle_version", ""),
        error=stored.get("error"),
    )
