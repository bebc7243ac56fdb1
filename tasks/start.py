"""The first settings of a workspace, from a look at the table that its models will learn from."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.config import check_issue_names
from coefvq.data.importers.look import Look, look_at, outside
from coefvq.data.splits.account import FEW_POSITIVES
from coefvq.errors import ConfigError, DataError
from coefvq.records import label_column

TRUE = frozenset({"1", "1.0", "t", "true", "y", "yes", "positive"})
FALSE = frozenset({"0", "0.0", "f", "false", "n", "no", "negative"})
_NUMBERS = frozenset({"0", "1", "0.0", "1.0"})
_SHOWN = 8
_LONGEST_NAME = 32  # of config.data.LabelName
_FRACTIONS = {"train": 0.56, "val": 0.16, "test": 0.18, "traffic": 0.1}
_FRACTIONS_OF_FEW = {"train": 0.46, "val": 0.22, "test": 0.22, "traffic": 0.1}

_FEW_CLIPS = 2000
#: frames, and pixels of a side, where a look at each clip is cheap
_CLOSER = {"frames": 16, "frame_size": 224}
#: an epoch of few clips is few steps, and the order of few positives says little about which one to keep
_LONGER = {"num_train_epochs": 36, "learning_rate": 0.001, "metric_for_best_model": "loss"}
_READ = {"title", "stickers"}


@dataclass(frozen=True)
class IssueSource:
    """An issue as the command line names it: the column of its label, and the values that mean positive."""

    name: str
    column: str
    positive: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """One setting that was chosen: the key, its value as people read it, and why."""

    key: str
    value: str
    why: str


@dataclass(frozen=True)
class Start:
    """Dotted keys of params.yaml, what was decided, and what a person should know before an hour is spent."""

    settings: dict[str, Any]
    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...]

    def without(self, *sections: str) -> Start:
        """The same, but for keys that begin with one of ``sections``."""
        settings = {key: value for key, value in self.settings.items() if not key.startswith(sections)}
        decisions = tuple(decision for decision in self.decisions if not decision.key.startswith(sections))
        return Start(settings, decisions, self.warnings)


def issue_sources(options: Sequence[str]) -> list[IssueSource]:
    """``--issue NAME[=COLUMN[:VALUE,VALUE]]`` as issues; the column is ``label_NAME`` where none is named.

    Raises:
        ConfigError: a part is empty.
    """
    found = []
    for option in options:
        name, names_column, rest = option.partition("=")
        column, names_values, listed = rest.partition(":")
        positive = tuple(value.strip() for value in listed.split(",")) if names_values else ()
        if (names_column and not column.strip()) or not all(positive):
            raise ConfigError(f"--issue {option!r}: expected NAME=COLUMN or NAME=COLUMN:VALUE, e.g. violence=is_bad:t")
        found.append(IssueSource(name, column.strip() or label_column(name), positive))
    return found


def propose(data: Path, issues: Sequence[IssueSource], media: Path | None = None, recipe: str = "") -> Start:
    """Settings for a table or folder of clips; ``media`` is the folder of the clips if they are not beside it.

    What is proposed for few clips depends on the recipe.

    Raises:
        DataError: a label column or value is not there, or clips lie outside the folder; the message names the remedy.
        ConfigError: no issue is named, or a name cannot be one.
    """
    if not issues:
        raise ConfigError("--data needs --issue: which question the labels answer, e.g. --issue violence=is_violent:t")
    check_issue_names("--issue", [issue.name for issue in issues])
    look = look_at(data, [issue.column for issue in issues])
    _check_places(look, media)
    positives = {issue.name: _positives(look, issue) for issue in issues}
    counts = {issue.name: _counts(look.labels[issue.column], positives[issue.name]) for issue in issues}
    settings: dict[str, Any] = {"issues": [issue.name for issue in issues], "ingest.columns": look.renames}
    decisions = [
        Decision(f"ingest.columns.{word}", column, "a common name for it") for word, column in look.renames.items()
    ]
    if media is not None:
        settings["paths.media"] = str(media.resolve())
        decisions.append(
            Decision("paths.media", str(media.resolve()), "clips stay where they are; DVC keeps the table")
        )
    for issue in issues:
        chosen, why = _of_issue(issue, positives[issue.name], counts[issue.name])
        settings |= chosen
        decisions += why
    names = {issue.name: _label_names(issue, positives[issue.name]) for issue in issues}
    settings["label_names"] = names
    shown = ", ".join(f"{name['positive']} / {name['negative']}" for name in names.values())
    decisions.append(Decision("label_names", shown, "words of the report"))
    shared, more = _of_all(look, counts)
    for name, (found, _) in counts.items():
        if found * _FRACTIONS["val"] < FEW_POSITIVES:
            chosen, why = _of_few(name, found, look, recipe)
            settings |= chosen
            decisions += why
    warnings = [f"{why}; {word} stays empty" for word, why in look.refused.items()]
    unused = look.unused([issue.column for issue in issues])
    return Start(
        settings | shared, (*decisions, *more), (*warnings, *([unused] if unused else []), *_few(counts, shared))
    )


def _check_places(look: Look, media: Path | None) -> None:
    root = media or look.source.root
    away = outside(look, root)
    if away:
        folder = Path(os.path.commonpath([os.path.dirname(path) for path in away]))  # noqa: PTH120
        raise DataError(
            f"{look.source.origin}: {len(away)} of {look.rows} clips lie outside {root.resolve()}, first {away[0]}; "
            f"name the folder that holds all clips, e.g. --media {folder}"
        )


def _positives(look: Look, issue: IssueSource) -> tuple[str, ...] | None:
    """Values that mean positive; None where the column holds 0 and 1."""
    option = f"--issue {issue.name}={issue.column}"
    counts = look.labels.get(issue.column)
    if counts is None:
        raise DataError(
            f"{option}: {look.source.origin} has no column '{issue.column}'; it has: {', '.join(look.columns)}"
        )
    met = ", ".join(f"{value[:40]} ({count})" for value, count in counts.most_common(_SHOWN))
    example = next(iter(counts), "VALUE")
    if not counts:
        raise DataError(f"{option}: column '{issue.column}' is empty in all {look.rows} rows; label some")
    for value in issue.positive:
        if value not in counts:
            raise DataError(f"{option}: '{value}' never occurs; values there: {met}")
    known = {value for value in counts if value.casefold() in TRUE}
    if issue.positive:
        others = sorted(known - set(issue.positive)) if set(issue.positive) & known else []
        if others:
            listed = ",".join([*issue.positive, *others])
            raise DataError(
                f"{option}: also holds {', '.join(others)}; if positive too: {option}:{listed} (values: {met})"
            )
        return issue.positive
    if set(counts) <= _NUMBERS:
        return None
    if all(value.casefold() in TRUE | FALSE for value in counts) and known:
        return tuple(sorted(known))
    raise DataError(f"{option}: say which values are positive, e.g. {option}:{example}; values there: {met}")


def _label_names(issue: IssueSource, positive: tuple[str, ...] | None) -> dict[str, str]:
    """What the report calls the two answers: the table's own word, else that of the issue."""
    word = positive[0] if positive is not None and len(positive) == 1 else ""
    if word.casefold() in TRUE | FALSE or not word.isprintable() or not word:
        word = issue.name.replace("_", " ")
    return {"positive": word[:_LONGEST_NAME], "negative": f"not {word}"[:_LONGEST_NAME]}


def _counts(values: Counter[str], positive: tuple[str, ...] | None) -> tuple[int, int]:
    """Positive and labelled rows."""
    wanted = positive or ("1", "1.0")
    return sum(count for value, count in values.items() if value in wanted), values.total()


def _of_issue(
    issue: IssueSource, positive: tuple[str, ...] | None, counts: tuple[int, int]
) -> tuple[dict[str, Any], list[Decision]]:
    found, labelled = counts
    if not 0 < found < labelled:
        raise DataError(
            f"--issue {issue.name}={issue.column}: {found} of {labelled} labelled rows are positive; both classes are "
            "needed: check the column and its values"
        )
    share = found / labelled
    bounds = [_floor(share / 3, 3), min(1.0, _ceil(share * 3, 2))]
    calls = _calls(share)
    meaning = "0 and 1" if positive is None else f"{', '.join(positive)} = positive"
    settings = {
        f"ingest.labels.{issue.name}": {
            "column": issue.column,
            "positive": None if positive is None else list(positive),
        },
        f"validate.prevalence.{issue.name}": bounds,
        f"thresholds.{issue.name}.max_qps_ratio": calls,
    }
    return settings, [
        Decision(f"ingest.labels.{issue.name}", f"{issue.column}: {meaning}", f"{found} of {labelled} positive"),
        Decision(
            f"validate.prevalence.{issue.name}", f"{bounds[0]:g} to {bounds[1]:g}", f"{share:.1%} now, a third to 3x"
        ),
        Decision(f"thresholds.{issue.name}.max_qps_ratio", f"{calls:g} %", "twice the positives, 15 to 60"),
    ]


def _of_all(look: Look, counts: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Any], list[Decision]]:
    rarest = min(found for found, _ in counts.values())
    few = rarest * _FRACTIONS["val"] < FEW_POSITIVES
    fractions = _FRACTIONS_OF_FEW if few else _FRACTIONS
    shown = ", ".join(f"{name} {share:g}" for name, share in fractions.items())
    why = f"only {rarest} positives of the rarest issue: more to test" if few else "as shipped"
    calls = max(_calls(found / labelled) for found, labelled in counts.values())
    settings: dict[str, Any] = {"split.fractions": dict(fractions)}
    decisions = [Decision("split.fractions", shown, why)]
    if calls > 25:
        settings["gate.max_qps_ratio"] = calls
        decisions.append(Decision("gate.max_qps_ratio", f"{calls:g} %", "as the thresholds allow"))
    return settings, decisions


def _of_few(issue: str, found: int, look: Look, recipe: str) -> tuple[dict[str, Any], list[Decision]]:
    """What helped on 191 real clips (docs/log.md)."""
    settings: dict[str, Any] = {f"base.{issue}.distil": None}
    decisions = [Decision(f"base.{issue}.distil", "null", f"{found} positives: too few to be taught by an MLLM")]
    if recipe != "starter" or look.rows > _FEW_CLIPS:
        return settings, decisions
    chosen: list[tuple[str, Any, str]] = [
        (f"media.{issue}.{key}", value, "few clips: a closer look") for key, value in _CLOSER.items()
    ]
    if not _READ & {*look.columns, *look.renames}:
        chosen.append((f"base.{issue}.architecture", "frames", "no titles to read"))
        why = "few clips: more steps, judged by the loss"
        chosen += [(f"base.{issue}.training.{key}", value, why) for key, value in _LONGER.items()]
    settings |= {key: value for key, value, _ in chosen}
    return settings, [*decisions, *(Decision(key, str(value), why) for key, value, why in chosen)]


def _few(counts: Mapping[str, tuple[int, int]], shared: Mapping[str, Any]) -> list[str]:
    share = shared["split.fractions"]["test"]
    low = {name: round(found * share) for name, (found, _) in counts.items() if found * share < FEW_POSITIVES}
    listed = ", ".join(f"{name} about {count}" for name, count in low.items())
    remedy = "label more before you rely on a figure"
    return [f"few positives in test ({listed}): intervals will be wide; {remedy}"] if low else []


def _calls(share: float) -> float:
    """Percent of the traffic that may reach the MLLM: few calls cannot hold many positives (docs/cascade.md)."""
    return float(min(60, max(15, 5 * math.ceil(40 * share))))


def _floor(value: float, digits: int) -> float:
    scale = 10.0**digits
    return math.floor(value * scale) / scale


def _ceil(value: float, digits: int) -> float:
    scale = 10.0**digits
    return math.ceil(value * scale) / scale
