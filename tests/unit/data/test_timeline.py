"""When frames are shown: constant rates as before, others evenly in time, clocks that restart or jump."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coefvq.data.media.decode import DEFAULT_LIMITS, decode_frames, full_decode_frames, planned_frames, stream_info
from coefvq.data.media.timeline import PacketInfo, timeline, uniform_in_time, uniform_indices
from coefvq.errors import MediaError
from tests.unit.media_files import BLUE, RED, Track, write_tracks
from tests.unit.probed import probe_clip

LONGEST = 10_000
RATES = [Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(25), Fraction(60), Fraction(8), Fraction(12, 5)]
BASES = [Fraction(1, 90_000), Fraction(1, 1000), Fraction(1, 16_000), Fraction(1001, 30_000)]


@given(
    st.integers(1, 500), st.integers(1, 64), st.sampled_from(RATES), st.sampled_from(BASES), st.floats(0, 0.4),
    st.integers(0, 99),
)  # fmt: skip
def test_a_constant_rate_gives_uniform_indices(
    count: int, frames: int, rate: Fraction, base: Fraction, jitter: float, seed: int
) -> None:
    step = float(1 / rate / base)
    if step < 1:  # the time base cannot tell such frames apart
        return
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, count) * step
    pts = np.maximum.accumulate(np.rint(1000 + np.arange(count) * step + noise).astype(np.int64))
    packets = [PacketInfo(int(time), False, dts=number, duration=round(step)) for number, time in enumerate(pts)]
    shown = timeline(packets, round(LONGEST / base))
    assert shown.parts == 1
    assert uniform_in_time(shown.starts, shown.end, frames) == uniform_indices(count, frames)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(2, 32))
def test_every_frame_is_on_the_screen_at_its_time(lengths: list[int], frames: int) -> None:
    starts = np.cumsum([0, *lengths[:-1]])
    end = sum(lengths)
    picked = uniform_in_time(starts, end, frames)
    assert picked == sorted(picked)
    assert (picked[0], picked[-1]) == (0, len(lengths) - 1)
    if picked != uniform_indices(len(lengths), frames):
        share = np.bincount(picked, minlength=len(lengths)) / frames
        # shown for so long, chosen so often. Of F even times, both ends included, a share p of the clip holds at
        # least p(F - 1) - 1 and at most p(F - 1) + 1
        assert np.abs(share - np.array(lengths) / end).max() <= 2 / frames + float(np.median(lengths)) / end


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([33] * 30 + [5000] * 3, [0, 30, 30, 31, 31, 32, 32, 32]),
        ([1000, 15_000], [0, 1, 1, 1, 1, 1, 1, 1]),  # the last frame stays
        ([100] * 10 + [9000], [0, 10, 10, 10, 10, 10, 10, 10]),
        ([100] * 4, [0, 0, 1, 1, 2, 2, 3, 3]),
    ],
)
def test_frames_that_stay_long_are_seen_often(lengths: list[int], expected: list[int]) -> None:
    starts = np.cumsum([0, *lengths[:-1]])
    assert uniform_in_time(starts, sum(lengths), 8) == expected


def packets(*pts: int | None, duration: int = 100) -> list[PacketInfo]:
    """Packets without B-frames."""
    return [PacketInfo(time, False, dts=time, duration=duration) for time in pts]


@pytest.mark.parametrize(
    ("given_times", "starts", "end", "parts"),
    [
        ((500, 600, 700), [0, 100, 200], 300, 1),
        ((500, 600, 500, 600), [0, 100, 200, 300], 400, 2),  # starts again
        ((500, 600, 550, 650), [0, 100, 200, 300], 400, 2),  # times between those of before
        ((500, 600, 50_000, 50_100), [0, 100, 200, 300], 400, 2),  # jumps
        ((-200, -100, 0), [0, 100, 200], 300, 1),
        ((2**33 - 100, 0, 100), [0, 100, 200], 300, 2),  # the counter of MPEG-TS is full
        ((7,), [0], 100, 1),
        ((0, 4000, 8000), [0, 4000, 8000], 12_000, 1),  # a slide show
        ((None, None, None), [0, 100, 200], 300, 0),  # only durations are known
    ],
)
def test_clocks(given_times: tuple[int | None, ...], starts: list[int], end: int, parts: int) -> None:
    shown = timeline(packets(*given_times), LONGEST)
    assert (list(shown.starts), shown.end, shown.parts) == (starts, end, parts)
    assert shown.order == tuple(range(len(given_times)))


def test_a_frame_that_lasts_as_long_as_its_packet_says_is_no_jump() -> None:
    listed = [PacketInfo(0, True, dts=0, duration=50_000), PacketInfo(50_000, False, dts=50_000, duration=100)]
    assert (timeline(listed, LONGEST).parts, timeline(listed, LONGEST).end) == (1, 50_100)


def test_nothing_is_shown() -> None:
    shown = timeline([PacketInfo(0, True, shown=False)], LONGEST)
    assert (shown.order, shown.end) == ((), 0)


def reds(path: Path, frames: int = 8) -> list[bool]:
    """Which of the frames are red; both ways of decoding agree."""
    found = decode_frames(path, frames, 16)
    assert np.array_equal(found, full_decode_frames(path, frames, 16))
    return [bool(frame[0, 8, 8] > 127) for frame in found]


def two_colours(path: Path, red: list[int], blue: list[int]) -> Path:
    """One recording, first red, then blue; times in ms."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"threads": "1", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, colour in [(time, RED) for time in red] + [(time, BLUE) for time in blue]:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_screen_recording_is_seen_as_it_is_watched(tmp_path: Path, suffix: str) -> None:
    path = two_colours(tmp_path / f"v.{suffix}", [i * 33 for i in range(30)], [1000, 6000, 11_000, 16_000])
    assert reds(path) == [True] + [False] * 7
    assert planned_frames(path, 8, 16) is not None  # the cheap way still serves
    info = stream_info(path)
    assert info.duration_s == pytest.approx(16.0, abs=0.1) or suffix == "mp4"
    assert info.fps < 3


@pytest.mark.parametrize("start", [0, 1000, 5_000_000])
def test_recordings_joined_keep_their_order(tmp_path: Path, start: int) -> None:
    times = range(0, 2000, 100)
    later = [start + time for time in times]
    path = write_tracks(tmp_path / "v.ts", Track("libx264", RED, times))
    path.write_bytes(path.read_bytes() + write_tracks(tmp_path / "w.ts", Track("libx264", BLUE, later)).read_bytes())
    assert reds(path) == [True] * 4 + [False] * 4
    probe = probe_clip(path.name, tmp_path, DEFAULT_LIMITS)
    # a pause of less than ten seconds may be one in which nothing was recorded
    assert (probe.reason, probe.duration_s) == ("ok", pytest.approx(4.0, abs=0.15))
    with pytest.raises(MediaError, match="seconds"):
        stream_info(path, DEFAULT_LIMITS.model_copy(update={"seconds": 3.0}))


def test_the_counter_of_a_transport_stream_wraps(tmp_path: Path) -> None:
    before = 2**33 // 90 - 1000  # ms, one second before the counter is full
    path = write_tracks(tmp_path / "v.ts", Track("libx264", RED, [before + time for time in range(0, 2000, 100)]))
    assert reds(path) == [True] * 8
    assert stream_info(path).duration_s == pytest.approx(2.0, abs=0.1)


def without_duration(path: Path) -> Path:
    """A WebM as a browser's recorder writes it: the header's duration becomes a void element."""
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88")
    path.write_bytes(data[:at] + b"\xec\x89" + bytes(9) + data[at + 11 :])
    return path


def test_a_recorder_that_states_no_duration(tmp_path: Path) -> None:
    path = without_duration(write_tracks(tmp_path / "v.webm", Track("libvpx", RED, range(0, 3000, 100))))
    assert (stream_info(path).duration_s, stream_info(path).fps) == (pytest.approx(3.0, abs=0.01), 10.0)
    probe = probe_clip(path.name, tmp_path, DEFAULT_LIMITS)
    assert (probe.reason, probe.duration_s) == ("ok", pytest.approx(3.0, abs=0.01))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "flv"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_download_that_broke_off(tmp_path: Path, suffix: str, share: float) -> None:
    import av

    noise = np.random.default_rng(1)
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = tmp_path / f"v.{suffix}"
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10, options={"threads": "1", "bf": "0", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(60):
            picture = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert probe_clip(path.name, tmp_path, DEFAULT_LIMITS).reason == "ok"
    size = round(path.stat().st_size * share)
    path.write_bytes(path.read_bytes()[: size + (size % 188 == 0)])
    assert probe_clip(path.name, tmp_path, DEFAULT_LIMITS).reason == "truncated"
    with pytest.raises(MediaError, match="breaks off") as caught:
        decode_frames(path, 4, 16)
    assert caught.value.reason == "truncated"


def test_a_clip_that_an_edit_list_trims_is_whole(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "v.mp4", Track("libx264", RED, range(0, 4000, 100)))
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # duration in ms, start in the track's time base
    start = struct.unpack(">i", data[at + 4 : at + 8])[0]
    data[at : at + 8] = struct.pack(">Ii", 1500, start)
    path.write_bytes(data)
    probe = probe_clip(path.name, tmp_path, DEFAULT_LIMITS)
    assert (probe.reason, probe.duration_s) == ("ok", pytest.approx(1.5, abs=0.01))
