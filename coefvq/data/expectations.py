"""The manifest's contract as a Great Expectations suite; the only module that imports that library.

Rules are plain data (``manifest_rules``), so what is asked can be read and tested without the engine;
``validate_manifest`` turns them into a suite, runs it as a checkpoint in an in-memory context and
translates the answers into a ``ValidationResult``. Great Expectations takes seconds to import, so it is
imported inside functions only. Its telemetry is off unless GX_ANALYTICS_ENABLED says otherwise.
"""

from __future__ import annotations

import copy
import html
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Validate
from coefvq.data.validation_report import MAX_IDS, Check, ValidationResult
from coefvq.records import MANIFEST_COLUMNS, label_column, posterior_column

#: shortest and longest clip in seconds; outside of it a probe has most likely misread the container
DURATION_S = (0.05, 3600.0)

_NOT_NULL = "ExpectColumnValuesToNotBeNull"
_UNIQUE = "ExpectColumnValuesToBeUnique"
_IN_SET = "ExpectColumnValuesToBeInSet"
_BETWEEN = "ExpectColumnValuesToBeBetween"
_FILES = "files"  # not one of the library's: _existing_files
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Rule:
    """One question to the manifest.

    ``expectation`` is the class name in ``great_expectations.expectations`` (or ``files``, our own);
    ``decoded_only`` asks it of rows with ``decode_ok`` alone; ``observed`` is set where counts say more
    than the engine's own answer.
    """

    name: str
    column: str | None
    expected: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    decoded_only: bool = False
    observed: str | None = None

    def needs(self) -> set[str]:
        """Columns without which the question cannot be asked."""
        return ({self.column} if self.column else set()) | ({"decode_ok"} if self.decoded_only else set())


def validate_manifest(
    manifest: pd.DataFrame,
    media_root: Path,
    params: Validate,
    issues: Sequence[str],
    docs_dir: Path | None,
) -> ValidationResult:
    """Ask every rule of ``manifest`` (one row per video, columns of ``records.MANIFEST_COLUMNS``).

    Args:
        manifest: the table; its index is ignored and it is not changed.
        media_root: folder that relative ``uri`` values start from.
        params: section ``validate`` of params.yaml.
        issues: issues whose ``label_<issue>`` columns must exist.
        docs_dir: where to write Data Docs (``index.html``); None writes nothing. The pages load their
            styles and scripts from the web; ``validation_report.to_html`` reads well offline.

    Returns:
        One check per rule. A missing column fails ``columns`` and the rules on it are left out.
    """
    table = manifest.reset_index(drop=True)
    rules = [rule for rule in manifest_rules(table, media_root, params, issues) if rule.needs() <= set(table.columns)]
    answers = _run(table, rules, docs_dir)
    checks = tuple(_check(rule, answers[number], table) for number, rule in enumerate(rules))
    return ValidationResult(success=all(check.success for check in checks), checks=checks)


def manifest_rules(manifest: pd.DataFrame, media_root: Path, params: Validate, issues: Sequence[str]) -> list[Rule]:
    """Every rule, structure first: ``first_error`` names the earliest that fails."""
    return [
        *_table_rules(params, issues),
        *_identity_rules(media_root),
        *_media_rules(manifest, params),
        *_number_rules(),
        *(rule for issue in issues for rule in _label_rules(manifest, issue, params)),
        *_posterior_rules(manifest, issues),
    ]


def _table_rules(params: Validate, issues: Sequence[str]) -> list[Rule]:
    labels = [label_column(issue) for issue in issues]
    named = f"the manifest's {len(MANIFEST_COLUMNS)} columns and {', '.join(labels)}"
    columns = {"column_set": [*MANIFEST_COLUMNS, *labels], "exact_match": False}
    rows = {"min_value": params.min_rows}
    return [
        Rule("columns", None, named, "ExpectTableColumnsToMatchSet", columns),
        Rule("rows", None, f"at least {params.min_rows} rows", "ExpectTableRowCountToBeBetween", rows),
    ]


def _identity_rules(media_root: Path) -> list[Rule]:
    # rows ingest could not decode, missing files among them, count against the decodable share instead
    files = f"a file below {media_root.as_posix()} for every decodable clip"
    return [
        Rule("video_id_present", "video_id", "a value in every row", _NOT_NULL),
        Rule("video_id_unique", "video_id", "no value twice", _UNIQUE),
        Rule("uri_present", "uri", "a value in every row", _NOT_NULL),
        Rule("uri_unique", "uri", "no value twice", _UNIQUE),
        Rule("files", "uri", files, _FILES, {"media_root": str(media_root)}, decoded_only=True),
    ]


def _media_rules(manifest: pd.DataFrame, params: Validate) -> list[Rule]:
    low, high = DURATION_S
    share = {"value_set": [True], "mostly": params.min_decodable}
    decodable = f"at least {params.min_decodable:.4g} of all clips decodable"
    duration = f"{low:g} to {high:g} s for every decodable clip"
    seconds = {"min_value": low, "max_value": high}
    title = f"at most {params.max_title_chars} characters"
    length = {"max_value": params.max_title_chars}
    known = "a duration for every decodable clip"
    return [
        Rule("decode_ok_present", "decode_ok", "a value in every row", _NOT_NULL),
        Rule("decodable", "decode_ok", decodable, _IN_SET, share, observed=_reasons(manifest)),
        Rule("duration_present", "duration_s", known, _NOT_NULL, decoded_only=True),
        Rule("duration", "duration_s", duration, _BETWEEN, seconds, decoded_only=True),
        Rule("title_length", "title", title, "ExpectColumnValueLengthsToBeBetween", length),
    ]


def _number_rules() -> list[Rule]:
    finite = {"min_value": 0, "strict_min": True, "max_value": sys.float_info.max}
    return [
        Rule("views", "views", "0 or more, or empty", _BETWEEN, {"min_value": 0}),
        Rule("weight_present", "weight", "a value in every row", _NOT_NULL),
        Rule("weight", "weight", "above 0 and finite", _BETWEEN, finite),
    ]


def _label_rules(manifest: pd.DataFrame, issue: str, params: Validate) -> list[Rule]:
    column, classes = label_column(issue), {"value_set": [0, 1]}
    low, high = params.prevalence[issue]
    share = f"{low:g} to {high:g} of the labelled videos positive"
    both, contain = "labelled videos of both classes", "ExpectColumnDistinctValuesToContainSet"
    bounds = {"min_value": low, "max_value": high}
    return [
        Rule("label_values", column, "0, 1 or empty", _IN_SET, classes),
        Rule("label_classes", column, both, contain, classes, observed=_label_counts(manifest, column)),
        Rule("prevalence", column, share, "ExpectColumnMeanToBeBetween", bounds),
    ]


def _posterior_rules(manifest: pd.DataFrame, issues: Sequence[str]) -> list[Rule]:
    columns = [posterior_column(issue) for issue in issues if posterior_column(issue) in manifest]
    bounds = {"min_value": 0, "max_value": 1}
    return [Rule("posterior", column, "0 to 1, or empty", _BETWEEN, bounds) for column in columns]


def _label_counts(manifest: pd.DataFrame, column: str) -> str | None:
    if column not in manifest:
        return None
    labels = manifest[column]
    positive, negative, empty = int(labels.eq(1).sum()), int(labels.eq(0).sum()), int(labels.isna().sum())
    return f"{positive} positive, {negative} negative, {empty} unlabelled"


def _reasons(manifest: pd.DataFrame) -> str | None:
    """How many clips were decodable and why the others were not."""
    if not {"decode_ok", "reason"} <= set(manifest.columns):
        return None
    decoded = manifest["decode_ok"].eq(True).fillna(False).astype(bool)
    reasons = manifest.loc[~decoded, "reason"].astype("str").value_counts().sort_index()
    found = "".join(f", {count} {reason}" for reason, count in reasons.items())
    return f"{int(decoded.sum())} of {len(manifest)} decodable{found}"


def _run(table: pd.DataFrame, rules: Sequence[Rule], docs_dir: Path | None) -> dict[int, Any]:
    """Run one checkpoint over ``table``; answers by position of the rule."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    # tqdm would draw on stderr, into the log of whatever runs this
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("memory")
        .add_dataframe_asset("manifest")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = context.suites.add(gx.ExpectationSuite("manifest"))
    suite.expectations = [_expectation(number, rule) for number, rule in enumerate(rules)]
    suite.save()
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="manifest", data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="manifest",
            validation_definitions=[definition],
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_IDS},
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": table})
    if docs_dir is not None:
        _write_docs(context, outcome, docs_dir)
    results = [result for run in outcome.run_results.values() for result in run.results]
    return {result.expectation_config.meta["rule"]: result for result in results}


def _great_expectations() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        # it still imports two standard modules that Python 3.11 deprecates
        warnings.filterwarnings(
            "ignore", message=r"module 'sre_(constants|parse)' is deprecated", category=DeprecationWarning
        )
        import great_expectations
        import great_expectations.expectations
    return great_expectations


def _expectation(number: int, rule: Rule) -> Any:
    gx = _great_expectations()
    kind = _existing_files() if rule.expectation == _FILES else getattr(gx.expectations, rule.expectation)
    where = {"column": rule.column} if rule.column else {}
    if rule.decoded_only:
        from great_expectations.expectations.row_conditions import Column

        where["row_condition"] = Column("decode_ok") == True  # noqa: E712 - builds a condition
    subject = f"{rule.column}: " if rule.column else ""
    return kind(**where, **rule.arguments, description=subject + rule.expected, meta={"rule": number})


@cache
def _existing_files() -> Any:
    """The custom expectation; declared once, because declaring it registers it with the engine."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial

    class ExistingFiles(ColumnMapMetricProvider):
        condition_metric_name = "column_values.existing_files"
        condition_value_keys = ("media_root",)

        @column_condition_partial(engine=PandasExecutionEngine)
        def _pandas(cls, column: pd.Series[Any], media_root: str, **_: Any) -> pd.Series[bool]:  # noqa: N805
            return pd.Series(list(files_exist(column, Path(media_root))), index=column.index, dtype=bool)

    class ExpectColumnValuesToBeExistingFiles(ColumnMapExpectation):
        media_root: str
        map_metric = ExistingFiles.condition_metric_name
        success_keys = ("mostly", "media_root")

    return ExpectColumnValuesToBeExistingFiles


def files_exist(uris: Iterable[Any], media_root: Path) -> Iterator[bool]:
    """Whether each uri is a file below ``media_root``.

    A URL (``scheme://``) counts as existing: ingest has probed it, and asking a remote store again for
    every row would make validation need the network. Symlinks that lead outside are ingest's business.
    """
    for uri in map(str, uris):
        below = not uri.startswith("/") and ".." not in uri.split("/")
        yield _URL.match(uri) is not None or (below and (media_root / uri).is_file())


def _write_docs(context: Any, outcome: Any, docs_dir: Path) -> None:
    """Render the stored results as Data Docs.

    The renderer writes offending values into its pages as they are, so a title could smuggle in a
    script: the stored copy is replaced by one with escaped text first.
    """
    for key, run in outcome.run_results.items():
        harmless = copy.deepcopy(run)
        for result in harmless.results:
            result.result = _escaped(result.result)
            result.exception_info = _escaped(result.exception_info)
        context.validation_results_store.set(key, harmless)
    docs_dir.mkdir(parents=True, exist_ok=True)
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": backend}
    context.add_data_docs_site(site_name="manifest", site_config=site)
    context.build_data_docs(site_names=["manifest"])


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value


def _check(rule: Rule, answer: Any, table: pd.DataFrame) -> Check:
    result = answer.result
    places = result.get("partial_unexpected_index_list") or []
    return Check(
        name=rule.name,
        column=rule.column,
        success=bool(answer.success),
        expected=rule.expected,
        observed=_failure(answer.exception_info) or rule.observed or _observed(rule, result),
        failing_ids=tuple(dict.fromkeys(_row_name(place, table) for place in places[:MAX_IDS])),
        n_failing=int(result.get("unexpected_count") or 0),
    )


def _failure(info: dict[str, Any]) -> str | None:
    """Why the engine could not answer, e.g. text in a column of numbers; ``info`` is flat or per metric."""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    return f"values of an unfit type ({messages[0]})" if messages else None


def _observed(rule: Rule, result: dict[str, Any]) -> str:
    if "unexpected_count" in result:
        return _observed_rows(result)
    value = result.get("observed_value")
    if rule.name == "columns":
        missing = result.get("details", {}).get("mismatched", {}).get("missing", [])
        return f"{', '.join(missing)} missing" if missing else "all of them"
    if rule.name == "rows":
        return f"{value} rows"
    return "no value" if value is None or pd.isna(value) else f"{float(value):.4g}"


def _observed_rows(result: dict[str, Any]) -> str:
    total, failing = int(result["element_count"]), int(result["unexpected_count"])
    if not failing:
        return f"holds in all {total} rows"
    values = [str(value) for value in result.get("partial_unexpected_list") or [] if not pd.isna(value)]
    shown = ", ".join(_clip(value) for value in list(dict.fromkeys(values))[:3])
    return f"fails in {failing} of {total} rows" + (f", e.g. {shown}" if shown else "")


def _clip(value: str, longest: int = 40) -> str:
    return repr(value if len(value) <= longest else value[: longest - 1] + "…")


def _row_name(place: int, table: pd.DataFrame) -> str:
    video_id = table["video_id"].iloc[place] if "video_id" in table else None
    return f"row {place}" if video_id is None or pd.isna(video_id) else str(video_id)
