"""Pictures as a person sees them: upright in all eight ways, HDR and wide gamut as SDR, tagged matrices and ranges."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from coefvq.data.media.colour import Colours, to_sdr
from coefvq.data.media.decode import DEFAULT_LIMITS, decode_frames, full_decode_frames, planned_frames, stream_info
from coefvq.data.media.pictures import Scaler, upright
from tests.integration.encoded_clips import HEIGHT, SIDE, WIDTH, write, x264, x265
from tests.unit.probed import probe_clip

ONE = 1 << 16
# how a point (x, y) of the picture is shown, and the same by numpy on frames [F, 3, S, S]
ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "upright": ((1, 0, 0, 1), lambda f: f),
    "quarter": ((0, 1, -1, 0), lambda f: np.rot90(f, -1, (2, 3))),
    "half": ((-1, 0, 0, -1), lambda f: np.rot90(f, 2, (2, 3))),
    "three_quarters": ((0, -1, 1, 0), lambda f: np.rot90(f, 1, (2, 3))),
    "mirrored": ((-1, 0, 0, 1), lambda f: f[..., ::-1]),
    "upside_down": ((1, 0, 0, -1), lambda f: f[..., ::-1, :]),
    "transposed": ((0, 1, 1, 0), lambda f: f.swapaxes(2, 3)),
    "transversed": ((0, -1, -1, 0), lambda f: np.rot90(f, 2, (2, 3)).swapaxes(2, 3)),
}


def with_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Write a display matrix into the track header of an MP4."""
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    x, y = -WIDTH * (a < 0) - HEIGHT * (c < 0), -HEIGHT * (d < 0) - WIDTH * (b < 0)
    numbers = [round(value * ONE) for value in (a, b)] + [0] + [round(value * ONE) for value in (c, d)]
    matrix = struct.pack(">9i", *numbers, 0, -x << 16, -y << 16, 1 << 30)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    return path


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_eight_orientations(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "v.mp4", x264(10, frames=12))
    plain = decode_frames(path, 3, SIDE)
    matrix, expected = ORIENTATIONS[name]
    with_matrix(path, *matrix)
    assert np.array_equal(planned_frames(path, 3, SIDE), expected(plain))
    assert np.array_equal(full_decode_frames(path, 3, SIDE), expected(plain))


@pytest.mark.parametrize(
    ("degrees", "name"), [(30, "upright"), (60, "quarter"), (-60, "three_quarters"), (170, "half")]
)
@pytest.mark.parametrize("mirror", [1, -1])
def test_other_angles_count_as_the_nearest_quarter_turn(degrees: int, name: str, mirror: int) -> None:
    angle = np.deg2rad(degrees)
    a, b, c, d = np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
    image = np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    # mirrored first, then turned
    matrix = tuple(round(value * ONE) for value in (mirror * a, mirror * b, 0, c, d, 0, 0, 0, 1))
    first = image[:, ::mirror].transpose(2, 0, 1)[np.newaxis]
    assert np.array_equal(upright(image, matrix).transpose(2, 0, 1), ORIENTATIONS[name][1](first)[0])


def test_a_matrix_of_zeros_changes_nothing() -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    assert np.array_equal(upright(image, (0,) * 9), image)


def light(image: np.ndarray) -> np.ndarray:
    """SDR to light relative to white."""
    return (image / 255) ** 2.4


def in_bt2020(linear: np.ndarray) -> np.ndarray:
    """BT.709 light in BT.2020 primaries (BT.2087)."""
    return linear @ np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]).T


def pq(linear: np.ndarray) -> np.ndarray:
    """Inverse EOTF of SMPTE ST 2084; white is 203 nits."""
    power = (linear * 203 / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(linear: np.ndarray) -> np.ndarray:
    """Inverse OOTF (1,000 nits, gamma 1.2 per channel), then the OETF of BT.2100; white is 203 nits."""
    scene = (linear * 203 / 1000) ** (1 / 1.2)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


SCENE = np.random.default_rng(3).integers(0, 225, (40, 40, 3)).astype(np.float64)


@pytest.mark.parametrize(("transfer", "encode", "name"), [(16, pq, "pq"), (18, hlg, "hlg")])
def test_hdr_becomes_the_sdr_of_the_same_scene(transfer: int, encode: Callable, name: str) -> None:  # type: ignore[type-arg]
    signal = np.rint(encode(in_bt2020(light(SCENE))) * 65_535).astype(np.uint16)
    colours = Colours(transfer, 9, 9)
    assert (colours.hdr, colours.needs_mapping) == (name, True)
    strayed = np.abs(to_sdr(signal, colours) - SCENE)
    assert strayed.mean() < 0.1
    assert strayed.max() <= 5  # near black, where eight bits are coarse
    # three times white is still no brighter than what a screen shows, and keeps its order
    grey = np.linspace(0, 4.9, 50)[:, None, None].repeat(3, 2)
    shown = to_sdr(np.rint(encode(grey) * 65_535).astype(np.uint16), colours)[:, 0, 0].astype(int)
    assert (np.diff(shown) >= 0).all()
    assert (shown[10], shown[-1]) == (pytest.approx(250, abs=2), 255)


def test_wide_gamut_without_hdr() -> None:
    signal = np.rint(in_bt2020(light(SCENE)) ** (1 / 2.4) * 65_535).astype(np.uint16)
    assert np.abs(to_sdr(signal, Colours(14, 9, 9)) - SCENE).mean() < 0.1


@pytest.mark.parametrize(("name", "number"), [("smpte2084", 16), ("arib-std-b67", 18)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_hdr_clips_are_recorded(tmp_path: Path, name: str, number: int, suffix: str) -> None:
    recipe = x265(10, "colorprim=bt2020", f"transfer={name}", "colormatrix=bt2020nc", frames=6)
    path = write(tmp_path / f"v.{suffix}", replace(recipe, suffix=suffix, pixels="yuv420p10le"))
    kind = {16: "pq", 18: "hlg"}[number]
    assert (stream_info(path).hdr, probe_clip(path.name, tmp_path, DEFAULT_LIMITS).hdr) == (kind, kind)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    deep = frame.reformat(SIDE, SIDE, "rgb48le", interpolation="BICUBIC").to_ndarray()
    expected = to_sdr(deep, Colours(number, 9, 9)).transpose(2, 0, 1)
    assert np.array_equal(decode_frames(path, 3, SIDE)[0], expected)


def test_hlg_that_only_a_frame_tells(tmp_path: Path) -> None:
    # broadcasts: BT.2020 for old receivers, and a message (SEI) that it is HLG
    recipe = x265(10, "colorprim=9", "transfer=14", "colormatrix=9", "atc-sei=18", frames=6)
    path = write(tmp_path / "v.mp4", replace(recipe, pixels="yuv420p10le"))
    assert stream_info(path).hdr == "hlg"


def test_hdr_that_only_the_container_tells(tmp_path: Path) -> None:
    source = write(tmp_path / "v.mkv", replace(x265(10, frames=6), suffix="mkv", pixels="yuv420p10le"))
    assert stream_info(source).hdr is None
    path = tmp_path / "w.mkv"
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace = 18, 9, 9
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    assert stream_info(path).hdr == "hlg"
    assert np.abs(decode_frames(path, 2, SIDE).astype(int) - decode_frames(source, 2, SIDE)).mean() > 10


def filled(form: str, values: tuple[int, int, int], matrix: int, colour_range: int) -> av.VideoFrame:
    """A frame of one colour, given as Y, Cb, Cr."""
    frame = av.VideoFrame(16, 16, form)
    kind = np.uint16 if "10" in form else np.uint8
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
    frame.colorspace, frame.color_range = matrix, colour_range
    return frame


@pytest.mark.parametrize(
    ("form", "values", "matrix", "colour_range", "rgb"),
    [
        ("yuv420p", (120, 90, 200), 2, 0, (235, 76, 44)),  # untagged: BT.601
        ("yuv420p", (120, 90, 200), 6, 1, (235, 76, 44)),
        ("yuv420p", (120, 90, 200), 1, 1, (250, 90, 40)),  # BT.709
        ("yuv420p", (120, 90, 200), 3, 1, (235, 76, 44)),  # a reserved number says nothing
        ("yuv420p", (120, 90, 200), 9, 1, (241, 81, 39)),  # BT.2020
        ("yuv420p", (120, 90, 200), 10, 1, (241, 81, 39)),  # BT.2020 with constant luminance, nearly
        ("yuv420p", (235, 128, 128), 1, 2, (235, 235, 235)),  # full range
        ("yuvj420p", (235, 128, 128), 2, 0, (235, 235, 235)),
        ("yuv420p10le", (940, 512, 512), 1, 2, (235, 235, 235)),
        ("yuv420p10le", (940, 512, 512), 1, 1, (254, 254, 254)),
    ],
)
def test_tags_of_matrix_and_range_count(
    form: str, values: tuple[int, int, int], matrix: int, colour_range: int, rgb: tuple[int, int, int]
) -> None:
    found = Scaler(Colours()).picture(filled(form, values, matrix, colour_range), 16, 16)
    assert np.abs(found[4, 4].astype(int) - rgb).max() <= 2
