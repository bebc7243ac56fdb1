"""The limits under which a clip is decoded, where no params.yaml is at hand: those that a model was released with."""

from __future__ import annotations

from coefvq.config import MediaLimits
from coefvq.data.media.decode import DEFAULT_LIMITS


def kept_limits(found: MediaLimits | None) -> MediaLimits:
    """``ingest.limits`` as a pair or a model carries them; what was made before they were kept gets the defaults."""
    return DEFAULT_LIMITS if found is None else found
