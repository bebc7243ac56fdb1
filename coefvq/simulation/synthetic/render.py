"""The picture of a clip: backdrop, people with an object in motion, editing marks, sticker.

Everything random is drawn once into a ``Look``; each frame is then a pure function of look and time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from coefvq.simulation.synthetic.factors import Action, Factors
from coefvq.simulation.synthetic.figures import (
    DRAW_OBJECT,
    Color,
    Person,
    Placement,
    Point,
    draw_impact,
    draw_person,
)
from coefvq.simulation.synthetic.overlays import (
    APPLY_EDIT,
    EditLook,
    draw_edit_look,
    sticker_patch,
    sticker_position,
)

SIZE = 160  # pixels, width and height
FPS = 8
FRAMES = 24

_SKIN = np.array([225.0, 180.0, 150.0])


@dataclass(frozen=True)
class Look:
    """What a clip looks like whatever its factors; positions in pixels, rates in Hz, phase in radians."""

    backdrop: Image.Image
    people: tuple[Person, Person]
    onlooker: bool
    x: float
    y: float
    tint: Color
    scale: float
    rate: float
    phase: float
    camera_sway: float
    shake: NDArray[np.float64]  # [FRAMES, 2], unit variance
    brightness: float
    edit: EditLook


@dataclass(frozen=True)
class Pose:
    """Where people and object are in one frame."""

    left_x: float
    right_x: float
    hand: Point
    other_hand: Point
    angle: float
    stride: float
    impact: bool


def draw_look(rng: np.random.Generator) -> Look:
    """Draw everything about a clip's picture that its factors do not decide."""
    return Look(
        backdrop=_backdrop(rng),
        people=(_person(rng), _person(rng)),
        onlooker=bool(rng.random() < 0.5),
        x=rng.uniform(44, 66),
        y=rng.uniform(106, 120),
        tint=_color(rng, 0, 256),
        scale=rng.uniform(0.85, 1.2),
        rate=rng.uniform(0.9, 1.6),
        phase=rng.uniform(0, math.tau),
        camera_sway=rng.uniform(0, 2.5),
        shake=rng.normal(size=(FRAMES, 2)),
        brightness=rng.uniform(0.75, 1.15),
        edit=draw_edit_look(rng, _skin(rng)),
    )


def render(rng: np.random.Generator, factors: Factors, stickers: tuple[str, ...]) -> Iterator[NDArray[np.uint8]]:
    """The clip's ``FRAMES`` frames, RGB ``uint8 [SIZE, SIZE, 3]``."""
    look = draw_look(rng)
    patches = [sticker_patch(text, SIZE) for text in stickers]
    exposure = np.clip(np.arange(256) * look.brightness, 0, 255).astype(np.uint8)
    for number in range(FRAMES):
        frame = APPLY_EDIT[factors.edit](_scene(factors, look, number), look.edit, number / FRAMES)
        for patch in patches:
            frame.paste(patch, sticker_position(patch, SIZE, factors.edit, look.edit))
        yield exposure[np.asarray(frame)]


def _scene(factors: Factors, look: Look, number: int) -> Image.Image:
    time = number / FPS
    pose = POSE[factors.action](look, time, number)
    image = look.backdrop.copy()
    draw = ImageDraw.Draw(image)
    if factors.action is Action.CLASH or look.onlooker:
        draw_person(draw, look.people[1], (pose.right_x, look.y), pose.other_hand, pose.stride)
    draw_person(draw, look.people[0], (pose.left_x, look.y), pose.hand, pose.stride)
    DRAW_OBJECT[factors.object](draw, Placement(*pose.hand, pose.angle, look.scale, time), look.tint)
    if pose.impact:
        draw_impact(draw, pose.other_hand, float(number))
    return image


def calm(look: Look, time: float, number: int) -> Pose:
    """The object is held up and sways a little."""
    x = look.x + look.camera_sway * math.sin(1.3 * time + look.phase)
    hand = (x + 22 + 2 * math.sin(2 * time + look.phase), look.y - 28 + 2 * math.cos(1.7 * time))
    angle = 0.2 + 0.12 * math.sin(2 * time + look.phase)
    return Pose(x, x + 58, hand, (x + 46, look.y - 8), angle, 0, False)


def swing(look: Look, time: float, number: int) -> Pose:
    """The object is swung up and down in a wide arc."""
    x = look.x + look.camera_sway * math.sin(1.3 * time + look.phase)
    beat = math.sin(math.tau * look.rate * time + look.phase)
    hand = (x + 24 + 8 * math.cos(1.6 * beat), look.y - 32 - 24 * beat)
    return Pose(x, x + 62, hand, (x + 50, look.y - 8), 0.3 - 1.3 * beat, 2, False)


def clash(look: Look, time: float, number: int) -> Pose:
    """Two people rush at each other and their arms meet."""
    rush = abs(math.sin(math.tau * look.rate * 0.7 * time + look.phase))
    jolt_left, jolt_right = 1.5 * look.shake[number]
    left, right = look.x - 6 + 16 * rush + jolt_left, look.x + 56 - 18 * rush + jolt_right
    beat = math.sin(math.tau * 1.5 * look.rate * time)
    hand = ((left + right) / 2 + 4 * beat, look.y - 38 - 10 * beat)
    return Pose(left, right, hand, (hand[0] + 6, hand[1] + 6), 0.5 + 0.9 * beat, 5 * rush, beat > 0.6)


POSE: Mapping[Action, Callable[[Look, float, int], Pose]] = {
    Action.CALM: calm,
    Action.SWING: swing,
    Action.CLASH: clash,
}


def _backdrop(rng: np.random.Generator) -> Image.Image:
    """A wall or sky that fades into another colour, a ground, a few shapes, and film grain."""
    top, bottom = rng.integers(60, 235, 3), rng.integers(40, 200, 3)
    fade = np.linspace(0, 1, SIZE)[:, None, None]
    gradient = np.broadcast_to(top * (1 - fade) + bottom * fade, (SIZE, SIZE, 3)).astype(np.uint8)
    image = Image.fromarray(gradient)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(rng.integers(95, 130)), SIZE, SIZE), fill=_color(rng, 50, 190))
    for _ in range(int(rng.integers(2, 6))):
        left, top_edge = int(rng.integers(0, SIZE)), int(rng.integers(0, 110))
        width, height = (int(value) for value in rng.integers(10, 45, 2))
        shape = draw.rectangle if rng.random() < 0.6 else draw.ellipse
        shape((left, top_edge, left + width, top_edge + height), fill=_color(rng, 40, 240))
    grain = rng.integers(-5, 6, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(np.asarray(image).astype(np.int16) + grain, 0, 255).astype(np.uint8))


def _person(rng: np.random.Generator) -> Person:
    return Person(rng.uniform(0.9, 1.2), _skin(rng), _color(rng, 20, 240), _color(rng, 10, 120))


def _skin(rng: np.random.Generator) -> Color:
    red, green, blue = (_SKIN * rng.uniform(0.45, 1.05)).astype(int).tolist()
    return red, green, blue


def _color(rng: np.random.Generator, low: int, high: int) -> Color:
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue
