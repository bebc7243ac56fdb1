"""What validation found, as plain data and as JSON, Markdown, HTML and one line for the terminal.

Knows nothing of the engine that ran the checks. Everything that comes from the user's data (ids,
values, column names) is escaped for the medium it is written to; the HTML is one file without
scripts or external resources, so it can be opened offline and mailed.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coefvq.terminal import clean, markdown

#: how many failing ids a check keeps, and how many of those the one-line message shows
MAX_IDS = 20
SHOWN_IDS = 3


@dataclass(frozen=True)
class Check:
    """One expectation and what was seen.

    ``name`` is a key of ``COMPLAINTS``; ``column`` is None where the whole table is meant;
    ``n_failing`` counts offending rows and ``failing_ids`` names the first of them: video ids (one shared
    by several rows once), or ``row N`` counted from 0 where ids are missing. Both stay empty for checks
    on an aggregate. A check may succeed with failing rows: decodable clips have a tolerance.
    """

    name: str
    column: str | None
    success: bool
    expected: str
    observed: str
    failing_ids: tuple[str, ...] = ()
    n_failing: int = 0


@dataclass(frozen=True)
class ValidationResult:
    """All checks in the order they were asked; ``success`` when every one of them holds.

    ``drift`` is the PSI per column against the champion's training data; empty where nobody asked.
    """

    success: bool
    checks: tuple[Check, ...]
    drift: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if not check.success)


#: check name → (what is wrong with a failing row; None for an aggregate, what to do about it)
COMPLAINTS: dict[str, tuple[str | None, str]] = {
    "columns": (None, "run ingest again with this version, or add the columns to the imported table"),
    "rows": (None, "add clips, or lower validate.min_rows"),
    "video_id_present": ("without an id", "give every row of metadata.csv its own id and run ingest again"),
    "video_id_unique": ("share an id", "give every row of metadata.csv its own id and run ingest again"),
    "uri_present": ("without a file", "fill in file_name in metadata.csv and run ingest again"),
    "uri_unique": ("name the same file", "keep one row per file in metadata.csv and run ingest again"),
    "files": (
        "point to no file below the data root",
        "restore the files (dvc checkout) or remove the rows and run ingest again",
    ),
    "decode_ok_present": ("never probed", "run ingest again to probe these clips"),
    "decodable": (
        "not decodable",
        "see the column 'reason', replace or remove these clips and run ingest again, or lower validate.min_decodable",
    ),
    "duration_present": ("decodable but without a duration", "run ingest again to probe these clips"),
    "duration": ("outside the range", "trim or remove these clips and run ingest again"),
    "title_length": ("too long", "shorten the titles in metadata.csv, or raise validate.max_title_chars"),
    "sha256": ("without a proper hash", "run ingest again to hash these clips"),
    "reason": ("with a reason nobody knows", "run ingest again to probe these clips"),
    "sane": ("outside the range", "look at these clips (ffprobe); remove them or encode them anew"),
    "published": ("without a readable date", "write published_at as ISO 8601 and run ingest again"),
    "split": ("with an unknown split", "write train, val, test, traffic or unlabelled, or leave the column empty"),
    "types": ("of another type", "run ingest again: it writes the types (docs/data.md)"),
    "drift": (
        "shifted",
        "look at the new clips; if this is what arrives now, raise validate.max_psi, or set it to null for one run",
    ),
    "split_present": ("without a split", "delete the splits file and run split again"),
    "leak": ("shared across splits", "delete the splits file and run split again so that groups stay together"),
    "split_rows": ("empty", "add videos or change split.fractions"),
    "split_prevalence": ("outside the range", "change seed or split.fractions, or widen validate.prevalence"),
    "views": ("below 0", "correct them in metadata.csv and run ingest again"),
    "weight_present": ("without a weight", "set weight to 1 in metadata.csv and run ingest again"),
    "weight": ("not above 0", "set a positive, finite weight in metadata.csv and run ingest again"),
    "label_values": ("outside {0,1}", "correct them in metadata.csv and run ingest again"),
    "label_classes": (None, "label videos of both classes in metadata.csv and run ingest again"),
    "prevalence": (None, "check the labels (swapped classes?), or widen validate.prevalence for the issue"),
    "posterior": ("outside [0,1]", "correct them in metadata.csv and run ingest again"),
}


def to_json(result: ValidationResult) -> dict[str, Any]:
    """JSON-able form: counts, then every check with its remedy (None where it holds)."""
    checks = [
        {**asdict(check), "failing_ids": list(check.failing_ids), "remedy": _remedy(check)} for check in result.checks
    ]
    counts = {"n_checks": len(result.checks), "n_failed": len(result.failures)}
    return {"success": result.success, **counts, "drift": dict(result.drift), "checks": checks}


def first_error(result: ValidationResult, source: str = "manifest.parquet") -> str:
    """One line on the first failing check: where, what, which rows, what to do.

    Raises:
        ValueError: nothing failed, so there is no error to name.
    """
    if not result.failures:
        raise ValueError("first_error: every check of this result holds")
    check = result.failures[0]
    complaint, remedy = COMPLAINTS[check.name]
    if complaint and check.n_failing:
        text = f"{check.n_failing} row(s) {complaint} ({_some_ids(check)})"
    else:
        text = f"expected {check.expected}, found {check.observed}"
    others = len(result.failures) - 1
    more = f" ({others} more check(s) failed)" if others else ""
    where = f"{source}: {check.column}" if check.column else source
    return clean(f"{where}: {text}; {remedy}{more}")


def to_markdown(result: ValidationResult, title: str = "Manifest validation") -> str:
    """Headline and one table, failing checks first."""
    lines = [
        f"# {title}: {_verdict(result)}",
        "",
        "| check | column | result | expected | observed | failing rows | what to do |",
        "|---|---|---|---|---|---|---|",
    ]
    for check in _failures_first(result):
        cells = (
            check.name,
            check.column or "",
            "ok" if check.success else "**FAILED**",
            markdown(check.expected),
            markdown(check.observed),
            markdown(_rows_text(check)),
            markdown(_remedy(check) or ""),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_html(result: ValidationResult, title: str = "Manifest validation") -> str:
    """One self-contained page: failing checks as cards with their remedy, then a table of all.

    Below 700 px the table turns into stacked blocks, so nothing scrolls sideways on a phone.
    """
    failed = "".join(_html_card(check) for check in result.failures)
    rows = "".join(_html_row(check) for check in result.checks)
    tone = "good" if result.success else "bad"
    columns = "".join(f'<th scope="col">{name}</th>' for name in ("Check", "Column", "Result", "Expected", "Observed"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_CSS}</style></head><body><main>"
        f'<h1>{title}</h1><p class="verdict {tone}">{_verdict(result)}</p>'
        f"{failed}{_html_drift(result.drift)}<h2>All checks</h2>"
        f"<table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>"
        "</main></body></html>\n"
    )


_CSS = """
:root{color-scheme:light dark;--line:#d5d9e0;--soft:#f5f6f8;--text:#1c2430;--dim:#586273;--page:#fff;
--good:#136c3a;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--line:#3a4250;--soft:#1e242e;--text:#e6e9ee;--dim:#a3adbc;
--page:#151a21;--good:#6fd39a;--bad:#ff8f85}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.15rem;margin:32px 0 8px}h3{font-size:1rem;margin:0 0 6px}
.verdict{font-size:1.1rem;font-weight:600;margin:0 0 20px}.good{color:var(--good)}.bad{color:var(--bad)}
.card{border:1px solid var(--line);border-left:4px solid var(--bad);border-radius:6px;padding:12px 16px;
margin:0 0 12px;background:var(--soft);overflow-wrap:anywhere}
.card p{margin:4px 0}.dim{color:var(--dim)}
code{font:0.9em ui-monospace,monospace}
table{width:100%;border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:8px 10px;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}
thead th{color:var(--dim);font-weight:600;font-size:.875rem}tbody th{font-weight:500}
tbody td:nth-child(3){font-weight:600}
@media (min-width:701px){tbody th,td:nth-child(2),td:nth-child(3){white-space:nowrap}}
@media (max-width:700px){thead{display:none}table,tbody{display:block}
tr{display:block;padding:10px 0;border-bottom:1px solid var(--line)}
th,td{display:grid;grid-template-columns:84px 1fr;gap:8px;border:0;padding:2px 0}
th:before,td:before{content:attr(data-label);color:var(--dim);font-weight:400;font-size:.875rem}}
.drift{max-width:640px}.bar{width:60%}.bar svg{display:block;width:100%;height:14px}.bar rect{fill:#4878b0}
@media print{body{font-size:12px}}
"""


def _html_card(check: Check) -> str:
    ids = ", ".join(f"<code>{_escape(name)}</code>" for name in check.failing_ids)
    more = ", …" if check.n_failing > MAX_IDS else ""
    rows = f"<p>{check.n_failing:,} row(s): {ids}{more}</p>" if check.n_failing else ""
    return (
        f'<section class="card"><h3>{_escape(check.column or "table")}: {_escape(check.expected)}</h3>'
        f"<p>Found: {_escape(check.observed)}</p>{rows}"
        f'<p class="dim">To do: {_escape(_remedy(check) or "")}</p></section>'
    )


def _html_row(check: Check) -> str:
    tone, verdict = ("good", "✓ ok") if check.success else ("bad", "✗ failed")
    cells = [
        f"<span>{_escape(value)}</span>"
        for value in (check.name.replace("_", " "), check.column or "—", verdict, check.expected, check.observed)
    ]
    return (
        f'<tr><th scope="row" data-label="Check">{cells[0]}</th><td data-label="Column">{cells[1]}</td>'
        f'<td data-label="Result" class="{tone}">{cells[2]}</td>'
        f'<td data-label="Expected">{cells[3]}</td><td data-label="Observed">{cells[4]}</td></tr>'
    )


def _html_drift(drift: Mapping[str, float]) -> str:
    """Bars of the PSI per column, largest first; a full bar is 0.5 or more."""
    if not drift:
        return ""
    rows = "".join(
        f'<tr><th scope="row" data-label="Column"><span>{_escape(name)}</span></th>'
        f'<td data-label="PSI"><span>{value:.3f}</span></td>'
        '<td data-label="" class="bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{value:.3f}">'
        f'<rect width="{min(value / 0.5, 1.0) * 100:.1f}" height="8" rx="2"/></svg></td></tr>'
        for name, value in sorted(drift.items(), key=lambda item: -item[1])
    )
    return (
        "<h2>Distance from the champion's training data</h2>"
        '<table class="drift"><thead><tr><th>Column</th><th>PSI</th><th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _verdict(result: ValidationResult) -> str:
    total = len(result.checks)
    if result.success:
        return f"passed, all {total} checks hold"
    return f"failed, {len(result.failures)} of {total} checks do not hold"


def _remedy(check: Check) -> str | None:
    return None if check.success else COMPLAINTS[check.name][1]


def _failures_first(result: ValidationResult) -> list[Check]:
    return sorted(result.checks, key=lambda check: check.success)


def _rows_text(check: Check) -> str:
    return f"{check.n_failing}: {_some_ids(check)}" if check.n_failing else ""


def _some_ids(check: Check) -> str:
    more = ", …" if len(check.failing_ids) > SHOWN_IDS else ""
    return ", ".join(check.failing_ids[:SHOWN_IDS]) + more


def _escape(text: str) -> str:
    return html.escape(clean(text))
