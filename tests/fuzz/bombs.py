"""Files made by hand to be small and costly, or to lead elsewhere. Each is (name, suffix, bytes)."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import formats
from tests.fuzz.formats import block, box, boxes, element, matroska, number, patched, track, video_settings
from tests.fuzz.seeds import encode, repeated, seed, sound_only

Made = Iterator[tuple[str, str, bytes]]
_HUGE = 0x7FFFFFFF


def claims() -> Made:
    """MP4 headers that announce what no machine could hold."""
    clip = seed("mp4")
    places: dict[bytes, int] = {}
    for kind, offset, _ in boxes(clip):
        places.setdefault(kind, offset)
    tkhd, stsd, mdhd, mvhd = places[b"tkhd"], places[b"stsd"], places[b"mdhd"], places[b"mvhd"]
    size = struct.pack(">HH", 65535, 65535)
    yield "tkhd_size", ".mp4", patched(clip, tkhd + 84, struct.pack(">II", 65535 << 16, 65535 << 16))
    yield "stsd_size", ".mp4", patched(clip, stsd + 16 + 32, size)
    huge = formats.sps(65520, 65520)
    where = clip.index(b"avcC") + 4 + 8
    yield "sps_size", ".mp4", patched(clip, where, huge)
    for scale, duration in ((0, 12), (1, _HUGE), (_HUGE, 1), (1, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)):
        value = struct.pack(">II", scale, duration)
        yield f"mdhd_{scale}_{duration}", ".mp4", patched(clip, mdhd + 20, value)
        yield f"mvhd_{scale}_{duration}", ".mp4", patched(clip, mvhd + 20, value)
    for kind, at in ((b"stts", 12), (b"stsz", 16), (b"stsc", 12), (b"stco", 12), (b"ctts", 12), (b"stsd", 12)):
        for count in (_HUGE, 0xFFFFFFFF):
            if kind in places:
                yield f"{kind.decode()}_{count}", ".mp4", patched(clip, places[kind] + at, struct.pack(">I", count))
    sizes = places[b"stsz"]
    yield "stsz_constant", ".mp4", patched(clip, sizes + 12, struct.pack(">II", 1 << 28, _HUGE))
    times = places[b"stts"]
    yield "stts_endless", ".mp4", patched(clip, times + 12, struct.pack(">III", 1, 0xFFFFFFFF, 0))
    alac = seed("mov")
    yield "alac_frame_length", ".mov", patched(alac, alac.rindex(b"alac") + 8, struct.pack(">I", _HUGE))
    yield "cmov_claim", ".mov", formats.compressed_moov(clip, 0xFFFFFFF0, 1 << 20)
    yield "cmov_inflates", ".mov", formats.compressed_moov(clip, 1 << 30, 200 << 20)


def nesting() -> Made:
    for kind in (b"moov", b"trak", b"udta", b"meta", b"free"):
        yield f"nested_{kind.decode()}", ".mp4", formats.nested_boxes(100_000, kind)
    deep = b""
    for _ in range(3000):
        deep = element(0x5654, deep)  # chapters in chapters
    yield "nested_ebml", ".mkv", matroska(track(1, 1, b"V_VP9", video_settings(64, 48)), b"", deep)
    yield "many_free", ".mp4", box(b"ftyp", b"isom\0\0\0\0isom") + box(b"free") * 500_000


def expansions() -> Made:
    """Little to read, much to decode."""
    yield "flac_hours", ".mkv", repeated("matroska", "libx264", "flac", 90_000)
    yield "opus_hours", ".mkv", repeated("matroska", "libx264", "libopus", 90_000)
    yield "flac_day", ".mkv", repeated("matroska", "libx264", "flac", 20_000, rate=1)
    yield "alac_hours", ".mp4", repeated("mp4", "libx264", "alac", 5000)
    yield "frames_small", ".mkv", repeated("matroska", "libx264", None, 120_000)
    yield "frames_large", ".mkv", repeated("matroska", "libx264", None, 20_000, size=(4096, 2304))
    yield "frames_large_untimed", ".mkv", repeated("matroska", "libx264", None, 5000, size=(4096, 2304), timed=False)
    yield "frames_8k", ".mkv", repeated("matroska", "libx264", None, 200, size=(7680, 4320))
    yield "frames_wide", ".mkv", repeated("matroska", "mpeg4", None, 50, size=(8000, 16))
    squeezed = zlib.compress(bytes(64 << 20), 9)
    blocks = b"".join(block(1, time, squeezed) for time in range(50))
    yield (
        "zlib_blocks",
        ".mkv",
        matroska(track(1, 1, b"V_MJPEG", video_settings(64, 48) + formats.zlib_settings()), blocks),
    )
    private = element(0x63A2, zlib.compress(bytes(64 << 20), 9))
    yield (
        "zlib_private",
        ".mkv",
        matroska(
            track(1, 1, b"V_VP9", video_settings(64, 48) + formats.zlib_settings() + private), block(1, 0, squeezed)
        ),
    )


def endless() -> Made:
    """The same packets over and over, without an index that would tell."""
    for name, suffix in (("ts", ".ts"), ("flv", ".flv"), ("streamed", ".mkv"), ("fragmented", ".mp4")):
        data = seed(name)
        cut = {"ts": 188 * 3, "flv": 13, "streamed": 0, "fragmented": 0}[name]
        yield f"endless_{name}", suffix, data[:cut] + data[cut:] * (24_000_000 // len(data))
    data = seed("ts")
    yield "endless_packet", ".ts", data + data[-188 * 4 : -188 * 3] * 100_000
    yield "null_packets", ".ts", (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 150_000
    yield "program_stream", ".mpg", b"\0\0\1\xba\x44\0\4\0\4\1\0\0\3\xf8" * 1_500_000
    yield "start_codes", ".mpg", b"\0\0\1\xb3" * 4_000_000


def crowds() -> Made:
    """Streams, attachments, tags and subtitles by the thousand."""
    picture = track(1, 1, b"V_VP9", video_settings(64, 48))
    yield (
        "mkv_tracks",
        ".mkv",
        matroska(b"".join(track(n, 1, b"V_VP9", video_settings(64, 48)) for n in range(1, 20_000)), b""),
    )
    yield "mp4_sounds", ".mp4", encode("mp4", "libx264", "aac", sounds=40)
    clip = seed("mp4")
    _, at, size = next(entry for entry in boxes(clip) if entry[0] == b"trak")
    moov = next(entry for entry in boxes(clip) if entry[0] == b"moov")
    crowd = clip[at : at + size] * 5000
    yield "mp4_tracks", ".mp4", clip[: moov[1]] + box(b"moov", clip[moov[1] + 8 : at] + crowd)
    subtitles = track(2, 17, b"S_TEXT/UTF8")
    yield "subtitles", ".mkv", matroska(picture + subtitles, b"".join(block(2, n, b"x" * 9) for n in range(400_000)))
    file = element(0x466E, b"a.ttf") + element(0x4660, b"font/ttf") + number(0x46AE, 1)
    attached = b"".join(element(0x61A7, file + element(0x465C, b"x" * 64)) for _ in range(50_000))
    yield "attachments", ".mkv", matroska(picture, b"", element(0x1941A469, attached))
    yield (
        "attachment_claim",
        ".mkv",
        matroska(picture, b"", element(0x1941A469, element(0x61A7, file + element(0x465C, b"x", 1 << 40)))),
    )
    yield (
        "attachment_large",
        ".mkv",
        matroska(picture, b"", element(0x1941A469, element(0x61A7, file + element(0x465C, bytes(64 << 20))))),
    )
    tag = element(0x7373, element(0x67C8, element(0x45A3, b"k" * 50) + element(0x4487, b"v" * 50)))
    yield "tags", ".mkv", matroska(picture, b"", element(0x1254C367, tag * 60_000))
    pat = b"".join(struct.pack(">HH", n, 0xE000 | n) for n in range(32, 64))
    yield "ts_programs", ".ts", _section(0, 0, pat) * 2000


def _section(pid: int, table: int, body: bytes) -> bytes:
    section = struct.pack(">BHHBBB", table, 0xB000 | (len(body) + 9), 1, 0xC1, 0, 0) + body
    crc = 0xFFFFFFFF
    for byte in section:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    packet = struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10) + b"\0" + section + struct.pack(">I", crc)
    return packet.ljust(188, b"\xff")


def disguises() -> Made:
    """What is no video, under the name of one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(1 << 20))
    yield "zip", ".mp4", packed.getvalue()
    yield "elf", ".mkv", Path(sys.executable).resolve().read_bytes()[:100_000]
    yield "text", ".mp4", b"not a video\n" * 100
    yield "html", ".mp4", b"<!doctype html><title>x</title><video src=x.mp4></video>"
    yield "svg", ".mp4", b'<svg xmlns="http://www.w3.org/2000/svg" width="65535" height="65535"/>'
    yield "json", ".webm", b'{"video": true}'
    yield "zeros", ".mp4", bytes(100_000)
    yield "ones", ".mp4", b"\xff" * 100_000
    for suffix in (".ts", ".avi", ".flv", ".mkv"):
        yield f"zeros_{suffix[1:]}", suffix, bytes(100_000)
        yield f"ones_{suffix[1:]}", suffix, b"\xff" * 100_000
    for form, codec in (("image2pipe", "png"), ("image2pipe", "mjpeg"), ("gif", "gif")):
        yield codec, ".mp4", _picture(form, codec)
    yield "sound_only", ".mp4", sound_only()
    yield "empty", ".mp4", b""
    yield "one_byte", ".mp4", b"\0"
    yield "right_content_wrong_name", ".txt", seed("mp4")


def _picture(form: str, codec: str) -> bytes:
    import av
    import numpy as np

    target = io.BytesIO()
    with av.open(target, "w", format=form) as out:
        pixels = {"png": "rgb24", "mjpeg": "yuvj420p", "gif": "rgb8"}[codec]
        stream = out.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24").reformat(format=pixels)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target.getvalue()


def playlists(target: str, address: str) -> Made:
    """Files that name other files or hosts; ``address`` is an HTTP server that should never be asked."""
    url = f"{address}/asked.mp4"
    for name, link in (("local", target), ("remote", url)):
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{link}\n#EXT-X-ENDLIST\n".encode()
        for suffix in (".m3u8", ".mp4", ".ts"):
            yield f"hls_{name}", suffix, text
        yield f"ffconcat_{name}", ".ffconcat", f"ffconcat version 1.0\nfile '{link}'\n".encode()
        yield f"ffconcat_{name}_as_clip", ".mp4", f"ffconcat version 1.0\nfile '{link}'\n".encode()
        yield (
            f"dash_{name}",
            ".mpd",
            (
                '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
                f'<Representation id="1" bandwidth="1"><BaseURL>{link}</BaseURL></Representation>'
                "</AdaptationSet></Period></MPD>"
            ).encode(),
        )
        yield f"reference_{name}", ".mov", _reference(link)
        yield f"asx_{name}", ".asx", f'<asx version="3"><entry><ref href="{link}"/></entry></asx>'.encode()
    host = address.removeprefix("http://").split(":")[0]
    yield "sdp", ".sdp", f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nm=video 5004 RTP/AVP 96\n".encode()
    yield "rtsp_redirect", ".mp4", f"RTSPtextrtsp://{host}:554/x".encode()
    yield "key", ".m3u8", f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:9,\n{target}\n'.encode()


def _reference(link: str) -> bytes:
    """The clip with a data reference that points elsewhere."""
    clip = seed("mp4")
    reference = box(b"dref", struct.pack(">II", 0, 1) + box(b"url ", bytes(4) + link.encode() + b"\0"))
    return formats.replaced(clip, next(entry for entry in boxes(clip) if entry[0] == b"dref"), reference)
