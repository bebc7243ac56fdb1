"""Decoding against a plain full decode, and what bad files are called."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coefvq.config import MediaLimits, MediaSpec
from coefvq.data.clips import ClipStore
from coefvq.data.media import decode_audio, decode_clip, decode_frames, stream_info
from coefvq.data.probe import probe_all, probe_clip
from coefvq.errors import MediaError
from coefvq.records import VideoInput

LIMITS = MediaLimits(
    megabytes=100.0,
    seconds=60.0,
    megapixels=36.0,
    streams=16,
    frames=100_000,
    worker_mib=3072,
    cpu_seconds=60,
    wall_seconds=120.0,
)


def write_video(path: Path, frames: int, *, gop: int = 12, bframes: int = 2, odd_pts: bool = False) -> Path:
    """A clip in which every frame has its own grey level; no sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": str(gop), "bf": str(bframes), "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(frames):
            image = np.full((64, 96, 3), 20 + 200 * i // max(1, frames - 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i * 100 + (i % 3) * 7 * odd_pts
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def full_decode(path: Path, count: int, size: int) -> np.ndarray:
    """Reference: decode everything in order, then pick."""
    with av.open(str(path)) as container:
        frames = sorted(container.decode(video=0), key=lambda frame: frame.pts)
        picked = [frames[int(i)] for i in np.linspace(0, len(frames) - 1, count).round()]
        arrays = [f.reformat(size, size, "rgb24", interpolation="BICUBIC").to_ndarray() for f in picked]
    return np.stack(arrays).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("frames", "gop", "bframes", "odd"), [(30, 12, 2, False), (31, 5, 0, True), (3, 12, 2, False)])
def test_frames_are_those_of_a_full_decode(
    tmp_path: Path, suffix: str, frames: int, gop: int, bframes: int, odd: bool
) -> None:
    path = write_video(tmp_path / f"v.{suffix}", frames, gop=gop, bframes=bframes, odd_pts=odd)
    ours = decode_frames(path, 8, 32)
    assert ours.shape == (8, 3, 32, 32)
    assert np.array_equal(ours, full_decode(path, 8, 32))


def test_sound_is_mono_16_khz_and_cut(clips: Path) -> None:
    path = next((clips / "videos").glob("*.mp4"))
    wave = decode_audio(path, 1.5)
    assert wave.dtype == np.int16
    assert wave.shape == (24_000,)
    assert np.abs(wave).max() > 500
    assert abs(decode_audio(path, 30.0).size - 48_000) < 3_000


def test_a_clip_without_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "silent.mp4", 10)
    assert decode_clip(path, 4, 32, 2.0).waveform.size == 0
    info = stream_info(path)
    assert (info.width, info.height, info.has_audio) == (96, 64, False)
    assert info.duration_s == pytest.approx(1.0, abs=0.11)


def bad_files(folder: Path) -> dict[str, Path]:
    good = write_video(folder / "good.mp4", 20).read_bytes()
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(good[: len(good) // 3])
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return {
        "undecodable": folder / "text.mp4",
        "empty": folder / "empty.mp4",
        "no_video": folder / "sound.mp4",
        "missing": folder / "nothing.mp4",
    }


def test_bad_files_are_refused_with_their_reason(tmp_path: Path) -> None:
    for reason, path in bad_files(tmp_path).items():
        with pytest.raises(MediaError) as caught:
            decode_clip(path, 4, 32, 1.0)
        assert caught.value.reason == reason
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
    for name in ("cut.mp4", "playlist.mp4"):
        with pytest.raises(MediaError, match=name):
            decode_clip(tmp_path / name, 4, 32, 1.0)


def test_probe_never_raises(tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    uris = ["good.mp4", *(path.name for path in bad.values()), "../outside.mp4"]
    probes = probe_all(uris, tmp_path, limits=LIMITS, workers=2)
    assert [probe.reason for probe in probes] == ["ok", *bad, "outside_root"]
    assert [probe.decode_ok for probe in probes] == [True, *[False] * 5]


def test_probe_limits(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 20)
    assert probe_clip("v.mp4", tmp_path, LIMITS.model_copy(update={"megabytes": 1e-5})).reason == "too_large"
    assert probe_clip("v.mp4", tmp_path, LIMITS.model_copy(update={"seconds": 1.0})).reason == "too_long"


def test_clip_store_decodes_once_and_by_content(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 12)
    store = ClipStore(tmp_path / "cache", MediaSpec(frames=4, frame_size=32, audio_seconds=1.0))
    first = store.get(VideoInput("v", path))
    files = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 1
    path.rename(tmp_path / "renamed.mp4")
    again = store.get(VideoInput("w", tmp_path / "renamed.mp4"))
    assert np.array_equal(first.frames, again.frames)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == files
    other = ClipStore(tmp_path / "cache", MediaSpec(frames=2, frame_size=32, audio_seconds=1.0))
    assert other.get(VideoInput("w", tmp_path / "renamed.mp4")).frames.shape[0] == 2


def test_filling_a_store_side_by_side_names_the_bad_clip(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 12)
    (tmp_path / "bad.mp4").write_text("x")
    store = ClipStore(tmp_path / "cache", MediaSpec(frames=4, frame_size=32, audio_seconds=1.0))
    done: list[int] = []
    store.fill([VideoInput("v", tmp_path / "v.mp4")], 1, done.append)
    assert sum(done) == 1
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        store.fill([VideoInput("bad", tmp_path / "bad.mp4")], 2)
