"""Picture and sound: every factor can be seen or heard, frames and samples have the promised shape."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from coefvq.simulation.synthetic.encode import write_mp4
from coefvq.simulation.synthetic.factors import Action, Claim, Edit, Factors, Object, Sound, Sticker, Topic
from coefvq.simulation.synthetic.overlays import sticker_patch, wrap
from coefvq.simulation.synthetic.render import FPS, FRAMES, SIZE, render
from coefvq.simulation.synthetic.sound import soundtrack
from coefvq.simulation.synthetic.tones import SAMPLE_RATE

BASE = Factors(Object.BALL, Action.CALM, Topic.VAGUE, Sticker.NONE, Edit.PLAIN, Claim.NONE, Sound.MUSIC)
SECONDS = 3


def _movie(seed: int = 0, stickers: tuple[str, ...] = (), **levels: object) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    frames = list(render(rng, replace(BASE, **levels), stickers))
    return np.stack(frames).astype(np.int16)


def _track(sound: Sound, seed: int) -> NDArray[np.float32]:
    return soundtrack(np.random.default_rng(seed), sound, SECONDS * SAMPLE_RATE)


def test_frames_have_the_promised_shape() -> None:
    frames = list(render(np.random.default_rng(0), BASE, ()))
    assert len(frames) == FRAMES == SECONDS * FPS
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((SIZE, SIZE, 3), "uint8")}


@pytest.mark.parametrize("name", ["object", "action", "edit"])
def test_each_visible_level_changes_the_picture(name: str) -> None:
    kind = {"object": Object, "action": Action, "edit": Edit}[name]
    movies = [_movie(**{name: level}) for level in kind]
    for number, one in enumerate(movies):
        for other in movies[number + 1 :]:
            changed = np.abs(one - other).max(axis=-1) > 30
            assert changed.mean() > 0.005  # more than a hundred pixels per frame


@pytest.mark.parametrize("name", ["topic", "claim", "sound"])
def test_factors_of_text_and_sound_leave_no_trace_in_the_picture(name: str) -> None:
    kind = {"topic": Topic, "claim": Claim, "sound": Sound}[name]
    assert all(np.array_equal(_movie(), _movie(**{name: level})) for level in kind)


def test_actions_differ_in_motion() -> None:
    def motion(action: Action) -> float:
        return float(np.mean([np.abs(np.diff(_movie(seed, action=action), axis=0)).mean() for seed in range(8)]))

    assert 3 * motion(Action.CALM) < motion(Action.SWING) < motion(Action.CLASH)


def test_letterbox_bars_are_black_and_stay() -> None:
    movie = _movie(edit=Edit.LETTERBOX)
    assert movie[:, :20].max() == movie[:, -20:].max() == 0
    assert movie[:, 20:140].max() > 0


def test_border_frames_the_mirrored_picture() -> None:
    plain, framed = _movie(), _movie(edit=Edit.BORDER)
    assert np.ptp(framed[:, :9], axis=(0, 1, 2)).max() == 0
    assert np.array_equal(framed[:, 9:-9, 9:-9], plain[:, 9:-9, ::-1][:, :, 9:-9])


def test_inset_sits_in_a_lower_corner_and_talks() -> None:
    changed = (_movie() != _movie(edit=Edit.PIP)).any(axis=(0, 3))
    rows, columns = np.nonzero(changed)
    assert rows.min() >= SIZE // 2
    assert columns.max() < SIZE // 2 or columns.min() >= SIZE // 2
    inset = _movie(edit=Edit.PIP)[:, rows.min() : rows.max(), columns.min() : columns.max()]
    assert np.abs(np.diff(inset, axis=0)).max() > 30


def test_logo_jumps_half_way() -> None:
    changed = (_movie() != _movie(edit=Edit.LOGO)).any(axis=3)
    first, second = changed[: FRAMES // 2].any(axis=0), changed[FRAMES // 2 :].any(axis=0)
    assert first.any()
    assert second.any()
    assert not (first & second).any()


@pytest.mark.parametrize("edit", Edit)
def test_sticker_is_drawn_unmirrored_and_whole(edit: Edit) -> None:
    for seed in range(6):
        text = "no instructor is watching"
        movie = _movie(seed, stickers=(text,), edit=edit)
        ink = np.asarray(sticker_patch(text, SIZE)).astype(np.int16)
        height, width, _ = ink.shape
        left = (SIZE - width) // 2
        strips = [movie[5, top : top + height, left : left + width] for top in range(SIZE - height)]
        # exposure dims the letters, so compare up to a factor
        found = [np.corrcoef(strip.ravel(), ink.ravel())[0, 1] > 0.999 for strip in strips if strip.std()]
        assert sum(found) == 1, (edit, seed)


def test_stickers_leave_the_inset_free() -> None:
    for seed in range(6):
        bare, labelled = (_movie(seed, text, edit=Edit.PIP) for text in ((), ("not professionals, no permit",)))
        assert np.array_equal(bare[:, SIZE // 2 :], labelled[:, SIZE // 2 :])
        assert not np.array_equal(bare, labelled)


def test_wrap_keeps_words_and_respects_the_width() -> None:
    assert wrap("a bb ccc dddd", lambda line: len(line) <= 6) == ["a bb", "ccc", "dddd"]
    assert wrap("unbreakable", lambda line: len(line) <= 6) == ["unbreakable"]
    assert wrap("", lambda line: True) == [""]


@pytest.mark.parametrize("sound", Sound)
def test_tracks_are_float32_audible_and_not_clipped(sound: Sound) -> None:
    for seed in range(5):
        track = _track(sound, seed)
        assert (track.shape, track.dtype.name) == ((SECONDS * SAMPLE_RATE,), "float32")
        quiet = sound is Sound.MUTED
        assert (0.009 if quiet else 0.27) < np.abs(track).max() <= (0.011 if quiet else 0.7)
        assert np.array_equal(track, _track(sound, seed))
        assert not np.array_equal(track, _track(sound, seed + 1))


def test_kinds_of_sound_differ_in_their_spectra() -> None:
    def share(sound: Sound, low: float, high: float) -> float:
        power = np.mean([np.abs(np.fft.rfft(_track(sound, seed))) ** 2 for seed in range(6)], axis=0)
        frequency = np.fft.rfftfreq(SECONDS * SAMPLE_RATE, 1 / SAMPLE_RATE)
        return float(power[(frequency >= low) & (frequency < high)].sum() / power.sum())

    assert share(Sound.AMBIENT, 0, 200) > 0.5  # rumble
    assert share(Sound.RERECORDED, 0, 300) < 0.05 < share(Sound.MUSIC, 0, 300)  # no bass from a small speaker
    assert share(Sound.RERECORDED, 6_000, 8_000) > 5 * share(Sound.MUSIC, 6_000, 8_000)  # hiss
    assert share(Sound.VOICE, 300, 2_300) > 0.5  # formants
    assert share(Sound.SCREAM, 600, 6_000) > 0.8 > share(Sound.BANG, 600, 6_000) > share(Sound.AMBIENT, 600, 6_000)


def test_bangs_are_sudden_and_screams_last() -> None:
    def crest(sound: Sound) -> float:
        tracks = [_track(sound, seed) for seed in range(8)]
        return float(np.mean([np.abs(track).max() / np.sqrt((track**2).mean()) for track in tracks]))

    assert crest(Sound.BANG) > 2 * crest(Sound.SCREAM)


def test_a_mosaic_lets_nothing_shine_through() -> None:
    """Every visible object level differs from the mosaic, and the mosaic covers where the object would be."""
    hidden = _movie(object=Object.HIDDEN)
    covered = (hidden != _movie(object=Object.FLOWER)).any(axis=3)
    bare = (_movie(object=Object.BALL) != _movie(object=Object.PHONE)).any(axis=3)
    assert covered[0].mean() > 0.02
    assert (covered & bare).sum() > 0.5 * bare.sum()


@pytest.mark.parametrize("samples", [1, 500, 3_000])
@pytest.mark.parametrize("sound", Sound)
def test_short_tracks_work(sound: Sound, samples: int) -> None:
    track = soundtrack(np.random.default_rng(1), sound, samples)
    assert track.shape == (samples,)
    assert np.isfinite(track).all()


def test_mp4_gives_back_picture_and_sound(tmp_path: Path) -> None:
    frames = list(render(np.random.default_rng(4), BASE, ()))
    track = _track(Sound.MUSIC, 4)
    write_mp4(tmp_path / "clip.mp4", frames, FPS, track, SAMPLE_RATE)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        audio = list(container.decode(audio=0))
        heard = np.concatenate([frame.to_ndarray()[0] for frame in audio])
        metadata = {**container.metadata, **container.streams.video[0].metadata}
    assert np.abs(np.stack(decoded).astype(int) - np.stack(frames)).mean() < 8
    assert [frame.time for frame in audio] == pytest.approx([n * 1024 / SAMPLE_RATE for n in range(len(audio))])
    lag = np.correlate(heard[8_000:24_000], track[8_000:20_000], "valid")
    assert lag.argmax() == 0  # in step: no encoder delay is left
    assert np.corrcoef(heard[: len(track)], track)[0, 1] > 0.95
    assert not {"creation_time", "encoder"} & set(metadata)
