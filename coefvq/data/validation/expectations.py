"""The manifest's contract as a Great Expectations suite; the only module that imports that library.

Rules are plain data (module ``manifest_rules``), so what is asked can be read and tested without the engine;
``run_rules`` turns them into a suite, runs it as a checkpoint in an in-memory context and
translates the answers into a ``ValidationResult``. Great Expectations takes seconds to import, so it is
imported inside functions only. Its telemetry is off unless GX_ANALYTICS_ENABLED says otherwise.
"""

from __future__ import annotations

import copy
import html
import os
import warnings
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Validate
from coefvq.data.validation.answers import to_check
from coefvq.data.validation.manifest_rules import (
    FILES,
    Rule,
    drift_rules,
    drift_table,
    manifest_rules,
    type_rules,
    type_table,
)
from coefvq.data.validation.presence import files_exist
from coefvq.data.validation.profile import Profile, psi
from coefvq.data.validation.report import MAX_IDS, Check, ValidationResult
from coefvq.data.validation.split_rules import prevalence_rules, prevalence_table, split_rules, split_table


def validate_manifest(
    manifest: pd.DataFrame,
    media_root: Path,
    params: Validate,
    issues: Sequence[str],
    docs_dir: Path | None,
    reference: Profile | None = None,
) -> ValidationResult:
    """Ask every rule of ``manifest`` (one row per video, columns of ``records.MANIFEST_COLUMNS``).

    Args:
        manifest: the table; its index is ignored and it is not changed.
        media_root: folder that relative ``uri`` values start from.
        params: section ``validate`` of params.yaml.
        issues: issues whose ``label_<issue>`` columns must exist.
        docs_dir: where to write Data Docs (``index.html``); None writes nothing. The pages load their
            styles and scripts from the web; ``validation_report.to_html`` reads well offline.
        reference: ``profile`` of the champion's training data; None or empty asks nothing about drift.

    Returns:
        One check per rule. A missing column fails ``columns`` and the rules on it are left out.
    """
    table = manifest.reset_index(drop=True)
    rules = manifest_rules(table, media_root, params, issues)
    checks = [*run_rules(table, rules, docs_dir), *run_rules(type_table(table, issues), type_rules())]
    found: dict[str, float] = {}
    if reference and params.max_psi is not None:
        found = psi(reference, table[table["decode_ok"].eq(True).fillna(False).astype(bool)], issues)
        checks += run_rules(drift_table(found), drift_rules(params.max_psi))
    return ValidationResult(all(check.success for check in checks), tuple(checks), found)


def validate_splits(
    rows: pd.DataFrame,
    params: Validate,
    issues: Sequence[str],
    group_columns: Sequence[str],
    excused: Collection[str] = (),
) -> ValidationResult:
    """Ask of the split rows: nothing shared across splits, nothing empty, prevalence in its range in each split.

    Args:
        rows: manifest joined with ``split``; ``weight`` is the sampling weight.
        params: section ``validate``.
        issues: whose prevalence is asked.
        group_columns: columns whose values must stay in one split.
        excused: ids of groups that earlier splits had torn already (``splits.summarize``: conflicts).
    """
    table = split_table(rows.reset_index(drop=True), group_columns, excused)
    checks = run_rules(table, split_rules(group_columns))
    checks += run_rules(prevalence_table(rows, issues), prevalence_rules(params, issues))
    return ValidationResult(all(check.success for check in checks), tuple(checks))


def run_rules(table: pd.DataFrame, rules: Sequence[Rule], docs_dir: Path | None = None) -> list[Check]:
    """One check per rule whose columns exist; rows are named by ``video_id``."""
    asked = [rule for rule in rules if rule.needs() <= set(table.columns)]
    answers = _run(table, asked, docs_dir)
    return [to_check(rule, answers[number], table) for number, rule in enumerate(asked)]


def _run(table: pd.DataFrame, rules: Sequence[Rule], docs_dir: Path | None) -> dict[int, Any]:
    """Run one checkpoint over ``table``; answers by position of the rule."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    # tqdm would draw on stderr, into the log of whatever runs this
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("memory")
    # the hook of the library for this; the class is imported in no other module
    type(source).execution_engine_override = _columnwise_engine()
    batch = source.add_dataframe_asset("manifest").add_batch_definition_whole_dataframe("all")
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
    columns = set().union(*(rule.needs() for rule in rules))
    outcome = checkpoint.run(batch_parameters={"dataframe": _for_engine(table, columns)})
    if docs_dir is not None:
        _write_docs(context, outcome, docs_dir)
    results = [result for run in outcome.run_results.values() for result in run.results]
    return {result.expectation_config.meta["rule"]: result for result in results}


def _for_engine(table: pd.DataFrame, asked: Collection[str]) -> pd.DataFrame:
    """The same answers for less: lists would be pickled for a hash, nullable integers compared one by one.

    Of a column that no rule asks about only the name counts.
    """
    table = table.assign(**dict.fromkeys((name for name in table.columns if name not in asked), True))
    changed: dict[str, pd.Series[Any]] = {}
    for name in table.columns:
        kind = str(table[name].dtype)
        if name == "stickers" and kind == "object":
            changed[name] = table[name].notna()
        elif kind in ("Int64", "Int32", "Int16"):
            changed[name] = table[name].astype("float64")
    return table.assign(**changed)


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
    kind = _existing_files() if rule.expectation == FILES else getattr(gx.expectations, rule.expectation)
    where = {"column": rule.column} if rule.column else {}
    if rule.decoded_only:
        from great_expectations.expectations.row_conditions import Column

        where["row_condition"] = Column("decode_ok") == True  # noqa: E712 - builds a condition
    subject = f"{rule.column}: " if rule.column else ""
    return kind(**where, **rule.arguments, description=subject + rule.expected, meta={"rule": number})


@cache
def _columnwise_engine() -> Any:
    """The library's engine, but a question about one column copies no other, and no value is hashed.

    Its own hashes the whole table for a marker of the batch that nobody reads, and filters all columns for each
    question about one.
    """
    from great_expectations.core.batch import BatchMarkers
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.execution_engine.pandas_batch_data import PandasBatchData

    class ColumnwiseEngine(PandasExecutionEngine):
        def get_batch_data_and_markers(self, batch_spec: Any) -> tuple[Any, Any]:
            self.kept: dict[str, pd.Index[Any]] = {}
            rows = PandasBatchData(execution_engine=self, dataframe=batch_spec.batch_data)
            # else the result would hold, copy and write all rows
            batch_spec.batch_data = "PandasDataFrame"
            return rows, BatchMarkers({"ge_load_time": datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")})

        def get_compute_domain(
            self, domain_kwargs: dict[str, Any], domain_type: Any, accessor_keys: Any = None
        ) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
            records, domain, accessor = super().get_compute_domain(domain_kwargs, domain_type, accessor_keys)
            # the failing values are asked for by the domain alone, which names no column
            return records, {**domain, "failing_in": accessor.get("column")}, accessor

        def get_domain_records(self, domain_kwargs: dict[str, Any]) -> pd.DataFrame:
            column = domain_kwargs.get("column", domain_kwargs.get("failing_in"))
            condition = domain_kwargs.get("row_condition")
            table: pd.DataFrame = self.dataframe
            if column not in table:
                every: pd.DataFrame = super().get_domain_records(domain_kwargs)
                return every
            cells = table[[column]]
            if condition is None:
                return cells
            if str(condition) not in self.kept:
                self.kept[str(condition)] = super().get_domain_records(domain_kwargs).index
            rows = self.kept[str(condition)]
            return cells if len(rows) == len(cells) else cells.loc[rows]

    return ColumnwiseEngine


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
            return pd.Series(files_exist(column, Path(media_root)), index=column.index, dtype=bool)

    class ExpectColumnValuesToBeExistingFiles(ColumnMapExpectation):
        media_root: str
        map_metric = ExistingFiles.condition_metric_name
        success_keys = ("mostly", "media_root")

    return ExpectColumnValuesToBeExistingFiles


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
