"""Decoding against a plain full decode, and what bad files are called."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coefvq.config import MediaLimits, MediaSpec, load_params
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import (
    DEFAULT_LIMITS,
    decode_audio,
    decode_clip,
    decode_frames,
    full_decode_frames,
    stream_info,
)
from coefvq.data.media.probe import probe_all
from coefvq.errors import MediaError
from coefvq.records import VideoInput
from tests.integration.encoded_clips import HEIGHT, WIDTH, Recipe, write
from tests.unit.probed import probe_clip

LIMITS = DEFAULT_LIMITS.model_copy(update={"seconds": 60.0})


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


def limited(**changes: float) -> MediaLimits:
    return LIMITS.model_copy(update=changes)


def refused(path: Path, limits: MediaLimits) -> str:
    """Why decoding is refused; by frames and by sound alike."""
    reasons = []
    for decode in (lambda: decode_frames(path, 4, 32, limits), lambda: decode_audio(path, 9.0, limits)):
        with pytest.raises(MediaError, match=path.name) as caught:
            decode()
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1]
    return reasons[0]


def write_sound(path: Path, *, tracks: int = 1, codec: str = "aac", layout: str = "mono") -> Path:
    """Ten frames over a second, and tracks of two seconds of silence at 8 kHz, a packet each 128 ms."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10, options={"threads": "1"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sounds = [container.add_stream(codec, rate=8_000, layout=layout) for _ in range(tracks)]
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        for stream in sounds:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout=layout)
            frame.sample_rate = 8_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_default_limits_are_those_of_the_parameter_file() -> None:
    assert load_params().ingest.limits == DEFAULT_LIMITS


def test_limits_that_the_header_tells(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "v.mp4", tracks=2)
    decode_clip(path, 4, 32, 1.0, LIMITS)
    assert refused(path, limited(megabytes=path.stat().st_size / 2**20 - 1e-6)) == "too_large"
    assert refused(path, limited(streams=2)) == "too_many_streams"
    assert refused(path, limited(megapixels=96 * 64 / 1e6 - 1e-6)) == "too_many_pixels"
    assert refused(path, limited(seconds=0.5)) == "too_long"
    with pytest.raises(MediaError, match="seconds"):
        stream_info(path, limited(seconds=0.5))
    decode_clip(path, 4, 32, 1.0, limited(streams=3, megapixels=96 * 64 / 1e6, seconds=2.2))


def test_packets_are_counted(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "v.mp4")
    assert decode_audio(path, 9.0).size > 30_000
    with pytest.raises(MediaError, match="packets of audio") as caught:
        decode_audio(path, 9.0, limited(frames=10))
    assert caught.value.reason == "too_many_frames"
    assert decode_audio(path, 0.5, limited(frames=10)).size == 8_000  # it stops once it has enough
    with pytest.raises(MediaError, match="packets of video") as caught:
        decode_frames(path, 4, 32, limited(frames=9))
    assert caught.value.reason == "too_many_frames"


def test_a_header_that_lies_about_the_duration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 40)
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes
    path.write_bytes(data[:at] + struct.pack(">d", 500.0) + data[at + 8 :])
    assert stream_info(path).duration_s == pytest.approx(4.0, abs=0.01)  # the packets know better
    with pytest.raises(MediaError) as caught:
        decode_frames(path, 4, 32, limited(seconds=3.0))
    assert caught.value.reason == "too_long"


def test_frames_that_grow_beyond_the_limit(tmp_path: Path) -> None:
    small, large = Recipe(suffix="ts", frames=10), Recipe(suffix="ts", frames=10, size=(192, 128))
    path = write(tmp_path / "v.ts", small)
    path.write_bytes(path.read_bytes() + write(tmp_path / "w.ts", large).read_bytes())
    assert decode_frames(path, 20, 32, limited(megapixels=4.1 * WIDTH * HEIGHT / 1e6)).shape[0] == 20
    with pytest.raises(MediaError, match="192 x 128 pixels"):  # not wanted, yet decoded
        full_decode_frames(path, 1, 32, limited(megapixels=3.9 * WIDTH * HEIGHT / 1e6))
    # far above the limit the decoder gives up by itself, and knows no better word
    for factor, reason in ((3.9, "too_many_pixels"), (1.9, "undecodable")):
        with pytest.raises(MediaError) as caught:
            decode_frames(path, 3, 32, limited(megapixels=factor * WIDTH * HEIGHT / 1e6))
        assert caught.value.reason == reason


def test_codecs_are_those_on_the_list(tmp_path: Path) -> None:
    strange = Recipe("ffv1", "mkv", 5)
    assert refused(write(tmp_path / "v.mkv", strange), LIMITS) == "unsupported"
    # sound that is not accepted costs the sound, not the clip
    for path in (
        write_sound(tmp_path / "w.mkv", codec="wavpack"),
        _patched_rate(write_sound(tmp_path / "r.mkv", codec="pcm_s16le")),
    ):
        assert stream_info(path).has_audio
        assert decode_clip(path, 4, 32, 1.0).waveform.size == 0


def _patched_rate(path: Path) -> Path:
    data = path.read_bytes()
    at = data.index(struct.pack(">d", 8_000.0))  # SamplingFrequency
    path.write_bytes(data[:at] + struct.pack(">d", 1.0) + data[at + 8 :])
    return path


def test_probe_never_raises(tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    uris = ["good.mp4", *(path.name for path in bad.values()), "../outside.mp4"]
    probes = list(probe_all(uris, tmp_path, limits=LIMITS, workers=2))
    assert [probe.reason for probe in probes] == ["ok", *bad, "outside_root"]
    assert [probe.decode_ok for probe in probes] == [True, *[False] * 5]


def test_probe_limits(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 20)
    assert probe_clip("v.mp4", tmp_path, LIMITS.model_copy(update={"megabytes": 1e-5})).reason == "too_large"
    assert probe_clip("v.mp4", tmp_path, LIMITS.model_copy(update={"seconds": 1.0})).reason == "too_long"


def test_clip_store_decodes_once_and_by_content(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 12)
    store = ClipStore(tmp_path / "cache", MediaSpec(frames=4, frame_size=32, audio_seconds=1.0), LIMITS)
    first = store.get(VideoInput("v", path))
    files = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 1
    path.rename(tmp_path / "renamed.mp4")
    again = store.get(VideoInput("w", tmp_path / "renamed.mp4"))
    assert np.array_equal(first.frames, again.frames)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == files
    other = ClipStore(tmp_path / "cache", MediaSpec(frames=2, frame_size=32, audio_seconds=1.0), LIMITS)
    assert other.get(VideoInput("w", tmp_path / "renamed.mp4")).frames.shape[0] == 2


def test_filling_a_store_side_by_side_names_the_bad_clip(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 12)
    (tmp_path / "bad.mp4").write_text("x")
    store = ClipStore(tmp_path / "cache", MediaSpec(frames=4, frame_size=32, audio_seconds=1.0), LIMITS)
    done: list[int] = []
    store.fill([VideoInput("v", tmp_path / "v.mp4")], 1, done.append)
    assert sum(done) == 1
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        store.fill([VideoInput("bad", tmp_path / "bad.mp4")], 2)
