"""Perceptual hashes: what counts as near, mirrored copies, blanks, large buckets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from coefvq.data.near_duplicates import mirrored, near_duplicate_codes, video_hash

Bits = npt.NDArray[np.uint8]


def bits(seed: int, frames: int = 4) -> Bits:
    return np.random.default_rng(seed).integers(0, 2, (frames, 256)).astype(np.uint8)


def text(rows: Bits) -> str:
    return np.packbits(rows, axis=1).tobytes().hex()


def flipped(rows: Bits, count: int, seed: int = 0) -> Bits:
    random = np.random.default_rng(seed)
    changed = rows.copy()
    for row in changed:
        row[random.choice(256, count, replace=False)] ^= 1
    return changed


def picture(seed: int) -> npt.NDArray[np.uint8]:
    """A [4,3,128,128] clip of smooth blotches."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 3, 8, 8)).astype(np.float32)
    return np.kron(coarse, np.ones((1, 1, 16, 16), np.float32)).astype(np.uint8)


@pytest.mark.parametrize("count", [0, 5, 15, 24, 31])
def test_few_changed_bits_are_near(count: int) -> None:
    found = [near_duplicate_codes([text(bits(s)), text(flipped(bits(s), count, s))], 31) for s in range(40)]
    missed = sum(codes.tolist() != [0, 0] for codes in found)
    assert missed <= (6 if count > 24 else 0)  # the bands may miss 3 % at the limit itself


def test_many_changed_bits_are_not_near() -> None:
    assert near_duplicate_codes([text(bits(1)), text(flipped(bits(1), 32))], 31).tolist() == [-1, -1]
    assert near_duplicate_codes([text(bits(1)), text(flipped(bits(1), 31))], 30).tolist() == [-1, -1]


def test_strangers_are_not_near_and_unknown_is_nobodys_neighbour() -> None:
    hashes = [text(bits(seed)) for seed in range(300)] + ["", None, ""]
    assert (near_duplicate_codes(hashes, 31) == -1).all()
    assert near_duplicate_codes([], 31).tolist() == []


def test_near_is_transitive_and_numbers_are_dense() -> None:
    first = bits(1)
    second = flipped(first, 25, 1)
    third = flipped(second, 25, 2)
    codes = near_duplicate_codes([text(bits(9)), text(first), text(bits(8)), text(second), text(third)], 31)
    assert codes.tolist() == [-1, 0, -1, 0, 0]


def test_a_bucket_of_thousands_is_one_group() -> None:
    same = text(bits(3))
    codes = near_duplicate_codes([same] * 5000 + [text(bits(4))], 31)
    assert set(codes[:5000]) == {0}
    assert codes[5000] == -1


def test_frames_that_say_nothing_are_left_out() -> None:
    rows = bits(5)
    blank = "-" * 64
    whole, half = text(rows), text(rows[:2]) + blank + blank
    assert near_duplicate_codes([whole, half], 31).tolist() == [0, 0]
    assert near_duplicate_codes([whole, text(rows[:1]) + 3 * blank], 31).tolist() == [-1, -1]


def test_the_hash_survives_scaling_noise_and_a_mirror() -> None:
    clip = picture(1)
    noisy = np.clip(clip.astype(int) + np.random.default_rng(0).integers(-6, 7, clip.shape), 0, 255).astype(np.uint8)
    hashes = [video_hash(c) for c in (clip, noisy, np.ascontiguousarray(clip[..., ::-1]), picture(2))]
    assert {len(text) for text in hashes} == {256}
    codes = near_duplicate_codes(hashes, 31)
    assert codes[0] == codes[1] == codes[2] == 0
    assert codes[3] == -1


def test_mirroring_twice_is_nothing() -> None:
    packed = np.packbits(bits(1), axis=1)
    assert np.array_equal(mirrored(mirrored(packed)), packed)
    assert (np.bitwise_count(packed ^ mirrored(packed)).sum(axis=1) == 128).all()


def test_a_flat_clip_has_no_hash() -> None:
    assert video_hash(np.full((4, 3, 128, 128), 90, np.uint8)) == ""
