"""Clips: their streams, frames and sound, the probe, and the store of decoded clips."""

from coefvq.data.media.decode import decode_audio, decode_frames, stream_info

__all__ = ["decode_audio", "decode_frames", "stream_info"]
