"""What `coefvq init --data` decides from a table, and what it refuses before a folder is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coefvq.config import LabelNames, load_params
from coefvq.errors import CoefVQError, ConfigError, DataError
from flows.start import start_workspace
from tasks.data_copy import copy_data, link_table
from tasks.start import IssueSource, issue_sources, propose
from tasks.templates import params_for, template
from tasks.workspace import write_pipeline

VIOLENCE, REPOSTS = IssueSource("violence", "is_violent", ("t",)), IssueSource("reposts", "is_repost")
LABELS = {"is_violent": ["t", "f", "f", "f"], "is_repost": [1, 0, 0, 1]}


def export(folder: Path, count: int = 40, **changes: list[Any]) -> Path:
    """Rows as a database exports them, clips (empty files) included; None takes a column away."""
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (videos / f"{number}.mp4").write_bytes(b"")
    columns: dict[str, list[Any]] = {
        "id": list(range(100, 100 + count)),
        "filepath": [str(videos / f"{number}.mp4") for number in range(count)],
        "caption": ["my dinner", "#fun"] * (count // 2),
        "created_at": ["2026-01-02 03:04:05"] * count,
        "play_count": [12] * count,
        **{name: (values * count)[:count] for name, values in LABELS.items()},
        **{name: (values * count)[:count] for name, values in changes.items()},
    }
    path = folder / "clips.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_settings_that_fit_the_table(tmp_path: Path) -> None:
    start = propose(export(tmp_path), [VIOLENCE, REPOSTS])
    write_pipeline(tmp_path / "w", start.settings, "tiny")
    params = load_params(tmp_path / "w" / "params.yaml")
    assert params.issues == ("violence", "reposts")
    words = {
        "uri": "filepath",
        "video_id": "id",
        "title": "caption",
        "views": "play_count",
        "published_at": "created_at",
    }
    assert params.ingest.columns == words
    assert params.ingest.labels["violence"].positive == ("t",)
    assert params.ingest.labels["reposts"].positive is None
    assert params.validate_.prevalence["violence"] == (0.083, 0.75)
    assert params.thresholds["reposts"].max_qps_ratio == params.gate.max_qps_ratio == 60
    assert params.base["violence"].architecture == "multitower"
    assert params.label_names["violence"] == LabelNames(positive="violence", negative="not violence")
    assert any("few positives in test (violence about 2" in line for line in start.warnings)
    keys = [decision.key for decision in start.decisions]
    assert len(keys) == len(set(keys))
    assert set(start.settings) - {"issues", "ingest.columns"} <= set(keys)


def test_of_few_positives_the_base_model_learns_from_labels_alone(tmp_path: Path) -> None:
    start = propose(export(tmp_path / "few"), [VIOLENCE, REPOSTS])
    assert start.settings["base.violence.distil"] is start.settings["base.reposts.distil"] is None
    # 20 positives in validation are enough to see whether the MLLM knows more than its pupil
    many = propose(export(tmp_path / "many", 326, is_violent=["t"] * 126 + ["f"] * 200), [VIOLENCE])
    assert "base.violence.distil" not in many.settings
    write_pipeline(tmp_path / "w", start.settings, "tiny")
    assert load_params(tmp_path / "w" / "params.yaml").base["violence"].distil is None


@pytest.mark.parametrize(("caption", "architecture"), [(["my dinner"], "attention"), (None, "frames")])
def test_few_clips_are_looked_at_closely(tmp_path: Path, caption: list[str] | None, architecture: str) -> None:
    table = export(tmp_path, caption=caption) if caption else export(tmp_path)
    if caption is None:
        pd.read_csv(table).drop(columns="caption").to_csv(table, index=False)
    start = propose(table, [VIOLENCE], recipe="starter")
    write_pipeline(tmp_path / "w", start.settings, "starter")
    params = load_params(tmp_path / "w" / "params.yaml")
    assert params.base["violence"].architecture == architecture
    assert (params.media["violence"].frames, params.media["violence"].frame_size) == (16, 224)
    assert params.base["violence"].motion
    training = params.base["violence"].training
    assert training.num_train_epochs == (36 if caption is None else 12)
    assert training.metric_for_best_model == ("loss" if caption is None else "average_precision")
    many = propose(export(tmp_path / "many", 2002, is_violent=["t"] + ["f"] * 2001), [VIOLENCE], recipe="starter")
    assert not [key for key in many.settings if key.startswith("media.")]


def test_the_template_keeps_its_comments_and_names_no_other_issue() -> None:
    text = params_for(["violence"])
    assert [line for line in text.splitlines() if "#" in line] == [
        line for line in template("params.yaml").splitlines() if "#" in line
    ]
    assert "  violence: {mode: qps" in text
    assert "icd:" not in text
    assert params_for(["icd", "ucc"]) == template("params.yaml")


@pytest.mark.parametrize(
    ("values", "positive"),
    [(["yes", "no"], ("yes",)), (["True", "False"], ("True",)), (["T", "t", "F"], ("T", "t")), (["1", "0"], None)],
)
def test_common_forms_of_a_label_are_known(tmp_path: Path, values: list[str], positive: tuple[str, ...] | None) -> None:
    start = propose(export(tmp_path, is_violent=values), [IssueSource("violence", "is_violent")])
    found = start.settings["ingest.labels.violence"]["positive"]
    assert found == (None if positive is None else list(positive))


@pytest.mark.parametrize(
    ("issue", "changes", "message"),
    [
        (IssueSource("violence", "violent"), {}, "no column 'violent'; it has: id, filepath"),
        (IssueSource("violence", "is_violent", ("x",)), {}, r"'x' never occurs; values there: f \(30\), t \(10\)"),
        (VIOLENCE, {"is_violent": ["t", "True", "f"]}, "also holds True; if positive too: .*:t,True"),
        (IssueSource("violence", "is_violent"), {"is_violent": ["fight", "calm"]}, "say which values are positive"),
        (VIOLENCE, {"is_violent": ["t"]}, "40 of 40 labelled rows are positive"),
        (VIOLENCE, {"is_violent": [None]}, "is empty in all 40 rows"),
        (VIOLENCE, {"filepath": ["/elsewhere/a/x.mp4", "/elsewhere/b/y.mp4"]}, "outside .* --media /elsewhere"),
        (IssueSource("no", "is_violent"), {}, "--issue 'no': expected a small letter"),
        (IssueSource("Gewalt!", "is_violent"), {}, "for example gewalt"),
    ],
)
def test_a_table_or_issue_that_does_not_fit_makes_nothing(
    tmp_path: Path, issue: IssueSource, changes: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(CoefVQError, match=message):
        start_workspace(tmp_path / "w", export(tmp_path, **changes), [issue], None, "tiny")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("option", ["violence=", "violence=is_violent:", "violence=is_violent:t,"])
def test_an_option_with_an_empty_part(option: str) -> None:
    with pytest.raises(ConfigError, match="expected NAME=COLUMN"):
        issue_sources([option])


def test_options_name_column_and_values() -> None:
    assert issue_sources(["a=b:c, d", "e"]) == [IssueSource("a", "b", ("c", "d")), IssueSource("e", "label_e")]


def test_a_column_that_only_looks_like_a_word_is_left(tmp_path: Path) -> None:
    start = propose(export(tmp_path, id=[7], play_count=["many"], created_at=[1767322800]), [REPOSTS])
    assert set(start.settings["ingest.columns"]) == {"uri", "title"}
    told = "\n".join(start.warnings)
    assert "7' comes again; video_id stays empty" in told
    assert "play_count: " in told
    assert "columns not used: id" in told


def test_absolute_paths_are_copied_as_relative_ones(tmp_path: Path) -> None:
    path = export(tmp_path)
    start = propose(path, [VIOLENCE])
    assert copy_data(path, tmp_path / "raw", (), start.settings["ingest.columns"]) == []
    table = pd.read_csv(tmp_path / "raw" / "metadata.csv", dtype=str)
    assert table["file_name"].tolist() == [f"videos/{number}.mp4" for number in range(40)]
    assert table["title"].tolist()[:2] == ["my dinner", "#fun"]
    assert table["is_violent"].tolist()[:2] == ["t", "f"]
    assert (tmp_path / "raw" / "videos" / "39.mp4").is_file()


def test_clips_may_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    path = export(tmp_path).rename(tmp_path / "tables" / "clips.csv")
    with pytest.raises(DataError, match=f"--media {tmp_path / 'videos'}"):
        propose(path, [VIOLENCE])
    start = propose(path, [VIOLENCE], tmp_path / "videos")
    assert start.settings["paths.media"] == str(tmp_path / "videos")
    link_table(path, tmp_path / "raw", tmp_path / "videos", start.settings["ingest.columns"], {})
    assert pd.read_parquet(tmp_path / "raw" / "metadata.parquet")["uri"].tolist()[:2] == ["0.mp4", "1.mp4"]
    assert [item.name for item in (tmp_path / "raw").iterdir()] == ["metadata.parquet"]


def test_a_start_that_was_broken_off_is_taken_up_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, root = export(tmp_path), tmp_path / "w"
    for clip in (tmp_path / "videos").iterdir():
        clip.rename(tmp_path / clip.name)
    with pytest.raises(DataError, match="none of its 40 clips"):
        start_workspace(root, path, [VIOLENCE], None, "tiny")
    assert (root / "params.yaml").is_file()
    for clip in tmp_path.glob("*.mp4"):
        clip.rename(tmp_path / "videos" / clip.name)
    start_workspace(root, path, [VIOLENCE], None, "tiny")
    assert "ready, recipe tiny" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="has clips already"):
        start_workspace(root, path, [VIOLENCE], None, "tiny")


@pytest.mark.parametrize(
    ("values", "positive"),
    [(("fight",), "fight"), (("fight", "brawl"), "street violence"), (("t",), "street violence")],
)
def test_the_report_speaks_in_the_tables_word_or_the_issues(
    tmp_path: Path, values: tuple[str, ...], positive: str
) -> None:
    table = export(tmp_path, is_violent=[*values, "calm"])
    names = propose(table, [IssueSource("street_violence", "is_violent", values)]).settings["label_names"]
    assert names == {"street_violence": {"positive": positive, "negative": f"not {positive}"}}
