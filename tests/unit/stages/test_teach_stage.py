"""The teacher's scores: of which videos, when anew, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coefvq.config import Distil, Params, load_recipe, parse_params
from coefvq.data.manifest import normalise, write_table
from coefvq.data.splits.rows import split_manifest
from coefvq.errors import DataError, SplitError
from coefvq.files import sha256_tree
from coefvq.records import VideoInput
from coefvq.stages import teach
from coefvq.stages.inputs import TeachInputs
from coefvq.training import scoring
from coefvq.training.distilling import teacher_logits
from coefvq.training.logged_scores import MOST, write_logged
from coefvq.training.teacher import read_teacher, read_teaching

SPLITS = ("train", "val", "test", "traffic", "unlabelled")
COUNT = 60
BOTH = {"unlabelled": "unlabelled", "weight": 0.1}


class Scorer:
    """Stands for the MLLM; remembers whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, folder: Path, videos: list[VideoInput], *_: Any) -> tuple[Any, dict[str, str]]:
        self.asked.append([video.video_id for video in videos])
        scores = np.linspace(0.0, 1.0, len(videos))
        scores[1] = np.nan  # one clip that cannot be read
        return scores, {videos[1].video_id: "broken"}


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scorer:
    monkeypatch.chdir(tmp_path)
    found = Scorer()
    monkeypatch.setattr(scoring, "score_videos", found)
    folder = tmp_path / "models" / "icd" / "mllm"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_tables()
    return found


def write_tables(**changes: Any) -> None:
    """Twelve videos of each split; of train and unlabelled every fourth has no label."""
    numbers = range(COUNT)
    label = [pd.NA if number % 20 in (0, 4) else number % 2 for number in numbers]
    splits = [SPLITS[number % 5] for number in numbers]
    columns: dict[str, Any] = {
        "video_id": [f"v{number:02d}" for number in numbers],
        "uri": [f"{number}.mp4" for number in numbers],
        "sha256": [f"{number:064x}" for number in numbers],
        "stickers": [[] for _ in numbers],
        "source_id": [f"s{number}" for number in numbers],
        "creator_id": None,
        "label_icd": pd.array(label, dtype="Int8"),
        **{"title": "a", "published_at": None, "views": 3, "weight": 1.0, "split": None, "decode_ok": True},
        **{"reason": "ok", "size_bytes": 9, "phash": "", "duration_s": 2.0, "fps": 25.0, "width": 64, "height": 64},
        "has_audio": True,
    }
    manifest = normalise(pd.DataFrame(columns | {k: v for k, v in changes.items() if k != "split"}), ["icd"])
    write_table(manifest, Path("data/manifest.parquet"))
    table = pd.DataFrame({"video_id": manifest["video_id"], "split": changes.get("split", splits), "weight": 1.0})
    write_table(table, Path("data/splits.parquet"))


def inputs(repository: Path, distil: dict[str, Any] | None, **base: Any) -> TeachInputs:
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    raw["base"]["icd"] = {"distil": distil, **base}
    params: Params = parse_params(raw, load_recipe(repository / "recipe.yaml"))
    return TeachInputs.of(params, "icd")


def ids(*splits: str, labelled: bool = False) -> list[str]:
    return [f"v{n:02d}" for n in range(COUNT) if SPLITS[n % 5] in splits and not (labelled and n % 20 in (0, 4))]


def test_train_and_unlabelled_are_scored_and_nothing_else(scorer: Scorer, repository: Path) -> None:
    asked = inputs(repository, BOTH)
    teach.run(asked)
    assert len(scorer.asked) == 1
    assert sorted(scorer.asked[0]) == sorted([*ids("train", labelled=True), *ids("unlabelled")])
    found = read_teacher(asked.paths.teacher("icd"))
    # the videos that a model is judged on, or that calls are counted on, never reach the teacher
    assert not set(found.table["video_id"]) & set(ids("val", "test", "traffic"))
    assert set(found.table["video_id"]) == set(scorer.asked[0]) - {scorer.asked[0][1]}
    assert found.teacher == sha256_tree(Path("models/icd/mllm"))


def test_train_alone_where_that_is_asked_for(scorer: Scorer, repository: Path) -> None:
    teach.run(inputs(repository, {"unlabelled": None, "weight": 0.1}))
    assert sorted(scorer.asked[0]) == ids("train", labelled=True)


def test_without_distilling_no_model_is_asked_and_the_table_is_empty(scorer: Scorer, repository: Path) -> None:
    asked = inputs(repository, None)
    teach.run(asked)
    assert scorer.asked == []
    found = read_teacher(asked.paths.teacher("icd"))
    assert found.table.empty
    assert found.teacher == ""
    with pytest.raises(DataError, match=r"teacher\.parquet: holds no score though base\.icd\.distil is on"):
        read_teaching(split_manifest(asked.paths), "icd", Distil(**BOTH), asked.paths, ())


def test_scores_of_the_same_mllm_and_data_are_not_made_again(scorer: Scorer, repository: Path) -> None:
    asked = inputs(repository, BOTH)
    teach.run(asked)
    teach.run(asked)
    teach.run(inputs(repository, BOTH | {"weight": 3.0}, motion=True))
    assert len(scorer.asked) == 1
    (Path("models/icd/mllm") / "config.json").write_text('{"other": 1}')
    teach.run(asked)
    write_tables(title="b")
    teach.run(asked)
    teach.run(inputs(repository, {"unlabelled": None, "weight": 0.1}))
    assert len(scorer.asked) == 4
    asked.paths.teacher("icd").write_bytes(b"no table")
    teach.run(asked)
    assert len(scorer.asked) == 5


def test_what_the_base_learns(scorer: Scorer, repository: Path) -> None:
    asked = inputs(repository, BOTH)
    teach.run(asked)
    teaching = read_teaching(split_manifest(asked.paths), "icd", Distil(**BOTH), asked.paths, ())
    assert [video.video_id for video in teaching.unlabelled] == ids("unlabelled")
    table = teaching.scores.table.set_index("video_id")["score"]
    expected = teacher_logits([table[video.video_id] for video in teaching.unlabelled])
    assert teaching.scores.logits(teaching.unlabelled) == expected.tolist()
    nobody = VideoInput(scorer.asked[0][1], Path("x"))
    assert np.isnan(teaching.scores.logits([nobody])).all()
    alone = read_teaching(split_manifest(asked.paths), "icd", Distil(unlabelled=None, weight=1.0), asked.paths, ())
    assert alone.unlabelled == []


def logged(**changes: Any) -> str:
    """A table of four unlabelled videos and one that the data lack; the MLLM was asked about two by chance."""
    rows = {
        "video_id": [*ids("unlabelled")[:4], "elsewhere"],
        "score": [0.9, 0.8, 0.3, 0.1, 0.5],
        "probability": [1.0, 1.0, 0.25, 0.02, 1.0],
    }
    return str(write_logged(Path("data/logged"), "icd", pd.DataFrame(rows | changes)))


def test_logged_scores_are_learnt_and_nobody_is_asked_for_them(scorer: Scorer, repository: Path) -> None:
    distil = BOTH | {"logged": logged()}
    asked = inputs(repository, distil)
    teach.run(asked)
    assert sorted(scorer.asked[0]) == ids("train", labelled=True)
    teaching = read_teaching(split_manifest(asked.paths), "icd", Distil(**distil), asked.paths, ())
    assert [video.video_id for video in teaching.unlabelled] == ids("unlabelled")[:4]
    assert teaching.scores.logits(teaching.unlabelled) == teacher_logits([0.9, 0.8, 0.3, 0.1]).tolist()
    weights = teaching.scores.weights(teaching.unlabelled)
    # 1, 1, 4 and, at most, MOST: four videos weigh as four
    assert weights == pytest.approx(np.array([1.0, 1.0, 4.0, MOST]) * 4 / (6.0 + MOST))
    train = [VideoInput(name, Path("x")) for name in scorer.asked[0]]
    assert teaching.scores.weights(train) == [1.0] * len(train)
    # another table is another setting; the same one is not read again
    teach.run(asked)
    assert len(scorer.asked) == 1
    teach.run(inputs(repository, BOTH | {"logged": logged(score=[0.9, 0.8, 0.3, 0.2, 0.5])}))
    assert len(scorer.asked) == 2
    teach.run(inputs(repository, BOTH))
    assert read_teacher(asked.paths.teacher("icd")).weights(train) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_id": ["a", "b", "c", "d", "e"]}, r"none of the 5 videos of .* is in split 'unlabelled'"),
        ({"video_id": ["v04", "v04", "c", "d", "e"]}, "video 'v04' comes twice"),
        ({"score": [0.9, 1.8, 0.3, 0.1, 0.5]}, r"score of 'v09' is 1\.8: expected a probability;"),
        ({"score": [0.9, None, 0.3, 0.1, 0.5]}, "score of 'v09' is nan"),
        ({"probability": [1.0, 1.0, 0.0, 1.0, 1.0]}, r"probability of 'v14' is 0\.0: expected a probability above 0"),
    ],
)
def test_a_logged_table_that_does_not_fit_is_refused(
    scorer: Scorer, repository: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        teach.run(inputs(repository, BOTH | {"logged": logged(**changes)}))
    assert scorer.asked == []


def test_a_logged_table_that_is_gone_or_was_changed_is_refused(scorer: Scorer, repository: Path) -> None:
    table = Path(logged())
    asked = inputs(repository, BOTH | {"logged": str(table)})
    write_table(pd.read_parquet(table).assign(score=0.5), table)
    with pytest.raises(DataError, match=r"changed since it was named, so base\.icd\.distil\.logged does not say"):
        teach.run(asked)
    table.unlink()
    with pytest.raises(DataError, match=r"base\.icd\.distil\.logged names it; write it again: coefvq vmp scores"):
        teach.run(asked)
    with pytest.raises(ValueError, match="logged: the scores are of videos of split 'unlabelled'"):
        Distil(unlabelled=None, weight=1.0, logged="x.parquet")


def test_distilling_without_unlabelled_videos_is_refused(scorer: Scorer, repository: Path) -> None:
    write_tables(split=["train" if n % 5 == 4 else SPLITS[n % 5] for n in range(COUNT)])
    message = r"^base\.icd\.distil\.unlabelled: split 'unlabelled' holds no video; raise split\.fractions\.unlabelled"
    with pytest.raises(SplitError, match=message):
        teach.run(inputs(repository, BOTH))
    assert scorer.asked == []


@pytest.mark.parametrize(
    ("column", "values", "word"),
    [
        ("source_id", ["s1", "s4"], "source"),
        ("sha256", ["a" * 64, "b" * 64], "clip"),
        ("phash", ["0f" * 64, ""], "look"),
    ],
)
def test_unlabelled_copies_of_val_are_refused(
    scorer: Scorer, repository: Path, column: str, values: list[str], word: str
) -> None:
    rows = pd.read_parquet("data/manifest.parquet")
    changed = rows[column].tolist()
    changed[1] = changed[4] = values[0]  # v01 is in val, v04 unlabelled
    write_tables(**{column: changed})
    with pytest.raises(SplitError, match=rf"share their {word} with val or test \(first 'v04' with 'v01' in 'val'\)"):
        teach.run(inputs(repository, BOTH))
    assert scorer.asked == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", None, "no column 'score'"),
        ("score", "high", "column score holds something else than numbers"),
        ("teacher", 3, "column teacher holds something else than texts"),
        ("score", 1.5, "a score is no probability"),
    ],
)
def test_a_damaged_table_is_named(scorer: Scorer, repository: Path, column: str, value: Any, message: str) -> None:
    asked = inputs(repository, BOTH)
    teach.run(asked)
    path = asked.paths.teacher("icd")
    table = pd.read_parquet(path)
    write_table(table.drop(columns=column) if value is None else table.assign(**{column: value}), path)
    with pytest.raises(DataError, match=message):
        read_teaching(split_manifest(asked.paths), "icd", Distil(**BOTH), asked.paths, ()).scores.logits([])
