"""Which packets are decoded for which frames, and what coded data say about them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coefvq.data.media.bitstream import describe
from coefvq.data.media.frames import plan
from coefvq.data.media.timeline import PacketInfo, uniform_in_time, uniform_indices


def packets(order: str) -> list[PacketInfo]:
    """From display numbers in decoding order; K marks keyframes, x frames that are not shown."""
    return [PacketInfo(int(word.rstrip("Kx")), "K" in word, "x" not in word) for word in order.split()]


def steps(order: str, frames: int) -> list[tuple[int, int, bool]]:
    chosen = plan(packets(order), frames)
    assert chosen is not None
    return [(step.start, step.target, step.jump) for step in chosen.steps]


def test_it_jumps_to_the_last_keyframe_ahead() -> None:
    assert steps("0K 1 2 3K 4 5 6K 7 8", 3) == [(0, 0, False), (3, 4, True), (6, 8, True)]


def test_it_decodes_on_within_a_group() -> None:
    assert steps("0K 1 2 3 4 5 6 7 8", 3) == [(0, 0, False), (1, 4, False), (5, 8, False)]


def test_frames_shown_before_a_keyframe_start_at_the_one_before() -> None:
    order = "0K 4 2 1 3 8K 6 5 7 12 10 9 11"
    assert steps(order, 13)[0] == (0, 0, False)
    chosen = plan(packets(order), 3)  # 0, 6, 12; 6 is stored behind the keyframe 8
    assert chosen is not None
    assert chosen.wanted == (0, 6, 12)
    assert [(s.start, s.target, s.jump) for s in chosen.steps] == [(0, 0, False), (1, 6, False), (7, 9, False)]


def test_a_jump_does_not_leave_behind_what_a_later_target_needs() -> None:
    # the keyframe 8 is ahead of the decoder, but 6 is stored behind it and leans on 4
    assert steps("0K 4 2 1 3 8K 6 5 7", 5)[-2:] == [(3, 5, False), (6, 6, False)]


def test_hidden_frames_are_not_counted_but_may_be_started_from() -> None:
    chosen = plan(packets("0Kx 1x 2x 3 4 5 6"), 2)
    assert chosen is not None
    assert chosen.wanted == (3, 6)
    assert chosen.steps[0].start == 0
    assert sum(step.target - step.start + 1 for step in chosen.steps) == 7  # packets that reach the decoder


@pytest.mark.parametrize(
    "listed",
    [
        [],
        packets("0K 1 1 2"),
        packets("0 1 2"),
        packets("0Kx 1x"),
        packets("5K 6 0K 1"),
        [PacketInfo(0, True), PacketInfo(None, False)],
    ],
    ids=["none", "equal", "no_keyframe", "nothing_shown", "keyframes_backwards", "unknown"],
)
def test_no_plan_where_the_times_do_not_tell(listed: list[PacketInfo]) -> None:
    assert plan(listed, 2) is None


@given(st.integers(1, 6), st.integers(0, 5), st.integers(1, 40), st.booleans(), st.randoms(use_true_random=False))
def test_every_target_has_its_group_decoded(
    groups: int, leading: int, frames: int, gaps: bool, pick: random.Random
) -> None:
    listed: list[PacketInfo] = []
    group: list[int] = []  # index of the keyframe each packet needs
    time = before = 0
    for number in range(groups):
        early = [time + i for i in range(leading)] if number else []
        key, time = len(listed), time + len(early)
        listed.append(PacketInfo(time, True))
        group.append(key)
        late = list(range(time + 1, time + 1 + pick.randint(0, 9)))
        time += len(late) + 1 + gaps * pick.randint(0, 3)
        pick.shuffle(late)
        listed += [PacketInfo(pts, False) for pts in early + late]
        group += [before] * len(early) + [key] * len(late)
        before = key
    chosen = plan(listed, frames)
    assert chosen is not None
    shown = sorted(packet.pts for packet in listed if packet.pts is not None)
    starts = np.array(shown) - shown[0]
    step = int(np.median(np.diff(starts))) if len(shown) > 1 else 0
    assert list(chosen.wanted) == [shown[i] for i in uniform_in_time(starts, int(starts[-1]) + step, frames)]
    seen_from, sent = 0, 0
    for step in chosen.steps:
        assert step.start >= sent
        assert step.jump == (step.start > sent)
        seen_from = step.start if step.jump else seen_from
        sent = step.target + 1
        assert seen_from <= group[step.target]
    assert {listed[step.target].pts for step in chosen.steps} == set(chosen.wanted)


def test_uniform_indices_include_both_ends() -> None:
    assert uniform_indices(10, 1) == [0]
    assert uniform_indices(10, 2) == [0, 9]
    assert uniform_indices(3, 5) == [0, 0, 1, 2, 2]


@dataclass(frozen=True)
class Coded:
    """As much of av.Packet as ``describe`` looks at."""

    data: bytes
    pts: int = 0
    dts: int = 0
    duration: int = 0
    is_keyframe: bool = True
    is_discard: bool = False
    is_corrupt: bool = False

    def __bytes__(self) -> bytes:
        return self.data


AVCC = bytes([1, 100, 0, 31, 0xFF])
IDR, SLICE = bytes([0x65, 0x88]), bytes([0x41, 0x9A])
USER_DATA = bytes([6, 5, 3, 1, 2, 3, 0x80])


def recovery(bits: int) -> bytes:
    return bytes([6, 6, 1, bits, 0x80])


def stored(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def started(*units: bytes) -> bytes:
    return b"".join(b"\0\0\1" + unit for unit in units)


@pytest.mark.parametrize(
    ("units", "entry"),
    [
        ([IDR], True),
        ([bytes([0x09, 0xF0]), USER_DATA, IDR], True),
        ([SLICE], False),
        ([recovery(0b11000000), SLICE], True),  # at once, exact
        ([recovery(0b10000000), SLICE], False),  # at once, not exact
        ([recovery(0b01010000), SLICE], False),  # one frame later
        ([bytes([6, 5, 2, 1, 2, 6, 1, 0b11000000, 0x80]), SLICE], True),  # second message of its unit
        ([USER_DATA, SLICE], False),
        ([], False),
    ],
)
def test_where_h264_may_be_entered(units: list[bytes], entry: bool) -> None:
    for data, extradata in ((stored(*units), AVCC), (started(*units), None)):
        described = describe("h264", extradata, [Coded(data)])
        assert described is not None
        assert described[0].keyframe == entry
        assert not (describe("h264", extradata, [Coded(data, is_keyframe=False)]) or [])[0].keyframe


def hevc(kind: int, layer: int = 0) -> bytes:
    return bytes([kind << 1, layer + 1, 0x80])


@pytest.mark.parametrize(
    ("kinds", "plain"),
    [
        ([(21, 0), (1, 0), (0, 0)], True),
        ([(19, 0), (1, 0), (2, 1)], True),  # only the top layer is dropped
        ([(19, 0), (0, 0), (3, 1)], False),  # the top layer may refer to what is dropped
        ([(16, 0), (1, 0)], False),  # broken link: its leading frames vanish
        ([(21, 0), (36, 0)], False),  # so do those after an end of sequence
    ],
)
def test_hevc_streams_that_may_be_skipped_through(kinds: list[tuple[int, int]], plain: bool) -> None:
    described = describe("hevc", None, [Coded(started(hevc(kind, layer))) for kind, layer in kinds])
    assert (described is not None) == plain
    if described is not None:
        assert [packet.keyframe for packet in described] == [True, False, False]


def test_vp9_frames_that_are_not_shown() -> None:
    shown, hidden, existing = bytes([0x86, 0]), bytes([0x84, 0]), bytes([0x88, 0])
    superframe = bytes([0x84, 0, 0xC1])
    assert describe("vp9", None, [Coded(shown), Coded(existing), Coded(superframe)]) is not None
    assert describe("vp9", None, [Coded(shown), Coded(hidden)]) is None


def test_packets_of_other_codecs_or_known_to_be_damaged_are_not_described() -> None:
    assert describe("vp8", None, [Coded(b"\0\0")]) is None
    assert describe("h264", AVCC, [Coded(stored(IDR), is_corrupt=True)]) is None


@given(st.binary(max_size=60), st.sampled_from(["h264", "hevc", "vp9", "av1"]), st.binary(max_size=30))
def test_no_bytes_make_it_stumble(data: bytes, codec: str, extradata: bytes) -> None:
    describe(codec, extradata, [Coded(data or b"\0")])
