"""From a decoded frame to the picture a person sees: scaled, upright, in ordinary (SDR, BT.709) colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coefvq.data.media.colour import Colours, to_sdr

if TYPE_CHECKING:
    from av.video.reformatter import VideoReformatter

Picture = npt.NDArray[np.uint8]

# numbers of H.273 that FFmpeg's scaler refuses, and what comes closest: 3 is reserved (2: unspecified),
# 10 is BT.2020 with constant luminance (9: without)
_MATRIX_INSTEAD = {3: 2, 10: 9}
_UNSPECIFIED, _BT2020 = 2, 9


@dataclass(frozen=True)
class Scaler:
    """Makes pictures of the frames of one clip; bicubic. ``container``: what holds for frames without tags."""

    container: Colours

    def picture(self, frame: Any, width: int, height: int) -> Picture:
        """An ``av.VideoFrame`` as RGB uint8 [height, width, 3] and then upright, which may swap the sides."""
        colours = self.container.of(frame)
        matrix = _MATRIX_INSTEAD.get(colours.matrix, colours.matrix)
        frame.colorspace = _BT2020 if colours.needs_mapping and matrix == _UNSPECIFIED else matrix
        form = "rgb48le" if colours.needs_mapping else "rgb24"
        image: Any = self._reformatter.reformat(
            frame, width, height, form, interpolation="BICUBIC", threads=1
        ).to_ndarray()
        if colours.needs_mapping:
            image = to_sdr(image, colours)
        return upright(image, _display_matrix(frame))

    @cached_property
    def _reformatter(self) -> VideoReformatter:
        from av.video.reformatter import VideoReformatter

        # one for all frames of a clip: it keeps the scaler's tables
        return VideoReformatter()


def upright(image: Picture, matrix: tuple[int, ...] | None) -> Picture:
    """An image [H, W, 3] turned and mirrored as a display matrix says (ISO/IEC 14496-12, 6.2.2).

    ``matrix`` holds a, b, u, c, d, v, x, y, w. The eight ways to lay a picture on a screen are exact; any other
    angle counts as the nearest quarter turn. The result is a view.
    """
    if matrix is None:
        return image
    a, b, c, d = (matrix[i] for i in (0, 1, 3, 4))
    # a point (x, y) is shown at (ax + cy, bx + dy)
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.transpose(1, 0, 2), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    from av.sidedata.sidedata import Type

    found = frame.side_data.get(Type.DISPLAYMATRIX)
    return None if found is None else tuple(int(value) for value in np.frombuffer(bytes(found), np.int32))
