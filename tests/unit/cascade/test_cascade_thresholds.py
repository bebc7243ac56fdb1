"""The stand-alone estimator: scikit-learn's own checks, both call forms, what it refuses, and the command."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from typer.testing import CliRunner

from coefvq.cascade.fitting import MODES
from coefvq.cascade.policy import CascadePolicy, threshold_text
from coefvq.cascade.thresholds import CascadeThresholds
from coefvq.cli.cascade import app
from coefvq.errors import DataError, InfeasibleError, ScoresError
from tests.unit.scored_world import scores_table


def world(n: int = 2000, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.15).astype(float)
    shared = rng.normal(size=n)
    return 1.6 * y + 0.7 * (shared + rng.normal(size=n)), 3.0 * y + 0.7 * (shared + rng.normal(size=n)), y


def first_two(X: Any) -> Any:
    return X[:, :2] if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] > 2 else X


class TwoOfMany(CascadeThresholds):
    """scikit-learn's checks bring any number of features and classes: take the first two columns, one against rest."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> TwoOfMany:
        if y is not None and np.asarray(y).ndim == 1 and len(np.asarray(y)):
            y = (np.asarray(y) == np.asarray(y)[0]).astype(float)
        super().fit(first_two(X), y, sample_weight=sample_weight)
        self.n_features_in_ = np.asarray(X).shape[1]
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(first_two(X))


def not_applicable(_: Any) -> dict[str, str]:
    return {
        "check_sample_weight_equivalence_on_dense_data": "a weight of zero is refused, by design",
        "check_n_features_in_after_fitting": "the adapter above takes any number of features",
    }


@parametrize_with_checks([TwoOfMany(mode="cost")], expected_failed_checks=not_applicable)
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)


def test_both_call_forms_give_the_same() -> None:
    base, mllm, y = world()
    columns = CascadeThresholds(precision=0.8, qps=20).fit(base, mllm, y)
    matrix = CascadeThresholds(precision=0.8, qps=20).fit(np.column_stack([base, mllm]), y)
    named = CascadeThresholds(precision=0.8, qps=20).fit(base_scores=base, mllm_scores=mllm, y=y)
    assert columns.base_threshold_ == matrix.base_threshold_ == named.base_threshold_
    predicted = columns.predict(base, mllm)
    assert predicted.tolist() == matrix.predict(np.column_stack([base, mllm])).tolist()
    assert y[predicted == 1].mean() == pytest.approx(columns.precision_)
    assert columns.precision_ >= 0.8
    assert predicted[y == 1].mean() == pytest.approx(columns.recall_)
    assert 100 * columns.escalates(base).mean() == pytest.approx(columns.qps_ratio_)
    assert columns.qps_ratio_ <= 20
    unasked = np.where(columns.escalates(base), mllm, np.nan)
    assert columns.predict(base, unasked).tolist() == predicted.tolist()


def test_it_works_in_cross_validation() -> None:
    base, mllm, y = world()
    found = cross_val_score(
        CascadeThresholds(precision=0.6), np.column_stack([base, mllm]), y, cv=3, scoring="f1", error_score="raise"
    )
    assert (found > 0.5).all()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_finds_thresholds(mode) -> None:
    base, mllm, y = world(6000)
    found = CascadeThresholds(mode=mode, precision=0.7, qps=40).fit(base, mllm, y)
    assert found.recall_ > 0.5
    assert (found.expected_cost_ is not None) == (mode == "cost")


def test_a_weight_of_two_is_a_row_twice() -> None:
    base, mllm, y = world(300)
    weight = np.random.default_rng(1).integers(1, 4, 300)
    weighted = CascadeThresholds(precision=0.8, qps=15).fit(base, mllm, y, weight)
    repeated = CascadeThresholds(precision=0.8, qps=15).fit(*(np.repeat(c, weight) for c in (base, mllm, y)))
    for name in ("base_threshold_", "decision_threshold_", "recall_", "qps_ratio_"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name))


BASE, MLLM, Y = [0.1, 0.9, 0.5, 0.7], [0.2, 0.8, 0.6, 0.1], [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("base", "mllm", "y", "weight", "message"),
    [
        ([0.1, np.nan, 0.5, 0.7], MLLM, Y, None, "base score of row 1 is NaN"),
        (BASE, [0.2, 0.8, np.inf, 0.1], Y, None, r"mllm score of row 2 is infinity \(inf\)"),
        (BASE, [0.2, 0.8, -np.inf, 0.1], Y, None, "mllm score of row 2 is infinity"),
        (BASE, MLLM, [1, 1, 1, 1], None, "one class only"),
        (BASE, MLLM, [0, 1, 2, 0], None, "label of row 2 is 2.0"),
        (BASE, MLLM, ["a", "b", "a", "b"], None, "y: expected numbers"),
        ([0.5] * 4, MLLM, Y, None, "base scores are all 0.5"),
        (BASE, [3.0] * 4, Y, None, "mllm scores are all 3"),
        (BASE, MLLM, Y, [1, 1, 0, 1], "sample_weight of row 2 is 0.0"),
        (BASE, MLLM, Y, [1, -1, 1, 1], "sample_weight of row 1 is -1.0"),
        (BASE, MLLM[:3], Y, None, "expected two columns of one length"),
        (BASE, MLLM, Y[:3], None, "y has shape"),
    ],
)
def test_bad_input_is_refused_with_the_reason(base, mllm, y, weight, message) -> None:
    with pytest.raises(ScoresError, match=message) as raised:
        CascadeThresholds().fit(base, mllm, y, weight)
    assert "\n" not in str(raised.value)


def test_the_constraint_that_fails_is_named() -> None:
    with pytest.raises(InfeasibleError, match=r"precision 99 % fails within 100 % MLLM calls: 66.67 % at best, 32.33"):
        CascadeThresholds(precision=0.99).fit([0.1, 0.5, 0.5, 0.5], [0.2, 0.6, 0.6, 0.6], Y)
    with pytest.raises(InfeasibleError, match=r"QPS ratio of at most 10 % fails: .* takes 25 %, 15 points more"):
        CascadeThresholds(qps=10.0).fit(BASE, MLLM, Y)
    with pytest.raises(InfeasibleError, match=r"it takes 75 % calls, 25 points more"):
        CascadeThresholds(precision=1.0, qps=50).fit([0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.95, 0.1], [0, 0, 1, 0])


@pytest.mark.parametrize(("name", "value"), [("precision", 80), ("qps", 0), ("qps", 101), ("miss_cost", -1)])
def test_parameters_out_of_range(name, value) -> None:
    mode = "cost" if name.endswith("cost") else "budget"
    with pytest.raises(ValueError, match=str(value)):
        CascadeThresholds(mode=mode).set_params(**{name: value}).fit(BASE, MLLM, Y)
    with pytest.raises(ValueError, match="expected one of budget"):
        CascadeThresholds(mode="best").fit(BASE, MLLM, Y)


def run(*arguments) -> Any:
    return CliRunner().invoke(app, ["fit", *map(str, arguments)])


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.parquet"
    scores_table(n=1500).to_parquet(path)
    return path


def test_the_command_fits_on_val_and_measures_on_test(scores, tmp_path) -> None:
    out = tmp_path / "policy.json"
    result = run(scores, "--precision", 0.5, "--qps", 20, "--json", "--out", out, "--issue", "icd")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["fitted_on"], found["reported_on"]) == ("val", "test")
    assert found["fitted"]["precision"]["value"] >= 0.5
    policy = CascadePolicy.from_json(out.read_text())
    table = pd.read_parquet(scores)
    test = table[table["split"] == "test"]
    flagged = policy.decide(test["base"].to_numpy(), test["mllm"].to_numpy())
    label = test["label"].to_numpy(float)
    assert found["reported"]["precision"]["value"] == pytest.approx(label[flagged].mean())
    assert found["reported"]["recall"]["value"] == pytest.approx(flagged[label == 1].mean())


def test_the_command_takes_any_columns_of_a_csv(tmp_path) -> None:
    base, mllm, y = world(800)
    pd.DataFrame({"small": base, "large": mllm, "truth": y}).to_csv(tmp_path / "s.csv", index=False)
    names = ("--base-col", "small", "--mllm-col", "large", "--label-col", "truth")
    result = run(tmp_path / "s.csv", *names, "--qps", 30)
    assert result.exit_code == 0, result.output
    assert "all rows (fitted), n = 800" in " ".join(result.output.replace("│", " ").replace("┃", " ").split())
    refused = run(tmp_path / "s.csv", *names, "--out", tmp_path / "p.json")
    assert isinstance(refused.exception, DataError)
    assert "leave [0, 1]" in str(refused.exception)
    shifted = json.loads(run(tmp_path / "s.csv", *names, "--precision", 0.5, "--prevalence", 0.02, "--json").output)
    asis = json.loads(run(tmp_path / "s.csv", *names, "--precision", 0.5, "--json").output)
    assert shifted["fitted"]["recall"]["value"] < asis["fitted"]["recall"]["value"]


def test_two_files_are_joined_by_id(scores, tmp_path) -> None:
    table = pd.read_parquet(scores)
    table.drop(columns="mllm").to_parquet(tmp_path / "base.parquet")
    other = table[["video_id", "mllm"]].sample(frac=1.0, random_state=1)
    other.to_parquet(tmp_path / "mllm.parquet")
    two = run(tmp_path / "base.parquet", "--mllm-file", tmp_path / "mllm.parquet", "--precision", 0.5, "--json")
    assert two.output == run(scores, "--precision", 0.5, "--json").output
    other.iloc[1:].to_parquet(tmp_path / "mllm.parquet")
    result = run(tmp_path / "base.parquet", "--mllm-file", tmp_path / "mllm.parquet")
    assert "ids of the two models differ: 1 only in the base file" in str(result.exception)


def test_overlapping_splits_and_other_bad_files_are_refused(scores, tmp_path) -> None:
    table = pd.read_parquet(scores)
    doubled = table["split"].eq("test").idxmax()
    table.loc[doubled, "video_id"] = "val-3"
    table.to_parquet(tmp_path / "leak.parquet")
    assert "1 videos are in 'val' and in 'test', first val-3" in str(run(tmp_path / "leak.parquet").exception)
    table.assign(video_id="x").to_parquet(tmp_path / "same.parquet")
    assert "in 'val' and in 'test', first x" in str(run(tmp_path / "same.parquet").exception)
    (tmp_path / "broken.parquet").write_text("no")
    assert "not a readable Parquet table" in str(run(tmp_path / "broken.parquet").exception)
    assert "no such file" in str(run(tmp_path / "none.csv").exception)
    assert "no column 'nope'" in str(run(scores, "--base-col", "nope").exception)
    assert "expected a share" in str(run(scores, "--precision", 80).exception)


@pytest.fixture
def labelled() -> pd.DataFrame:
    """Three decimals, so that scores are written as they are."""
    base, mllm, y = (np.round(column / 10 + 0.3, 3) for column in world(400))
    return pd.DataFrame({"video_id": [f"v{i}" for i in range(400)], "label": (y > 0.3) * 1, "base": base, "mllm": mllm})


def fitted(*arguments: Any) -> dict[str, Any]:
    result = run(*arguments, "--precision", 0.6, "--qps", 60, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("ids", ["007 7", "1e5 100000", "NA null", "nan None", "7.0 7"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "tsv"])
def test_ids_are_text_in_every_format(tmp_path, labelled, ids, kind) -> None:
    labelled.to_csv(tmp_path / "control.csv", index=False)
    table = labelled.assign(video_id=[*ids.split(), *labelled["video_id"][2:]])
    path = tmp_path / f"s.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    assert fitted(path) == fitted(tmp_path / "control.csv")


def test_ids_of_19_digits_are_joined(tmp_path, labelled, capfd) -> None:
    labelled["video_id"] = [str(1475000000000000000 + number) for number in range(400)]
    labelled.to_csv(tmp_path / "control.csv", index=False)
    gap = pd.DataFrame([{"label": 0, "base": 0.1}])
    pd.concat([labelled.drop(columns="mllm"), gap]).to_csv(tmp_path / "base.csv", index=False)
    labelled[["video_id", "mllm"]].sample(frac=1.0, random_state=2).to_csv(tmp_path / "mllm.csv", index=False)
    result = run(tmp_path / "base.csv", "--mllm-file", tmp_path / "mllm.csv", "--precision", 0.6, "--qps", 60, "--json")
    assert json.loads(result.stdout) == fitted(tmp_path / "control.csv")
    assert result.stderr == f"{tmp_path / 'base.csv'}: 1 rows without video_id left out, first row 402\n"
    floats = labelled.assign(video_id=labelled["video_id"].astype(float))
    floats.to_parquet(tmp_path / "floats.parquet")
    assert "floats.parquet row 1: video_id = 1.475e+18" in str(run(tmp_path / "floats.parquet").exception)


TABLE = "video_id,label,base,mllm\na,1,0.9,0.9\nb,0,0.1,0.2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("0.9\n", "0.9,\n"), "row 2: 5 fields: expected 4"),
        ("label,base,mllm,base\n1,0.9,0.9,0.5\n", "row 1: column 'base' twice"),
        (TABLE + "a,0,0.2,0.2\n", "row 4: id a comes again (first in row 2)"),
        (TABLE.replace("0.1", "1_0"), "row 3: base = '1_0': expected a finite number"),
        (TABLE.replace("0.1", "0x10"), "row 3: base = '0x10': expected a finite number"),
        (TABLE.replace("0.1", "\uff11"), "row 3: base = '\uff11': expected a finite number"),
        (TABLE.replace("0.1", "inf"), "row 3: base = 'inf': expected a finite number"),
        (TABLE.replace("0.1", "nan"), "row 3: base = 'nan': expected a finite number"),
        (TABLE.replace("0.1", '"0,1"'), "row 3: base = '0,1': expected a finite number with a decimal point"),
        (TABLE.replace("b,0", "b,yes"), "row 3: label = 'yes': expected a finite number"),
        (TABLE.replace("base", "Base"), "column 'Base': did you mean 'base'?"),
        (TABLE.replace("mllm", "mlllm"), "column 'mlllm': did you mean 'mllm'?"),
        (TABLE.replace("video_id", "video-id"), "column 'video-id': did you mean 'video_id'?"),
        ("label;base,mllm\n1,0.9\n", "fields may be separated by , as well as by ;"),
        ("label,base,mllm\n", "no rows"),
        ("score\n1\n", "no column 'base'; columns are score"),
    ],
)
def test_a_table_of_scores_is_read_as_strictly_as_clips(tmp_path, text, message) -> None:
    (tmp_path / "s.csv").write_text(text)
    error = run(tmp_path / "s.csv").exception
    assert isinstance(error, DataError)
    assert message in str(error)
    assert "s.csv" in str(error)


def test_a_semicolon_table_with_decimal_commas(tmp_path, labelled) -> None:
    labelled.to_csv(tmp_path / "control.csv", index=False)
    labelled.to_csv(tmp_path / "s.csv", index=False, sep=";", decimal=",")
    assert "0," in (tmp_path / "s.csv").read_text()
    assert fitted(tmp_path / "s.csv") == fitted(tmp_path / "control.csv")
    said = run(tmp_path / "s.csv", "--precision", 0.6, "--qps", 60).stderr
    assert said == "s.csv: fields are separated by ;\n"


def test_labels_may_be_true_and_false(tmp_path, labelled) -> None:
    labelled.to_csv(tmp_path / "control.csv", index=False)
    booleans = labelled.assign(label=labelled["label"] == 1)
    booleans.to_csv(tmp_path / "s.csv", index=False)
    booleans.to_parquet(tmp_path / "s.parquet")
    assert fitted(tmp_path / "s.csv") == fitted(tmp_path / "s.parquet") == fitted(tmp_path / "control.csv")


@pytest.mark.parametrize("seed", range(5))
def test_the_printed_thresholds_flag_the_same_videos(tmp_path, seed) -> None:
    """Rounded to six digits, one of two thresholds lay above the score of the video that it was taken from."""
    base, mllm, y = world(300, seed)
    base, mllm = (1 / (1 + np.exp(-column)) for column in (base, mllm))
    pd.DataFrame({"label": y, "base": base, "mllm": mllm}).to_csv(tmp_path / "s.csv", index=False)
    found = json.loads(run(tmp_path / "s.csv", "--precision", 0.6, "--qps", 50, "--json").stdout)
    shown = run(tmp_path / "s.csv", "--precision", 0.6, "--qps", 50).stdout
    printed = [float(text) for text in re.findall(r">= (\S+?),? ", shown.replace("\n", " "))]
    assert printed == [found["base_threshold"], found["decision_threshold"]]
    flagged = (base >= printed[0]) & (mllm >= printed[1])
    exact = (base >= found["base_threshold"]) & (mllm >= found["decision_threshold"])
    assert (flagged == exact).all()
    assert f"{found['base_threshold']:.6g}" != repr(found["base_threshold"])


@given(st.floats(0, 1))
def test_a_threshold_reads_back_equal(value: float) -> None:
    assert float(threshold_text(value)) == value
    assert float(threshold_text(np.float64(value))) == value
