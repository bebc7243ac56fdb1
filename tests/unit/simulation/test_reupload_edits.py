"""The parts of simulated re-uploads: edits on pictures, sound, footage of odd clips, plans, file sizes."""

from dataclasses import replace
from itertools import repeat
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coefvq.data.importers import import_table
from coefvq.errors import MediaError
from coefvq.simulation.reupload.edits import EVASION, EXCLUSIVE, PRESENTATION, Edit, draw_edit
from coefvq.simulation.reupload.encode import SAMPLE_RATE, read_frames, read_sound, retimed, write_clip, write_to_size
from coefvq.simulation.reupload.footage import Footage, Frames, _at_constant_rate, _check_frame, _size, failed, prepare
from coefvq.simulation.reupload.painting import painter
from coefvq.simulation.reupload.plan import ReuploadPlan, originals, plans, settled, window
from coefvq.simulation.reupload.render import Job, render
from coefvq.simulation.reupload.titles import neutral_title, retitled

SIZE = (120, 80)
PAINTED = ("crop", "mirror", "colour", "letterbox", "border", "pip", "banner", "logo")
GREEN = (0, 200, 0)


def picture(seed: int = 0) -> Image.Image:
    cells = np.random.default_rng(seed).integers(40, 216, (8, 12, 3))
    return Image.fromarray(np.kron(cells, np.ones((10, 10, 1))).astype(np.uint8))


def painted(edit: Edit, image: Image.Image, progress: float = 0.0) -> np.ndarray:
    paint = painter(edit, image.size, repeat(Image.new("RGB", (64, 64), GREEN)))
    assert paint is not None
    return np.asarray(paint(image, progress))


@pytest.mark.parametrize("kind", PAINTED)
@pytest.mark.parametrize("seed", range(5))
def test_every_edit_keeps_the_size_changes_the_picture_and_leaves_its_input_alone(kind: str, seed: int) -> None:
    image, before = picture(seed), np.asarray(picture(seed))
    edit = draw_edit(np.random.default_rng(seed), kind)
    after = painted(edit, image)
    assert after.shape == before.shape
    changed = (after != before).any(axis=2).mean()
    assert changed > (0.5 if kind in ("crop", "mirror", "colour") else 0.01)
    np.testing.assert_array_equal(np.asarray(image), before)
    assert edit == draw_edit(np.random.default_rng(seed), kind)


def test_what_edits_do_where() -> None:
    image = picture()
    before = np.asarray(image)
    np.testing.assert_array_equal(painted(Edit("mirror", {}), image), before[:, ::-1])
    bars = painted(Edit("letterbox", {"bars": "above", "share": 0.1, "fill": [1, 2, 3]}), image)
    assert (bars[:8] == [1, 2, 3]).all()
    assert (bars[-8:] == [1, 2, 3]).all()
    np.testing.assert_array_equal(bars[8:-8], before[8:-8])
    framed = painted(Edit("border", {"share": 0.05, "fill": [9, 9, 9]}), image)
    assert (framed[:, :4] == 9).all()
    np.testing.assert_array_equal(framed[4:-4, 4:-4], before[4:-4, 4:-4])
    inset = painted(Edit("pip", {"corner": 3, "share": 0.25}), image)
    assert (inset[-20:-5, -30:-5] == GREEN).all()
    np.testing.assert_array_equal(inset[:40], before[:40])
    zoomed = painted(Edit("crop", {"left": 0.5, "top": 0.5, "share": 0.5}), image)
    np.testing.assert_allclose(zoomed[5, 5], before[42, 62], atol=2)
    logo = Edit("logo", {"text": "@a", "accent": [255, 0, 0], "corner": 0, "jumps": True, "height": 0.12})
    assert (painted(logo, image, 0.2)[:20, :20] != before[:20, :20]).any()
    assert (painted(logo, image, 0.7)[:20, :20] == before[:20, :20]).all()


def frequency(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize(("tempo", "pitch"), [(1.25, 1.0), (0.8, 1.0), (1.0, 1.2), (1.0, 0.85)])
def test_tempo_changes_the_length_and_pitch_the_tone(tempo: float, pitch: float) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    played = retimed(tone, tempo, pitch)
    assert len(played) == pytest.approx(len(tone) / tempo, rel=0.03)
    assert frequency(played) == pytest.approx(440 * pitch, rel=0.02)
    assert retimed(tone, 1.0, 1.0) is tone
    assert len(retimed(tone[:0], tempo, pitch)) == 0


def noise(frames: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (64, 96, 3)).astype(np.uint8) for _ in range(frames)]


@pytest.mark.parametrize("wanted", [9_000, 25_000, 60_000])
def test_file_size_is_hit_and_a_size_out_of_reach_is_approached(tmp_path: Path, wanted: int) -> None:
    write_clip(tmp_path / "a.mp4", noise(12), 8, np.zeros(SAMPLE_RATE, np.float32), 10.0)
    write_to_size(tmp_path / "a.mp4", tmp_path / "b.mp4", 8, wanted, 30.0)
    assert (tmp_path / "b.mp4").stat().st_size == pytest.approx(wanted, rel=0.03)
    write_to_size(tmp_path / "a.mp4", tmp_path / "c.mp4", 8, 100, 30.0)
    assert (tmp_path / "c.mp4").stat().st_size < 9_000


def test_a_clip_of_ours_has_sound_as_long_as_its_picture(tmp_path: Path) -> None:
    for sound in (np.zeros(0, np.float32), np.full(9 * SAMPLE_RATE, 0.5, np.float32)):
        write_clip(tmp_path / "a.mp4", noise(12), 8, sound, 30.0)
        assert len(read_sound(tmp_path / "a.mp4")) == pytest.approx(1.5 * SAMPLE_RATE, abs=1024)
        assert sum(1 for _ in read_frames(tmp_path / "a.mp4")) == 12


def test_frames_are_held_until_the_next_one_is_due() -> None:
    timed = [(0.0, "a"), (0.1, "b"), (0.5, "c"), (0.55, "d"), (0.75, "e")]
    assert "".join(_at_constant_rate(timed, Frames(64, 10, 60.0))) == "abbbbcddee"
    assert "".join(_at_constant_rate(timed, Frames(64, 10, 0.3))) == "abb"
    assert "".join(_at_constant_rate([(0.0, "a"), (0.2, "b")], Frames(64, 10, 0.3))) == "aab"
    assert "".join(_at_constant_rate([(k / 60, "x") for k in range(60)], Frames(64, 10, 60.0))) == "x" * 10
    assert "".join(_at_constant_rate([(0.0, "a")], Frames(64, 10, 60.0))) == "a"


def test_size_is_capped_even_and_never_enlarged() -> None:
    assert _size(1920, 1080, 360) == (640, 360)
    assert _size(1080, 1920, 360) == (360, 640)
    assert _size(321, 241, 360) == (320, 240)
    assert _size(5000, 10, 360) == (40, 16)
    assert _size(7, 7, 360) == (16, 16)


def wide_pixels(path: Path) -> None:
    """96 x 64, upper half red, pixels twice as wide as high."""
    half = np.zeros((64, 96, 3), np.uint8)
    half[:32] = (255, 0, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(half, "rgb24")))
        container.mux(stream.encode())


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path, limits) -> None:
    wide_pixels(tmp_path / "a.mp4")
    footage = prepare(tmp_path, tmp_path, Frames(64, 8, 9.0), limits, ("a", "a.mp4", "out.mp4"))
    assert (footage.reason, footage.frames, footage.has_sound) == ("ok", 8, False)
    assert (footage.width, footage.height) == (192, 64)
    assert next(read_frames(tmp_path / "out.mp4"))[10, 10] == pytest.approx([255, 0, 0], abs=20)


@pytest.fixture
def limits(repository: Path):
    from coefvq.config import load_params

    return load_params(repository / "params.yaml").ingest.limits


def test_limits_hold_and_a_stopped_worker_has_a_result(tmp_path: Path, limits) -> None:
    write_clip(tmp_path / "a.mp4", noise(12), 8, np.zeros(0, np.float32), 10.0)
    small = limits.model_copy(update={"megabytes": 0.01})
    item = ("a", "a.mp4", "out.mp4")
    assert prepare(tmp_path, tmp_path, Frames(64, 8, 9.0), small, item).reason == "too_large"
    assert not (tmp_path / "out.mp4").exists()
    for name, least, reason in (("frames", 5, "too_many_frames"), ("megapixels", 0.001, "too_many_pixels")):
        tight = limits.model_copy(update={name: least})
        assert prepare(tmp_path, tmp_path, Frames(64, 8, 9.0), tight, item).reason == reason
    assert failed(item, "timeout").reason == "timeout"
    assert prepare(tmp_path, tmp_path, Frames(64, 8, 1.0), limits, item).frames == 8


def test_a_stream_that_grows_after_its_header_is_stopped(limits) -> None:
    _check_frame(Path("a"), 5, 1000, limits)
    for number, pixels, reason in ((limits.frames, 1, "too_many_frames"), (0, 37_000_000, "too_many_pixels")):
        with pytest.raises(MediaError) as caught:
            _check_frame(Path("a"), number, pixels, limits)
        assert caught.value.reason == reason


def test_a_clip_whose_frames_do_not_decode_is_undecodable(tmp_path: Path, limits) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        frames = [av.VideoFrame.from_ndarray(image, "rgb24") for image in noise(8)]
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        payloads = [bytes(packet) for packet in packets]
        container.mux(packets)
    content = path.read_bytes()
    for payload in payloads:
        content = content.replace(payload, bytes(len(payload)))
    path.write_bytes(content)
    footage = prepare(tmp_path, tmp_path, Frames(64, 8, 9.0), limits, ("a", "a.avi", "out.mp4"))
    assert footage.reason == "undecodable"
    assert "a.avi: cannot be decoded" in footage.message
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        *((name, "missing") for name in ("a\0b.mp4", "n" * 5000, "loop")),
        ("s3://bucket/a.mp4", "outside_root"),
        (".", "unsupported"),
        ("", "unsupported"),
    ],
)
def test_names_that_lead_to_no_file(tmp_path: Path, limits, uri: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert prepare(tmp_path, tmp_path, Frames(64, 8, 9.0), limits, ("a", uri, "out.mp4")).reason == reason
    assert prepare(tmp_path, tmp_path, Frames(64, 8, 9.0), limits, ("a", "../x", "out.mp4")).reason == "outside_root"


def table(tmp_path: Path, text: str) -> pd.DataFrame:
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    return import_table(tmp_path / "table.csv").frame


def test_what_the_table_says_is_kept_and_linked_clips_stay_together(tmp_path: Path) -> None:
    frame = table(
        tmp_path,
        "file_name,title,creator_id,source_id,published_at,views,stickers\n"
        "a.mp4,my dinner,ann,s1,2024-05-01T10:00:00+00:00,12,SALE\n"
        "b.mp4,,,s1,,,\n"
        "c.mp4,,bob,,,,\n"
        "d.mp4,,bob,s2,,,\n"
        "e.mp4,,,s2,,,\n"
        "f.mp4,,,,,,\n",
    )
    every = originals(frame, seed=1)
    first = every[0]
    assert (first.title, first.stickers, first.views, first.creator_id) == ("my dinner", ("SALE",), 12, "ann")
    assert first.published_at.isoformat() == "2024-05-01T10:00:00+00:00"
    assert [original.creator_id for original in every[1:5]] == ["ann", "bob", "bob", "bob"]
    assert every[5].creator_id not in {"ann", "bob"}
    assert all(original.title for original in every)
    assert {original.views for original in every} == {12}
    assert every == originals(frame, seed=1)
    alone = originals(frame.iloc[[1]].reset_index(drop=True), seed=1)
    assert alone[0].title == every[1].title


def many_plans(copies: float = 1.0, own_edits: float = 0.3, clips: int = 400) -> list[list[ReuploadPlan]]:
    names = [f"v{number}" for number in range(clips)]
    blank = {name: [None] * clips for name in ("published_at", "creator_id", "source_id")}
    frame = pd.DataFrame(
        {"video_id": names, "uri": names, "title": "", "stickers": [[]] * clips, "views": pd.NA, **blank}
    )
    return plans(originals(frame, 1), 1, copies, own_edits)


def test_plans_have_the_shares_asked_for() -> None:
    groups = many_plans(copies=0.8, own_edits=0.25)
    # Poisson: three standard deviations of the sum
    assert abs(sum(len(group) - 1 for group in groups) - 320) < 3 * 320**0.5
    assert abs(sum(bool(group[0].edits) for group in groups) - 100) < 3 * 75**0.5
    assert sum(map(len, many_plans(copies=0.0))) == 400
    assert not any(group[0].edits for group in many_plans(own_edits=0.0))


def test_plans_of_both_classes_draw_length_bits_and_views_alike() -> None:
    flat = [plan for group in many_plans() for plan in group]
    for name in ("length_share", "start_share", "bits_share", "views"):
        own, copies = ([getattr(plan, name) for plan in flat if plan.label == label] for label in (0, 1))
        ranks = np.searchsorted(np.sort(own), copies) / len(own)
        assert abs(ranks.mean() - 0.5) < 3 * (1 / 12 / len(copies) + 1 / 12 / len(own)) ** 0.5


def test_edits_fit_together_and_marks_alone_do_not_decide() -> None:
    flat = [plan for group in many_plans() for plan in group]
    for plan in flat:
        kinds = [edit.kind for edit in plan.edits]
        assert len(set(kinds)) == len(kinds)
        assert all(len(group & set(kinds)) <= 1 for group in EXCLUSIVE)
        assert set(plan.stickers) >= {edit.params["text"] for edit in plan.edits if "text" in edit.params}
    own, copies = ([plan for plan in flat if plan.label == label and plan.edits] for label in (0, 1))
    assert {edit.kind for plan in own for edit in plan.edits} == set(PRESENTATION)
    assert {edit.kind for plan in copies for edit in plan.edits} == {*PRESENTATION, *EVASION}
    assert any(not {edit.kind for edit in plan.edits} & set(EVASION) for plan in copies)
    assert all(plan.inherited == group[0].edits for group in many_plans() for plan in group[1:])


def test_windows_lie_within_the_footage() -> None:
    for frames in (13, 50, 1500):
        for plan in (plan for group in many_plans(clips=100) for plan in group):
            start, step, count = window(plan, frames)
            assert start >= 0
            assert start + round((count - 1) * step) < frames + 1
            assert 0.55 * frames < count < 0.85 * frames


def test_sound_and_inset_come_from_another_creator_who_has_them() -> None:
    plan = many_plans(clips=1)[0][0]
    plan = replace(plan, edits=(Edit("pip", {"seed": 5}), Edit("other_sound", {"seed": 8})))
    creators = {"v0": "ann", "v1": "ann", "v2": "bob", "v3": "eve"}
    pip, sound = settled(plan, {"v0": True, "v1": True, "v2": False, "v3": True}, creators).edits
    assert (pip.params["donor"], sound.params["donor"]) == ("v3", "v3")
    pip, sound = settled(plan, {"v0": True, "v1": True}, creators).edits
    assert (pip.params["donor"], sound.kind) == ("v0", "music")


def test_titles_of_both_classes_use_every_way() -> None:
    rng = np.random.default_rng(0)
    assert all(neutral_title(rng).strip() for _ in range(50))
    for copyist in (True, False):
        titles = [retitled(rng, "a {strange} title of words", copyist) for _ in range(300)]
        for trace in ("credit", "filmed by me", "#fyp", "..."):
            assert any(trace in title for title in titles)
    assert retitled(np.random.default_rng(1), "x", copyist=True)


def test_speed_and_mirror_reach_the_file(tmp_path: Path) -> None:
    """A bar that wanders from left to right: mirrored it starts at the right, faster it gets further."""

    def frames():
        for number in range(40):
            image = np.full((64, 128, 3), 30, np.uint8)
            image[:, 3 * number : 3 * number + 6] = 230
            yield image

    write_clip(tmp_path / "f.mp4", frames(), 10, np.zeros(0, np.float32), 18.0)
    plan = replace(many_plans(clips=1)[0][0], start_share=0.0, length_share=0.6, inherited=())
    footage = Footage("v0", "v0", frames=40, width=128, height=64, video_bytes=20_000)
    seen = {}
    for name, edits in {"plain": (), "both": (Edit("speed", {"factor": 1.25}), Edit("mirror", {}))}.items():
        made = replace(plan, video_id=name, edits=edits)
        render(tmp_path / "out", tmp_path, 10, Job(made, footage, {"v0": tmp_path / "f.mp4"}))
        pictures = list(read_frames(tmp_path / "out" / made.file_name))
        assert len(pictures) == 24
        seen[name] = [float(np.mean(np.nonzero(image.mean(axis=(0, 2)) > 120))) for image in pictures]
    np.testing.assert_allclose(seen["plain"], [3 * k + 2.5 for k in range(24)], atol=1.5)
    np.testing.assert_allclose(seen["both"], [127 - (3 * round(1.25 * k) + 2.5) for k in range(24)], atol=1.5)
