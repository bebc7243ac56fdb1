"""decode_frames gives the very frames of a full decode, whatever encoder, container and timing.

Each clip is compared with a plain decoder for several numbers of frames. ``planned``: the cheap path must
have been taken, so that equality says something about it; clips it cannot handle must be noticed.
"""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coefvq.data.media.bitstream import describe
from coefvq.data.media.container import opened, video_packets
from coefvq.data.media.decode import DEFAULT_LIMITS, decode_frames, planned_frames
from coefvq.data.media.frames import plan
from tests.integration.encoded_clips import HEIGHT, SIDE, Recipe, naive, write, x264, x265

COUNTS = (1, 2, 5, 9, 16)


def assert_exact(path: Path, *, planned: bool, counts: tuple[int, ...] = COUNTS) -> None:
    for count in counts:
        expected = naive(path, count)
        found = planned_frames(path, count, SIDE)
        assert (found is not None) == planned, f"{count} frames: planned {found is not None}"
        assert np.array_equal(decode_frames(path, count, SIDE) if found is None else found, expected), count


PLANNED = {
    "closed_gop": x264(10, "open-gop=0"),
    "open_gop": x264(10, "open-gop=1", "ref=3"),
    "open_gop_ts": x264(10, "open-gop=1", suffix="ts"),
    "pyramid": x264(20, "b-pyramid=normal", "ref=4", bframes=5),
    "no_bframes": x264(12, bframes=0),
    "every_frame_a_keyframe": x264(1, bframes=0),
    "one_gop": x264(250),
    "intra_refresh": x264(15, "intra-refresh=1"),
    "interlaced": x264(10, "interlaced=1"),
    "slices": x264(10, "slices=3"),
    "variable_frame_rate": x264(10, times=lambda number: 100 * number + number * number % 83),
    "starts_late": x264(10, times=lambda number: 5_000 + 100 * number),
    "mkv": x264(10, suffix="mkv"),
    "ts": x264(10, suffix="ts"),
    "flv": x264(10, suffix="flv"),
    "mov": x264(10, suffix="mov"),
    "hevc": x265(10, "bframes=3", "open-gop=0"),
    "hevc_open_gop": x265(10, "bframes=3", "open-gop=1", "b-pyramid=1"),
    "hevc_leading_frames": x265(10, "bframes=3", "open-gop=0", "radl=2", suffix="mkv"),
    "hevc_no_bframes_ts": x265(10, "bframes=0", suffix="ts"),
    "vp9": Recipe("libvpx-vp9", "webm", 40, {"g": "10", "deadline": "realtime", "cpu-used": "8"}),
    "vp9_hidden_frames": Recipe("libvpx-vp9", "mkv", 40, {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "12"}),
    "av1": Recipe("libsvtav1", "mp4", 40, {"preset": "12", "g": "10", "crf": "40"}),
    "one_frame": x264(10, frames=1),
    "fewer_than_asked_for": x264(10, frames=3),
}


@pytest.mark.parametrize("name", PLANNED)
def test_planned(tmp_path: Path, name: str) -> None:
    recipe = PLANNED[name]
    assert_exact(write(tmp_path / f"v.{recipe.suffix}", recipe), planned=True)


OPEN = ("open-gop=1", "b-adapt=0")


@pytest.mark.parametrize("recipe", [x264(12, *OPEN, bframes=5), x265(12, *OPEN, "bframes=5", "rc-lookahead=20")])
def test_keyframes_whose_leading_frames_are_wanted_too(tmp_path: Path, recipe: Recipe) -> None:
    # whoever jumps to such a keyframe has lost what its leading frames are predicted from
    assert_exact(write(tmp_path / "v.mp4", recipe), planned=True, counts=tuple(range(12, 32)))


FALLBACK = {
    "avi_has_no_presentation_times": x264(10, suffix="avi"),
    "mpeg4": Recipe("mpeg4", "mp4", 40, {"g": "10", "bf": "2"}),
    "mpeg2": Recipe("mpeg2video", "ts", 40, {"g": "10", "bf": "2"}, clock=Fraction(1, 25)),
    "vp8_hidden_frames": Recipe("libvpx", "webm", 40, {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "12"}),
    "mjpeg": Recipe("mjpeg", "avi", 20, pixels="yuvj420p", clock=Fraction(1, 10)),
    "hevc_temporal_layers": x265(20, "bframes=4", "b-pyramid=1", "temporal-layers=3"),
}


@pytest.mark.parametrize("name", FALLBACK)
def test_full_decode_where_a_plan_could_be_wrong(tmp_path: Path, name: str) -> None:
    recipe = FALLBACK[name]
    assert_exact(write(tmp_path / f"v.{recipe.suffix}", recipe), planned=False)


@pytest.mark.parametrize("name", ["libx264", "libx265"])
def test_edit_list_that_hides_the_start(tmp_path: Path, name: str) -> None:
    make = x264 if name == "libx264" else x265
    recipe = make(10, times=lambda number: 100 * number - 750, container={"avoid_negative_ts": "disabled"})
    path = write(tmp_path / "v.mp4", recipe)
    with av.open(str(path)) as container:
        hidden = sum(packet.is_discard for packet in container.demux(video=0))
    assert hidden > 0
    assert_exact(path, planned=True)


def test_a_quarter_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", x264(10))
    plain = decode_frames(path, 4, SIDE)
    data = path.read_bytes()
    matrix = data.index(b"tkhd") + 4 + 40
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data[:matrix] + turned + data[matrix + 36 :])
    assert np.array_equal(decode_frames(path, 4, SIDE), np.rot90(plain, -1, axes=(2, 3)))
    assert_exact(path, planned=True)


def jumps(path: Path, count: int) -> int:
    with opened(path, DEFAULT_LIMITS) as clip:
        stream, packets = clip.video, list(video_packets(clip))
        described = describe(stream.codec_context.codec.canonical_name, stream.codec_context.extradata, packets)
        chosen = plan(described or [], count)
    return sum(step.jump for step in chosen.steps) if chosen else -1


def test_intra_refresh_is_never_jumped_into(tmp_path: Path) -> None:
    assert jumps(write(tmp_path / "keys.mp4", x264(10, bframes=0)), 4) == 3
    refreshed = write(tmp_path / "refresh.mp4", x264(10, "intra-refresh=1", bframes=0))
    with av.open(str(refreshed)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) > 3
    assert jumps(refreshed, 4) == 0


def test_intra_refresh_cut_out_of_the_middle(tmp_path: Path) -> None:
    recipe = x264(10, "intra-refresh=1", bframes=0, suffix="mkv")
    assert_exact(write(tmp_path / "v.mkv", recipe, lambda packets: packets[25:]), planned=False)


def test_frames_before_the_first_keyframe(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mkv", x264(10, suffix="mkv"), lambda packets: packets[4:])
    assert_exact(path, planned=False, counts=(2, 5, 9, 16))


def test_frames_after_a_flag_that_lies(tmp_path: Path) -> None:
    # plain I frames, behind which others still refer to what came before
    def flag(packets: list[av.Packet]) -> list[av.Packet]:
        for packet in packets[::6]:
            packet.is_keyframe = True
        return packets

    assert_exact(write(tmp_path / "v.mp4", x264(250, "ref=4", bframes=0), flag), planned=True)
    assert_exact(write(tmp_path / "w.mp4", x265(250, "ref=4", "bframes=0"), flag), planned=True)


@pytest.mark.parametrize("slices", ["slices=1", "slices=3"])
def test_damage_is_noticed_in_frames_nobody_asked_for(tmp_path: Path, slices: str) -> None:
    # what a decoder paints over damage depends on the memory it happens to reuse: only a full decode will do
    def damage(packets: list[av.Packet]) -> list[av.Packet]:
        old = packets[33]
        new = av.Packet(bytes(old)[: old.size // 2])
        new.pts, new.dts, new.time_base, new.stream = old.pts, old.dts, old.time_base, old.stream
        return [*packets[:33], new, *packets[34:]]

    path = write(tmp_path / "v.mkv", x264(10, slices, bframes=0, suffix="mkv"), damage)
    assert planned_frames(path, 4, SIDE) is None  # the third of them is number 39
    assert planned_frames(path, 3, SIDE) is not None  # none of them is predicted from number 33


def test_two_packets_of_one_time(tmp_path: Path) -> None:
    path = write(tmp_path / "v.ts", x264(10, bframes=0, suffix="ts"))
    path.write_bytes(path.read_bytes() * 2)
    assert_exact(path, planned=False, counts=(2, 9))


def test_resolution_that_changes(tmp_path: Path) -> None:
    later = x264(10, suffix="ts", frames=30, size=(160, 96), times=lambda number: 3_000 + 100 * number)

    def append(packets: list[av.Packet]) -> list[av.Packet]:
        with av.open(str(write(tmp_path / "later.ts", later))) as container:
            more = [packet for packet in container.demux(video=0) if packet.size]
        for packet in more:
            packet.stream = packets[0].stream
        return packets + more

    assert_exact(write(tmp_path / "v.ts", x264(10, suffix="ts", frames=30), append), planned=False, counts=(2, 5, 9))


@pytest.mark.parametrize("seed", range(12))
def test_random_h264(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    params = [f"open-gop={pick.randint(0, 1)}", f"ref={pick.randint(1, 5)}", f"weightp={pick.choice([0, 2])}"]
    params += [f"b-pyramid={pick.choice(['none', 'strict', 'normal'])}", f"scenecut={pick.choice([0, 40])}"]
    jitter = [pick.randrange(60) for _ in range(90)]
    recipe = x264(
        pick.choice([2, 5, 10, 17, 40]),
        *params,
        bframes=pick.randint(0, 5),
        frames=pick.choice([10, 45, 90]),
        times=lambda number: 100 * number + jitter[number],
    )
    path = write(tmp_path / f"v.{pick.choice(['mp4', 'mkv', 'ts'])}", recipe)
    assert_exact(path, planned=True, counts=(3, pick.randint(4, 40)))
