"""One small picture of a clip, for pages that people look at."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from coefvq.compute.engines import limited_map
from coefvq.config import MediaLimits
from coefvq.data.media.decode import decode_frames, stream_info
from coefvq.errors import MediaError

MAX_BYTES = 12_000
_SIDE = 224
_QUALITIES = (80, 70, 60, 45, 30)
_JPEG: TypeAdapter[bytes | None] = TypeAdapter(bytes | None, config=ConfigDict(val_json_bytes="base64"))


def thumbnails(clips: Mapping[str, Path], limits: MediaLimits, workers: int = 1) -> dict[str, bytes]:
    """JPEG of the middle frame per key, at most ``MAX_BYTES`` each; a clip that does not decode has none.

    Clips are decoded in limited processes: they come from strangers.
    """
    names = list(clips)
    pictures: Iterable[bytes | None] = limited_map(
        partial(_thumbnail, limits=limits),
        [clips[name] for name in names],
        answer=_JPEG,
        failed=_none,
        limits=limits,
        workers=workers,
    )
    found = zip(names, pictures, strict=True)
    # what a worker sends is of its making: no more is put into a page than was asked for
    return {name: picture for name, picture in found if picture is not None and len(picture) <= MAX_BYTES}


def _thumbnail(path: Path, limits: MediaLimits) -> bytes | None:
    """Runs in a limited worker: JPEG of the middle frame in the clip's own aspect; None where it does not decode."""
    from PIL import Image

    try:
        info = stream_info(path, limits)
        middle = decode_frames(path, 3, _SIDE, limits)[1]
    except (MediaError, OSError):
        return None
    image = Image.fromarray(middle.transpose(1, 2, 0))
    # decoding squeezes into a square; a clip stored turned has its sides swapped, which only the frame knows
    scale = _SIDE / max(info.width, info.height, 1)
    image = image.resize((max(round(info.width * scale), 1), max(round(info.height * scale), 1)))
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    return None


def _none(_path: Path, _reason: str) -> None:
    return None
