"""The ingest stage as a person runs it: killed and resumed, on remote clips, on a second and third day."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from coefvq.config import Params, load_params
from coefvq.data.manifest import write_table as write_parquet
from coefvq.data.validation.presence import files_exist
from coefvq.errors import ConfigError, DataError
from coefvq.stages import ingest
from coefvq.stages.inputs import IngestInputs
from tests.unit.clip_server import serving

FIGHT = {"column": "label", "positive": None}


def run_ingest(params: Params) -> None:
    ingest.run(IngestInputs.of(params))


def settings(root: Path, repository: Path, **changes: object) -> Params:
    """The project's own settings with another place and issue; ``paths__media=…`` sets a nested key."""
    values = load_params(repository / "params.yaml").model_dump(mode="json", by_alias=True)
    values["issues"] = ["icd"]
    values["ingest"]["labels"]["icd"] = FIGHT
    values["runtime"]["workers"] = 1
    for name in ("raw", "manifest", "splits", "reports"):
        values["paths"][name] = str(root / Path(values["paths"][name]).name)
    for name, value in changes.items():
        section, key = name.split("__")
        values[section][key] = value
    return Params.model_validate_json(json.dumps(values))


@pytest.fixture
def root(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with twelve clips in ``raw/clips`` and their table."""
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "raw" / "clips"
    folder.mkdir(parents=True)
    for number, source in enumerate(sorted((clips / "videos").glob("*.mp4"))):
        shutil.copyfile(source, folder / f"{number:02}.mp4")
    write_table(tmp_path, [f"clips/{number:02}.mp4" for number in range(12)])
    return tmp_path


def write_table(root: Path, uris: list[str], **columns: list[object]) -> None:
    """``raw/metadata.csv`` with alternating labels."""
    labels = [number % 2 for number in range(len(uris))]
    ids = [f"v{number}" for number in range(len(uris))]
    frame = pd.DataFrame({"file_name": uris, "video_id": ids, "label": labels, **columns})
    frame.to_csv(root / "raw" / "metadata.csv", index=False)


def manifest(root: Path) -> pd.DataFrame:
    """The manifest as other stages read it."""
    return pd.read_parquet(root / "manifest.parquet")


def known(root: Path) -> int:
    """How many paths the cache knows."""
    path = root / "cache" / "probes.sqlite"
    if not path.is_file():
        return 0
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
        return int(store.execute("SELECT count(*) FROM probes WHERE place LIKE '/%'").fetchone()[0])


def test_with_and_without_cache_the_same_bytes(root: Path, repository: Path) -> None:
    run_ingest(settings(root, repository))
    cold = (root / "manifest.parquet").read_bytes()
    run_ingest(settings(root, repository))
    assert (root / "manifest.parquet").read_bytes() == cold
    shutil.rmtree(root / "cache")
    run_ingest(settings(root, repository, runtime__workers=2))
    assert (root / "manifest.parquet").read_bytes() == cold
    report = json.loads((root / "reports" / "ingest.json").read_text())
    assert (report["videos"], report["decodable"], report["labelled"]) == (12, 12, {"icd": 12})
    assert report["reasons"]["ok"] == 12
    assert report["rejected"] == {}


def test_killed_in_the_middle_it_resumes(root: Path, repository: Path, clips: Path) -> None:
    local = [f"clips/{number:02}.mp4" for number in range(12)]
    with serving(root / "raw" / "clips") as server:
        # the seventh answer does not come until we say so: the kill hits a run that is really under way
        server.held["00.mp4"] = threading.Event()
        write_table(root, [*local[:6], server.url("00.mp4"), *local[6:]])
        params = settings(root, repository, ingest__protocols=["http"])
        document = json.dumps(params.model_dump(mode="json", by_alias=True, exclude={"models"}))  # JSON is YAML
        (root / "params.yaml").write_text(document)
        (root / "recipe.yaml").write_text((repository / "recipe.yaml").read_text())
        command = [sys.executable, "-m", "coefvq", "ingest", "--params", str(root / "params.yaml")]
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        assert server.waiting.wait(60)
        pause = threading.Event()
        for _ in range(3000):
            if known(root) == 6 or child.poll() is not None:
                break
            pause.wait(0.02)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not (root / "manifest.parquet").exists()
        assert known(root) == 6
        server.held.pop("00.mp4").set()
        forge_width(root)
        run_ingest(params)
        resumed = manifest(root)
        shutil.rmtree(root / "cache")
        run_ingest(params)
        whole = manifest(root)
    assert resumed["width"].tolist() == [1] * 6 + [160] * 7  # the first six were taken from the cache
    pd.testing.assert_frame_equal(resumed.assign(width=whole["width"]), whole)


def forge_width(root: Path) -> None:
    """Mark what the cache holds, so that it is recognised in the manifest."""
    with contextlib.closing(sqlite3.connect(root / "cache" / "probes.sqlite")) as store, store:
        store.execute("UPDATE probes SET facts = json_set(facts, '$.width', 1) WHERE place LIKE '/%'")
        store.execute("DELETE FROM probes WHERE place LIKE 'sha256:%'")


def test_clips_behind_a_url_prefix(root: Path, repository: Path) -> None:
    write_table(root, ["00.mp4", "01.mp4", "../01.mp4", "file:///etc/passwd"])
    with serving(root / "raw" / "clips") as server:
        prefix = server.url("").rstrip("/")
        with pytest.raises(ConfigError, match=r"http is not in ingest\.protocols"):
            run_ingest(settings(root, repository, paths__media=prefix))
        run_ingest(settings(root, repository, paths__media=prefix, ingest__protocols=["http"]))
    rows = manifest(root)
    assert rows["uri"].tolist() == [f"{prefix}/00.mp4", f"{prefix}/01.mp4", "../01.mp4", "file:///etc/passwd"]
    assert rows["reason"].tolist() == ["ok", "ok", "outside_root", "outside_root"]


def test_clips_in_another_folder(root: Path, repository: Path) -> None:
    (root / "raw" / "clips").rename(root / "elsewhere")
    write_table(root, ["00.mp4", "nothing.mp4"])
    run_ingest(settings(root, repository, paths__media=str(root / "elsewhere")))
    assert manifest(root)["reason"].tolist() == ["ok", "missing"]
    (root / "raw" / "metadata.csv").unlink()
    (root / "elsewhere").rename(root / "raw" / "1")
    with pytest.raises(ConfigError, match=r"paths\.media"):
        run_ingest(settings(root, repository, paths__media=str(root / "raw")))


def test_a_store_that_is_not_allowed(root: Path, repository: Path) -> None:
    fsspec.filesystem("memory").pipe("/bucket/a.mp4", (root / "raw" / "clips" / "00.mp4").read_bytes())
    write_table(root, ["memory://bucket/a.mp4"])
    run_ingest(settings(root, repository))
    assert manifest(root)["reason"].tolist() == ["outside_root"]
    assert not (root / "cache" / "media").exists()


def test_promised_bytes_splits_and_posteriors(root: Path, repository: Path) -> None:
    run_ingest(settings(root, repository))
    hashes = manifest(root)["sha256"].tolist()
    names = [f"clips/{number:02}.mp4" for number in range(3)]
    views = {f"posterior_icd{view}": [0.5, "", 0.25] for view in ("", "_vision", "_vision_text")}
    promised = [hashes[0].upper(), hashes[0], ""]
    write_table(root, names, sha256=promised, split=["train", "", "test"], posterior_ucc=[1, 1, 1], **views)
    run_ingest(settings(root, repository))
    rows = manifest(root)
    assert rows["reason"].tolist() == ["ok", "changed", "ok"]
    assert rows["sha256"].tolist() == hashes[:3]
    assert rows["split"].isna().tolist() == [False, True, False]
    assert rows["posterior_icd_vision_text"].dtype == "float64"
    assert rows["posterior_icd_vision"].tolist()[::2] == [0.5, 0.25]
    assert "posterior_ucc" not in rows  # not an issue of this run


def test_a_mistake_in_the_last_row_costs_no_probing(root: Path, repository: Path) -> None:
    run_ingest(settings(root, repository))
    before = (root / "manifest.parquet").read_bytes()
    shutil.rmtree(root / "cache")
    write_table(root, ["clips/00.mp4", "clips/01.mp4"], views=["1", "-1"])
    with pytest.raises(DataError, match=r"metadata\.csv row 3: views = '-1'"):
        run_ingest(settings(root, repository))
    assert not (root / "cache").exists()
    assert (root / "manifest.parquet").read_bytes() == before


def test_row_groups_have_one_schema(root: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_ROW_GROUP", 2)
    names = [f"clips/{number:02}.mp4" for number in range(4)]
    write_table(root, names, stickers=["", "", '["a", "b"]', ""], views=["", "", "7", ""], creator_id=["", "", "c", ""])
    run_ingest(settings(root, repository))
    rows = manifest(root)
    assert [list(stickers) for stickers in rows["stickers"]] == [[], [], ["a", "b"], []]
    assert rows["views"].tolist() == [pd.NA, pd.NA, 7, pd.NA]
    assert str(rows["views"].dtype) == "Int64"
    assert rows["creator_id"].isna().tolist() == [True, True, False, True]


def report(root: Path) -> dict[str, object]:
    return dict(json.loads((root / "reports" / "ingest.json").read_text()))


def test_what_is_not_taken_from_a_folder_is_counted_and_named(
    root: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "raw" / "metadata.csv").unlink()
    clip = root / "raw" / "clips" / "00.mp4"
    (root / "raw" / "clips").rename(root / "raw" / "1")
    clip = root / "raw" / "1" / "00.mp4"
    for name in ("a.MPG", "b.flv", "c.mts", "d.3G2"):  # the bytes are MP4's, as FFmpeg looks at those
        shutil.copyfile(clip, clip.with_name(name))
    for name in ("e.wmv", "f.gif", ".hidden.mp4", "README"):
        shutil.copyfile(clip, clip.with_name(name))
    os.mkfifo(clip.with_name("pipe.mp4"))
    shutil.copyfile(clip, os.fsencode(clip.with_name("g")) + b"\xff.mp4")
    run_ingest(settings(root, repository))
    taken = {Path(uri).name for uri in manifest(root)["uri"]}
    assert taken == {f"{number:02}.mp4" for number in range(12)} | {"a.MPG", "b.flv", "c.mts", "d.3G2"}
    assert report(root)["not_taken"] == {
        "files": 6,
        "reasons": {
            "hidden": 1,
            "not an accepted container": 3,
            "its name is not UTF-8": 1,
            "a pipe, socket or device": 1,
        },
        "first": [
            "1/.hidden.mp4 (hidden)",
            "1/README (not an accepted container)",
            "1/e.wmv (not an accepted container)",
            "1/f.gif (not an accepted container)",
            "1/g\\xff.mp4 (its name is not UTF-8)",
            "1/pipe.mp4 (a pipe, socket or device)",
        ],
    }
    assert "6 files not taken: 1/.hidden.mp4 (hidden), 1/README" in capsys.readouterr().err


def test_clips_that_no_row_names_are_counted_and_named(root: Path, repository: Path) -> None:
    write_table(root, ["clips/00.mp4", "clips\\01.mp4"])
    (root / "raw" / "clips" / "notes.txt").touch()
    run_ingest(settings(root, repository))
    found = report(root)["not_taken"]
    assert isinstance(found, dict)
    assert (found["files"], found["reasons"]) == (10, {"no row names it": 10})
    assert found["first"][0] == "clips/02.mp4 (no row names it)"


def test_names_are_found_as_the_disk_writes_them(root: Path, repository: Path) -> None:
    """Written on Windows, and with accents in two pieces: the manifest holds the names that validation will list."""
    composed, decomposed = (unicodedata.normalize(form, "kampf-\u00fcben.mp4") for form in ("NFC", "NFD"))
    (root / "raw" / "clips" / "00.mp4").rename(root / "raw" / "clips" / decomposed)
    (root / "raw" / "clips" / "01.mp4").rename(root / "raw" / "clips" / "12:30 fight.mp4")
    write_table(root, [f"clips\\{composed}", "clips\\12:30 fight.mp4", "clips\\none.mp4"])
    run_ingest(settings(root, repository))
    rows = manifest(root)
    assert rows["uri"].tolist() == [f"clips/{decomposed}", "clips/12:30 fight.mp4", "clips\\none.mp4"]
    assert rows["reason"].tolist() == ["ok", "ok", "missing"]
    assert files_exist(rows["uri"], root / "raw").tolist() == [True, True, False]


def test_a_name_that_comes_again_changes_no_id(root: Path, repository: Path) -> None:
    """The manifest of an older version, which named clips after their file alone as long as no name came twice."""
    names = [f"clips/{number:02}.mp4" for number in range(12)]
    table = pd.DataFrame({"file_name": names, "label": [number % 2 for number in range(12)]})
    table.to_csv(root / "raw" / "metadata.csv", index=False)
    params = settings(root, repository)
    run_ingest(params)
    old = manifest(root)
    assert old["video_id"].str.fullmatch(r"\d\d-[0-9a-f]{16}").all()
    old = old.assign(video_id=[Path(uri).stem for uri in old["uri"]])
    write_parquet(old, root / "manifest.parquet")
    old[["video_id"]].to_parquet(root / "splits.parquet")

    (root / "raw" / "00.mp4").write_bytes((root / "raw" / names[5]).read_bytes())
    (root / "raw" / "new").mkdir()
    (root / "raw" / "new" / "00.mp4").write_bytes((root / "raw" / names[6]).read_bytes())
    more = pd.DataFrame({"file_name": ["00.mp4", *names, "new/00.mp4"], "label": [0] * 14})
    more.to_csv(root / "raw" / "metadata.csv", index=False)
    run_ingest(params)
    ids = dict(zip(manifest(root)["uri"], manifest(root)["video_id"], strict=True))
    assert [ids[name] for name in names] == old["video_id"].tolist()
    assert len(set(ids.values())) == 14
    before = (root / "splits.parquet").read_bytes()
    (root / "manifest.parquet").unlink()
    with pytest.raises(DataError, match=r"manifest\.parquet: missing, but .*splits\.parquet shows that there was one"):
        run_ingest(params)
    assert (root / "splits.parquet").read_bytes() == before
