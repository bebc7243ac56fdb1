"""The manifest's contract as a Great Expectations suite; the only module that imports that library.

Rules are plain data (``manifest_rules``), so what is asked can be read and tested without the engine;
``validate_manifest`` turns them into a suite, runs it as a checkpoint in an in-memory context and
translates the answers into a ``ValidationResult``. Great Expectations takes seconds to import, so it is
imported inside functions only. Its telemetry is off unless GX_ANALYTICS_ENABLED says otherwise.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from coefvq.config import Validate
from coefvq.data.validation_report import MAX_IDS, Check, ValidationResult
from coefvq.records import MANIFEST_COLUMNS, label_column, posterior_column

#: shortest and longest clip in seconds; outside of it a probe has most likely misread the container
DURATION_S = (0.05, 3600.0)

_FILES = "files"


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
            styles from the web; ``validation_report.to_html`` is the copy that reads well offline.

    Returns:
        One check per rule. A missing column fails ``columns`` and the rules on it are left out.
    """
    table = manifest.reset_index(drop=True)
    rules = [
        rule
        for rule in manifest_rules(table, media_root, params, issues)
        if rule.needs() <= set(table.columns)
    ]
    answers = _run(table, rules, docs_dir)
    checks = tuple(_check(rule, answers[number], table) for number, rule in enumerate(rules))
    return ValidationResult(success=all(check.success for check in checks), checks=checks)


def manifest_rules(
    manifest: pd.DataFrame, media_root: Path, params: Validate, issues: Sequence[str]
) -> list[Rule]:
    """Every rule, structure first: ``first_error`` names the earliest that fails."""
    return [
        *_table_rules(params, issues),
        *_identity_rules(media_root),
        *_media_rules(params),
        *_number_rules(),
        *(rule for issue in issues for rule in _label_rules(manifest, issue, params)),
        *_posterior_rules(manifest, issues),
    ]


def _table_rules(params: Validate, issues: Sequence[str]) -> list[Rule]:
    columns = [*MANIFEST_COLUMNS, *map(label_column, issues)]
    return [
        Rule(
            "columns",
            None,
            f"columns {', '.join(columns)}",
            "ExpectTableColumnsToMatchSet",
            {"column_set": columns, "exact_match": False},
        ),
        Rule(
            "rows",
            None,
            f"at least {params.min_rows} rows",
            "ExpectTableRowCountToBeBetween",
            {"min_value": params.min_rows},
        ),
    ]


def _identity_rules(media_root: Path) -> list[Rule]:
    rules = []
    for column in ("video_id", "uri"):
        rules.append(
            Rule(f"{column}_present", column, "a value in every row", "ExpectColumnValuesToNotBeNull")
        )
        rules.append(Rule(f"{column}_unique", column, "no value twice", "ExpectColumnValuesToBeUnique"))
    # rows ingest could not decode, missing files among them, count against the decodable share instead
    files = Rule(
        "files",
        "uri",
        f"decodable clips exist below {media_root.as_posix()}",
        _FILES,
        {"media_root": str(media_root)},
        decoded_only=True,
    )
    return [*rules, files]


def _media_rules(params: Validate) -> list[Rule]:
    low, high = DURATION_S
    return [
        Rule(
            "decodable",
            "decode_ok",
            f"at least {params.min_decodable:.4g} of all clips decodable",
            "ExpectColumnValuesToBeInSet",
            {"value_set": [True], "mostly": params.min_decodable},
        ),
        Rule(
            "duration_present",
            "duration_s",
            "a duration for every decodable clip",
            "ExpectColumnValuesToNotBeNull",
            decoded_only=True,
        ),
        Rule(
            "duration",
            "duration_s",
            f"{low:g} to {high:g} s for every decodable clip",
            "ExpectColumnValuesToBeBetween",
            {"min_value": low, "max_value": high},
            decoded_only=True,
        ),
        Rule(
            "title_length",
            "title",
            f"at most {params.max_title_chars} characters",
            "ExpectColumnValueLengthsToBeBetween",
            {"max_value": params.max_title_chars},
        ),
    ]


def _number_rules() -> list[Rule]:
    between = "ExpectColumnValuesToBeBetween"
    return [
        Rule("views", "views", "0 or more, or empty", between, {"min_value": 0}),
        Rule("weight_present", "weight", "a value in every row", "ExpectColumnValuesToNotBeNull"),
        Rule(
            "weight",
            "weight",
            "above 0 and finite",
            between,
            {"min_value": 0, "strict_min": True, "max_value": sys.float_info.max},
        ),
    ]


def _label_rules(manifest: pd.DataFrame, issue: str, params: Validate) -> list[Rule]:
    column = label_column(issue)
    low, high = params.prevalence[issue]
    counts = _label_counts(manifest[column]) if column in manifest else None
    return [
        Rule(
            "label_values", column, "0, 1 or empty", "ExpectColumnValuesToBeInSet", {"value_set": [0, 1]}
        ),
        Rule(
            "label_classes",
            column,
            "labelled videos of both classes",
            "ExpectColumnDistinctValuesToContainSet",
            {"value_set": [0, 1]},
            observed=counts,
        ),
        Rule(
            "prevalence",
            column,
            f"{low:g} to {high:g} of the labelled videos positive",
            "ExpectColumnMeanToBeBetween",
            {"min_value": low, "max_value": high},
        ),
    ]


def _label_counts(labels: pd.Series[Any]) -> str:
    positive, negative, empty = int(labels.eq(1).sum()), int(labels.eq(0).sum()), int(labels.isna().sum())
    return f"{positive} positive, {negative} negative, {empty} unlabelled"


def _posterior_rules(manifest: pd.DataFrame, issues: Sequence[str]) -> list[Rule]:
    arguments = {"min_value": 0, "max_value": 1}
    return [
        Rule("posterior", column, "0 to 1, or empty", "ExpectColumnValuesToBeBetween", dict(arguments))
        for column in map(posterior_column, issues)
        if column in manifest
    ]


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
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="manifest", data=batch, suite=suite)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="manifest",
            validation_definitions=[definition],
            actions=_docs_actions(context, docs_dir),
            result_format=_result_format(table),
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": table})
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
    kind = (
        _existing_files() if rule.expectation == _FILES else getattr(gx.expectations, rule.expectation)
    )
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
        relative = PurePosixPath(uri)
        below = not relative.is_absolute() and ".." not in relative.parts
        yield re.match(r"[a-z][a-z0-9+.-]*://", uri) is not None or (below and (media_root / uri).is_file())


def _docs_actions(context: Any, docs_dir: Path | None) -> list[Any]:
    for site in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(site)  # the default site writes to a temporary folder
    if docs_dir is None:
        return []
    docs_dir.mkdir(parents=True, exist_ok=True)
    config = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs_dir.absolute()),
        },
    }
    context.add_data_docs_site(site_name="manifest", site_config=config)
    return [
        _great_expectations().checkpoint.UpdateDataDocsAction(name="data_docs", site_names=["manifest"])
    ]


def _result_format(table: pd.DataFrame) -> dict[str, Any]:
    form: dict[str, Any] = {"result_format": "SUMMARY", "partial_unexpected_count": MAX_IDS}
    # rows are named by id where that is possible, else by position
    if "video_id" in table and table["video_id"].notna().all():
        form["unexpected_index_column_names"] = ["video_id"]
    return form


def _check(rule: Rule, answer: Any, table: pd.DataFrame) -> Check:
    result = answer.result
    places = result.get("partial_unexpected_index_list") or []
    return Check(
        name=rule.name,
        column=rule.column,
        success=bool(answer.success),
        expected=rule.expected,
        observed=_failure(answer.exception_info) or rule.observed or _observed(rule, result),
        failing_ids=tuple(_row_name(place, table) for place in places[:MAX_IDS]),
        n_failing=int(result.get("unexpected_count") or 0),
    )


def _failure(info: dict[str, Any]) -> str | None:
    """Why the engine could not answer, e.g. text in a column of numbers; keyed by metric or flat."""
    entries = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        if entry.get("raised_exception"):
            return f"values it cannot be asked of ({entry.get('exception_message')})"
    return None


def _observed(rule: Rule, result: dict[str, Any]) -> str:
    if "unexpected_count" in result:
        return _observed_rows(result)
    observed = result.get("observed_value")
    if rule.name == "columns":
        missing = result.get("details", {}).get("mismatched", {}).get("missing", [])
        return f"no {', '.join(missing)}" if missing else "all of them"
    if rule.name == "rows":
        return f"{observed} rows"
    return "no labelled video" if observed is None or pd.isna(observed) else f"{float(observed):.4g}"


def _observed_rows(result: dict[str, Any]) -> str:
    total, failing = int(result["element_count"]), int(result["unexpected_count"])
    if not failing:
        return f"all of {total} rows"
    values = [repr(value) for value in dict.fromkeys(map(str, result.get("partial_unexpected_list") or []))]
    shown = ", ".join(value if len(value) <= 40 else value[:36] + "…'" for value in values[:3])
    return f"{failing} of {total} rows not so" + (f", e.g. {shown}" if shown else "")


def _row_name(place: Any, table: pd.DataFrame) -> str:
    if isinstance(place, dict):
        return str(place["video_id"])
    video_id = table["video_id"].iloc[place] if "video_id" in table else None
    return f"row {place}" if video_id is None or pd.isna(video_id) else str(video_id)
