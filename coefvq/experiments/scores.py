"""Scores of many trainings of one issue side by side, and what is decided from them before test labels are seen.

``Frozen`` holds all that a row needs from validation and traffic: thresholds, policies, the share of calls.
``freeze`` cannot look at test: ``Side.without_test`` is all it gets, in which test rows do not occur.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from coefvq.cascade.call_share import CallShare, Traffic, choose_for_share
from coefvq.cascade.curves import FloatArray, best_f1_threshold
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import ScoredSplit, search
from coefvq.errors import DataError, InfeasibleError
from coefvq.evaluation.labelled import BOUNDS, SHORTCUT
from coefvq.evaluation.traffic import measured_share
from coefvq.experiments.certified import certified_policy, certified_row
from coefvq.experiments.grid import CascadeSpec, Cell, PromiseSpec, TableSpec

if TYPE_CHECKING:
    import pandas as pd

#: what a cell keeps: no label, so that nobody meets those of test before the final evaluation
CELL_COLUMNS = ("video_id", "split", "score")
#: what is known of a video without any model
FACTS = ("video_id", "split", "label", "weight", "views", SHORTCUT, *BOUNDS.values())
#: bases that nobody trains: a draw, and the Bayes scores of the synthetic world
RANDOM = "random"
STACKED = "stacked score"
VIEWS = {"vision": "posterior_vision", "vision_text": "posterior_vision_text", "all": "posterior"}
MLLM_ROW = "MLLM"


@dataclass(frozen=True)
class Side:
    """``table``: FACTS, and one score column per training, named :func:`column`; ``seeds`` of every model."""

    issue: str
    table: pd.DataFrame
    seeds: tuple[int, ...]

    def without_test(self) -> Side:
        """The same without the rows of test."""
        return replace(self, table=self.table[self.table["split"] != "test"].reset_index(drop=True))

    def known(self, name: str) -> bool:
        """Whether every row that is scored on has a value in this column."""
        rows = self.table[self.table["split"].isin(("val", "test"))]
        return name in rows and bool(rows[name].notna().all())


@dataclass(frozen=True)
class Frozen:
    """One row with one seed: which columns it reads and the thresholds it runs with.

    ``policy`` None: the column ``score`` alone, decided at ``threshold``. ``stack`` are the weights of a logistic
    regression over both logits and one, which replaces the MLLM's score. ``calls`` is the QPS ratio in percent.
    """

    row: str
    score: str
    threshold: float
    policy: CascadePolicy | None = None
    base: str = ""
    stack: tuple[float, float, float] | None = None
    calls: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table: one :class:`Frozen` per seed, or why there is none; ``paper`` are the paper's figures."""

    name: str
    parts: tuple[Frozen, ...]
    reason: str | None = None
    paper: Mapping[str, float] | None = None


def column(model: str, seed: int) -> str:
    """Name of a training's score column."""
    return f"{model}@{seed}"


def side(issue: str, facts: pd.DataFrame, scores: Mapping[Cell, pd.DataFrame], seeds: Sequence[int]) -> Side:
    """Join facts and the scores of an issue's cells on the videos that all of them have scored.

    Raises:
        DataError: no video is scored by all.
    """
    listed = sorted(scores)
    joined = facts.loc[:, list(FACTS)]
    for cell in listed:
        part = scores[cell][["video_id", "score"]].rename(columns={"score": column(cell.model, cell.seed)})
        joined = joined.merge(part, on="video_id", how="inner", validate="one_to_one")
    if not len(joined):
        raise DataError(
            f"{issue}: no video is scored by all {len(listed)} trainings; delete their folders and run again"
        )
    return Side(issue, joined.sort_values("video_id", ignore_index=True), tuple(seeds))


def freeze(seen: Side, table: TableSpec) -> Iterator[Row]:
    """Rows of a table with thresholds chosen on validation and calls measured on traffic.

    Rows of a model that was not trained are left to the caller.

    Raises:
        DataError: validation or traffic lack what a threshold needs; test rows are there.
    """
    if (seen.table["split"] == "test").any():
        raise DataError("thresholds are frozen before test is seen: pass Side.without_test()")
    for row in table.rows:
        columns = [column(row.model, seed) for seed in seen.seeds]
        if all(name in seen.table for name in columns):
            yield Row(row.name, tuple(_alone(seen, row.name, name) for name in columns))
    if table.cascade is not None:
        yield from _cascades(seen, table.cascade)
    if table.yardsticks:
        yield from _yardsticks(seen)


def _yardsticks(seen: Side) -> Iterator[Row]:
    names = {SHORTCUT: "metadata shortcut", **{view: f"Bayes bound, {view.replace('_', '+')}" for view in VIEWS}}
    for key, name in names.items():
        source = VIEWS.get(key, key)
        if seen.known(source):
            yield Row(name, (_alone(seen, name, source),))


def _val(seen: Side, base: str, mllm: str) -> ScoredSplit:
    rows = _labelled(seen, "val")
    return ScoredSplit(
        *(rows[name].to_numpy(np.float64, na_value=np.nan) for name in ("label", base, mllm, "views", "weight"))
    )


def _labelled(seen: Side, split: str) -> pd.DataFrame:
    rows = seen.table[(seen.table["split"] == split) & seen.table["label"].notna()]
    if not len(rows):
        raise DataError(f"{seen.issue}: no labelled video in split '{split}'; label more or change split.fractions")
    return rows


def _alone(seen: Side, row: str, name: str, calls: float | None = None) -> Frozen:
    rows = _labelled(seen, "val")
    label, score, weight = (rows[key].to_numpy(np.float64, na_value=np.nan) for key in ("label", name, "weight"))
    return Frozen(row, name, best_f1_threshold(label, score, weight).threshold, calls=calls)


def _cascades(seen: Side, spec: CascadeSpec) -> Iterator[Row]:
    mllms = {seed: column(spec.mllm, seed) for seed in seen.seeds}
    if not all(name in seen.table for name in mllms.values()):
        return
    yield Row(MLLM_ROW, tuple(_alone(seen, MLLM_ROW, name, 100.0) for name in mllms.values()))
    for base in spec.bases:
        bases = {seed: column(base.model, seed) for seed in seen.seeds}
        if not all(name in seen.table for name in bases.values()):
            continue
        name = f"{base.name}, base alone"
        yield Row(name, tuple(_alone(seen, name, bases[seed], 0.0) for seed in seen.seeds))
        pairs = [(bases[seed], mllms[seed]) for seed in seen.seeds]
        for percent in spec.p_base.get(seen.issue, ()):
            yield _at_precision(seen, f"{base.name}, P_base {percent:g}", percent, pairs)
        for percent in spec.qps:
            yield _at_share(seen, share_row(base.name, percent), percent, pairs)
            yield _at_share(seen, f"{share_row(base.name, percent)}, {STACKED}", percent, pairs, stacked=True)
        if spec.certified is not None:
            yield _certified(seen, certified_row(base.name, spec.certified), spec.certified, pairs)
    drawn = replace(seen, table=seen.table.assign(**{column(RANDOM, seed): draws(seen, seed) for seed in seen.seeds}))
    for percent in spec.qps:
        pairs = [(column(RANDOM, seed), mllms[seed]) for seed in seen.seeds]
        yield _at_share(drawn, share_row(RANDOM, percent), percent, pairs)
    yield from _bayes(seen, spec.qps)


def share_row(base: str, percent: float) -> str:
    """Name of the row of a base at a share of calls."""
    return f"{base}, {percent:g} % of calls"


def _bayes(seen: Side, shares: Iterable[float]) -> Iterator[Row]:
    """Cascades of exact posteriors: the best that any base of a view could do before a perfect MLLM."""
    if not all(seen.known(name) for name in VIEWS.values()):
        return
    yield Row("Bayes", (_alone(seen, "Bayes", VIEWS["all"], 100.0),))
    for view, source in VIEWS.items():
        for percent in shares:
            yield _at_share(seen, share_row(f"Bayes {view}", percent), percent, [(source, VIEWS["all"])])


def draws(seen: Side, seed: int) -> FloatArray:
    """A number in [0, 1) per video that depends on its id and the seed alone."""
    digests = (hashlib.sha256(f"{seed}:{video}".encode()).digest() for video in seen.table["video_id"])
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def _at_precision(seen: Side, name: str, percent: float, pairs: Sequence[tuple[str, str]]) -> Row:
    parts = []
    for base, mllm in pairs:
        found = search(seen.issue, _val(seen, base, mllm), [percent])[0]
        if found.policy is None:
            best = 100.0 * found.base_precision
            return Row(name, (), f"unreachable: best precision of the base on validation is {best:.0f} %")
        parts.append(_frozen(seen, name, found.policy, base, mllm))
    return Row(name, tuple(parts))


def _certified(seen: Side, name: str, wanted: PromiseSpec, pairs: Sequence[tuple[str, str]]) -> Row:
    parts = []
    for base, mllm in pairs:
        try:
            policy = certified_policy(seen.issue, _val(seen, base, mllm), wanted)
        except (DataError, InfeasibleError) as error:
            return Row(name, (), str(error))
        parts.append(_frozen(seen, name, policy, base, mllm))
    return Row(name, tuple(parts))


def _at_share(seen: Side, name: str, percent: float, pairs: Sequence[tuple[str, str]], *, stacked: bool = False) -> Row:
    rows = _traffic(seen)
    parts = []
    for base, mllm in pairs:
        val = _val(seen, base, mllm)
        arriving = Traffic(*(rows[key].to_numpy(np.float64, na_value=np.nan) for key in (base, "views", "weight")))
        listed, _ = choose_for_share(seen.issue, val, arriving, CallShare(percent, 0.0))
        policy = cast(CascadePolicy, listed[1].policy)
        part = _frozen(seen, name, policy, base, mllm, percent)
        parts.append(_stacked(part, val) if stacked else part)
    return Row(name, tuple(parts))


def _stacked(part: Frozen, val: ScoredSplit) -> Frozen:
    """The same calls; the final score is the stack of both models, with its own threshold on val."""
    stack, threshold = fit_stack(val)
    policy = cast(CascadePolicy, part.policy)
    return replace(
        part, stack=stack, threshold=threshold, policy=policy.model_copy(update={"decision_threshold": threshold})
    )


def fit_stack(val: ScoredSplit) -> tuple[tuple[float, float, float], float]:
    """A logistic regression of both models' logits on validation, as ``stacked_score`` takes it, and its threshold."""
    from sklearn.linear_model import LogisticRegression

    both = np.column_stack([logits(val.base), logits(val.mllm)])
    fitted = LogisticRegression(C=1.0).fit(both, np.asarray(val.label) > 0.5, sample_weight=val.weight)
    first, second = (float(value) for value in fitted.coef_[0])
    stack = (first, second, float(fitted.intercept_[0]))
    return stack, best_f1_threshold(val.label, stacked_score(stack, val.base, val.mllm), val.weight).threshold


def logits(score: object) -> FloatArray:
    """Log odds of probabilities, clamped to ±9.2."""
    clamped = np.clip(np.asarray(score, dtype=np.float64), 1e-4, 1.0 - 1e-4)
    return np.asarray(np.log(clamped / (1.0 - clamped)))


def stacked_score(stack: Sequence[float], base: object, mllm: object) -> FloatArray:
    """P(positive) of the logistic regression ``stack`` = (weight of base, of MLLM, intercept)."""
    z = stack[0] * logits(base) + stack[1] * logits(mllm) + stack[2]
    return np.asarray(1.0 / (1.0 + np.exp(-z)))


def _frozen(seen: Side, name: str, policy: CascadePolicy, base: str, mllm: str, asked: float | None = None) -> Frozen:
    """``asked``: percent of calls for which the base threshold was read off the traffic."""
    rows = _traffic(seen)
    calls = measured_share(rows.assign(base=rows[base]), policy, asked)["qps_ratio"]
    return Frozen(name, mllm, policy.decision_threshold, policy, base, calls=calls)


def _traffic(seen: Side) -> pd.DataFrame:
    rows = seen.table[seen.table["split"] == "traffic"]
    if len(rows) < 2:
        raise DataError(f"{seen.issue}: {len(rows)} video(s) of traffic; raise split.fractions.traffic")
    return rows
