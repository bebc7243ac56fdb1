"""Which streams count: never cover art, the default track first, and the same for facts, frames and sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from av.stream import Disposition

from coefvq.data.media.decode import DEFAULT_LIMITS, decode_audio, decode_clip, decode_frames, stream_info
from coefvq.errors import MediaError
from coefvq.simulation.reupload.encode import read_sound, write_clip
from tests.fuzz.formats import boxes
from tests.unit.media_files import BLUE, RED, YELLOW, Track, loudness, tone, write_tracks
from tests.unit.probed import probe_clip

NONE = Disposition(0)
CLIP = Track("libx264")
POSTER = Track("mjpeg", YELLOW, times=[0])
SILENCE, TONE = Track("aac", hertz=0), Track("aac", hertz=440)
UNREAD = Track("wavpack", hertz=440)


def colour(path: Path) -> list[int]:
    """The one colour of all frames, rounded to 0 or 255."""
    frames = decode_frames(path, 4, 16)
    assert np.ptp(frames, axis=(0, 2, 3)).max() < 8
    return [int(value > 127) * 255 for value in frames[0, :, 8, 8]]


@pytest.mark.parametrize(
    ("suffix", "tracks"),
    [
        ("mp4", [Track("mjpeg", YELLOW, [0], disposition=Disposition.attached_pic), CLIP]),
        ("mp4", [Track("png", YELLOW, [0], disposition=Disposition.attached_pic), CLIP]),
        ("mp4", [CLIP, Track("mjpeg", YELLOW, [0], disposition=Disposition.attached_pic)]),
        ("mkv", [Track("mjpeg", YELLOW, [0], disposition=NONE), CLIP]),
        ("mkv", [POSTER, CLIP]),  # a poster with the default flag is still one frame
        ("mkv", [Track("mjpeg", YELLOW, [0], disposition=NONE), Track("libx264", disposition=NONE)]),
        ("mkv", [Track("libx264", BLUE, disposition=NONE), CLIP]),
        ("mkv", [CLIP, Track("libx264", BLUE)]),
        ("mkv", [Track("ffv1", BLUE), Track("libx264", disposition=NONE)]),  # a codec that is not accepted
    ],
)
def test_the_picture_is_the_one_a_player_shows(tmp_path: Path, suffix: str, tracks: list[Track]) -> None:
    path = write_tracks(tmp_path / f"v.{suffix}", *tracks)
    if tracks[0].disposition == Disposition.attached_pic:
        _cover_first(path)
    assert colour(path) == list(RED)
    info = stream_info(path)
    assert (info.duration_s, info.fps) == (pytest.approx(2.0, abs=0.01), pytest.approx(10.0, abs=0.01))


def _cover_first(path: Path) -> None:
    """Move a tagger's box before the tracks of an MP4, so that the attached picture is the first stream."""
    import av

    data = path.read_bytes()
    at = {kind: (offset, size) for kind, offset, size in reversed([*boxes(data)])}
    (track, _), (tags, size) = at[b"trak"], at[b"udta"]
    path.write_bytes(data[:track] + data[tags : tags + size] + data[track:tags] + data[tags + size :])
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic


def test_a_track_that_does_not_decode_is_passed_over(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "v.mkv", Track("libx264", BLUE), CLIP)
    assert colour(path) == list(BLUE)
    _spoil(path, 0)
    assert colour(path) == list(RED)


def _spoil(path: Path, index: int) -> None:
    """Overwrite those packets of a stream that no other stream holds with noise."""
    import av

    data, noise = bytearray(path.read_bytes()), np.random.default_rng(1)
    with av.open(str(path)) as container:
        packets = [(packet.stream_index, bytes(packet)) for packet in container.demux() if packet.size]
    others = {packet for stream, packet in packets if stream != index}
    for packet in {packet for stream, packet in packets if stream == index} - others:
        at = data.find(packet)
        while at >= 0:
            data[at : at + len(packet)] = noise.bytes(len(packet))
            at = data.find(packet)
    path.write_bytes(data)


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_cover_art_alone_is_no_video(tmp_path: Path, codec: str) -> None:
    cover = Track(codec, YELLOW, [0], disposition=Disposition.attached_pic)
    path = write_tracks(tmp_path / "v.mp4", cover, TONE)
    with pytest.raises(MediaError, match="cover art") as caught:
        decode_clip(path, 4, 16, 1.0)
    assert caught.value.reason == "no_video"
    assert probe_clip(path.name, tmp_path, DEFAULT_LIMITS).reason == "no_video"


def test_no_track_with_an_accepted_codec(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "v.mkv", Track("ffv1"), TONE)
    with pytest.raises(MediaError, match="codec ffv1 is not accepted") as caught:
        decode_frames(path, 4, 16)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(
    "sounds",
    [
        [TONE],
        [Track("aac", disposition=NONE), TONE],
        [UNREAD, Track("aac", hertz=440, disposition=NONE)],
        [Track("aac", disposition=Disposition.visual_impaired), Track("aac", hertz=440, disposition=NONE)],
        [TONE, SILENCE],
    ],
)
def test_the_sound_is_the_one_a_player_plays(tmp_path: Path, sounds: list[Track]) -> None:
    path = write_tracks(tmp_path / "v.mkv", CLIP, *sounds)
    wave = decode_audio(path, 1.0)
    assert wave.size == 16_000
    assert loudness(wave) > 3_000
    assert tone(wave) == pytest.approx(440, abs=2)
    probe = probe_clip(path.name, tmp_path, DEFAULT_LIMITS)
    assert (probe.reason, probe.has_audio, probe.audio_ok) == ("ok", True, True)


def test_sound_that_cannot_be_read_is_no_sound(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "v.mkv", CLIP, UNREAD)
    clip = decode_clip(path, 4, 16, 1.0)
    assert (clip.frames.shape, clip.waveform.shape) == ((4, 3, 16, 16), (0,))
    probe = probe_clip(path.name, tmp_path, DEFAULT_LIMITS)
    assert (probe.reason, probe.has_audio, probe.audio_ok) == ("ok", True, False)
    silent = write_tracks(tmp_path / "silent.mkv", CLIP)
    probe = probe_clip(silent.name, tmp_path, DEFAULT_LIMITS)
    assert (probe.reason, probe.has_audio, probe.audio_ok) == ("ok", False, None)


@pytest.mark.parametrize("broken", [1, 2])
def test_sound_of_which_one_track_is_broken(tmp_path: Path, broken: int) -> None:
    path = write_tracks(tmp_path / "v.mkv", CLIP, Track("aac", hertz=440), Track("aac", hertz=440.0001))
    _spoil(path, broken)
    assert tone(decode_audio(path, 1.0)) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Track("aac", hertz=440), Track("aac", hertz=440, layout="stereo")),
        (Track("aac", hertz=440, layout="stereo"), Track("aac", hertz=440)),
        (Track("aac", hertz=440, rate=48_000), Track("aac", hertz=440, rate=44_100, layout="stereo")),
        (Track("mp2", hertz=440, rate=32_000), Track("mp2", hertz=440, rate=48_000)),
    ],
)
def test_sound_that_changes_midway(tmp_path: Path, first: Track, second: Track) -> None:
    path = write_tracks(tmp_path / "v.ts", CLIP, first)
    path.write_bytes(path.read_bytes() + write_tracks(tmp_path / "w.ts", CLIP, second).read_bytes())
    wave = decode_audio(path, 30.0)
    assert wave.size == pytest.approx(4 * 16_000, abs=4_000)
    for part in (wave[4_000:28_000], wave[-28_000:-4_000]):
        assert tone(part) == pytest.approx(440, abs=2)
        assert loudness(part) > 3_000
    probe = probe_clip(path.name, tmp_path, DEFAULT_LIMITS)
    assert (probe.reason, probe.audio_ok) == ("ok", True)


def test_a_name_is_never_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_tracks(tmp_path / "v.mp4", CLIP, TONE)
    names = ["12:30 fight.mp4", "http:x.mp4", "file:y.mp4", "concat:a|b.mp4", "data:,x.mp4", "50%20off?.mp4", "-i.mp4"]
    for name in names:
        Path(name).write_bytes(source.read_bytes())
        clip = decode_clip(Path(name), 2, 16, 1.0)
        assert (clip.frames.shape[0], clip.waveform.size) == (2, 16_000)
    with pytest.raises(MediaError, match="no such file"):
        decode_frames(Path("http://127.0.0.1:9/x.mp4"), 2, 16)
    Path("text:1.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"^text:1\.mp4: cannot be decoded \(\[Errno \d+\] [^/]*\); "):
        decode_frames(Path("text:1.mp4"), 2, 16)


def test_clips_of_our_own_may_be_named_like_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("12:30.mp4")
    write_clip(path, [np.zeros((48, 64, 3), np.uint8)] * 8, 8, np.zeros(16_000, np.float32), 30.0)
    assert (stream_info(path).fps, read_sound(path).size >= 16_000) == (8.0, True)
