"""Damaged pictures, the same ones every time: `mutant(n)` is the n-th of as many as one asks for."""

import io
import struct
import zlib
from functools import cache
from itertools import product

import numpy as np
from PIL import Image
from skimage.data import astronaut

SIZES = 0, 1, 2, 255, 8192, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1
"""Sides in pixels that a header may claim, in as many bits as it has for them."""
MAGIC = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\x00\x01\x00\x00WEBP", b"II*\x00", b"%PDF"


@cache
def pictures() -> dict[str, bytes]:
    """Return small whole files of one face, by their kind; PNG, GIF and WebP as animations too."""
    face = Image.fromarray(astronaut()).crop((160, 40, 288, 200)).resize((96, 120))
    turned = [face.rotate(9 * k) for k in range(4)]
    lying = face.getexif()
    lying[0x0112] = 6  # to be turned by a viewer
    film = {"save_all": True, "append_images": turned, "duration": 40}
    return {
        "JPEG": _file(face, "JPEG", quality=85, exif=lying),
        "JPEG, progressive": _file(face, "JPEG", quality=85, progressive=True),
        "JPEG, CMYK": _file(face.convert("CMYK"), "JPEG", quality=85),
        "PNG": _file(face, "PNG"),
        "PNG, palette": _file(face.convert("P"), "PNG", transparency=0),
        "PNG, 16 bits": _file(Image.fromarray(np.asarray(face.convert("L"), np.uint16) * 257), "PNG"),
        "PNG, animated": _file(face, "PNG", **film),
        "WebP": _file(face, "WEBP", quality=80),
        "WebP, lossless": _file(face, "WEBP", lossless=True),
        "WebP, animated": _file(face, "WEBP", **film),
        "GIF": _file(face, "GIF"),
        "GIF, animated": _file(face, "GIF", **film),
        "BMP": _file(face, "BMP"),
    }


def mutant(n: int, *, seed: int = 0) -> tuple[str, str, bytes]:
    """Return the kind of the n-th picture, what was done to it, and the bytes; all pairs of these take turns."""
    every = list(product(pictures(), MUTATIONS))
    kind, done = every[n % len(every)]
    return kind, done, bytes(MUTATIONS[done](bytearray(pictures()[kind]), np.random.default_rng([seed, n])))


def _flip(data: bytearray, rng) -> bytearray:
    for place in rng.integers(len(data), size=rng.integers(1, 20)):
        data[place] ^= 1 << rng.integers(8)
    return data


def _flip_early(data: bytearray, rng) -> bytearray:
    """Where headers, tables and palettes are; checksums of a PNG are made good, so that its reader goes on."""
    for place in rng.integers(min(len(data), 400), size=rng.integers(1, 6)):
        data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.integers(256)])
    return _checked(data)


def _cut(data: bytearray, rng) -> bytearray:
    return data[: rng.integers(len(data))]


def _insert(data: bytearray, rng) -> bytearray:
    place = rng.integers(len(data))
    return data[:place] + rng.bytes(rng.integers(1, 200)) + data[place:]


def _remove(data: bytearray, rng) -> bytearray:
    place = rng.integers(len(data))
    return data[:place] + data[place + rng.integers(1, 200) :]


def _repeat(data: bytearray, rng) -> bytearray:
    """A piece twice: a header, a table, a frame."""
    first, last = sorted(rng.integers(len(data), size=2))
    return data[:last] + data[first:]


def _swap_magic(data: bytearray, rng) -> bytearray:
    magic = MAGIC[rng.integers(len(MAGIC))]
    return bytearray(magic) + data[len(magic) :]


def _splice(data: bytearray, rng) -> bytearray:
    other = list(pictures().values())[rng.integers(len(pictures()))]
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def _resize(data: bytearray, rng) -> bytearray:
    """Let the header claim another size."""
    wide, high = (SIZES[k] for k in rng.integers(len(SIZES), size=2))
    if rng.random() < 0.5:  # one that a picture may have
        wide, high = map(int, rng.integers(1, 1500, size=2))
    if data[:4] == b"\x89PNG":
        data[16:24] = struct.pack(">II", wide, high)
    elif data[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", wide & 0xFFFF, high & 0xFFFF)
        if rng.random() < 0.5 and (place := data.find(b",\0\0\0\0")) > 0:  # of the first frame, too
            data[place + 5 : place + 9] = data[6:10]
    elif data[:2] == b"BM":
        data[18:26] = struct.pack("<II", wide, high)
    elif data[:4] == b"RIFF":
        place = {b"VP8 ": 26, b"VP8L": 21, b"VP8X": 24}[bytes(data[12:16])]
        data[place : place + 4] = struct.pack("<I", wide)
    else:
        place = next(data.find(bytes([0xFF, frame])) for frame in (0xC0, 0xC2) if bytes([0xFF, frame]) in data)
        data[place + 5 : place + 9] = struct.pack(">HH", high & 0xFFFF, wide & 0xFFFF)
    return _checked(data)


def _checked(data: bytearray) -> bytearray:
    """Make good the checksums of a PNG's chunks."""
    place = 8
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return data


def _end_early(data: bytearray, rng) -> bytearray:
    """A PNG whose end comes first, then a part that claims up to 4 GB; of other kinds, their first bytes alone."""
    if data[:4] != b"\x89PNG":
        return data[: rng.integers(1, 33)]
    part = (b"IDAT", b"PLTE", b"tEXt")[rng.integers(3)]
    return data[:33] + data[-12:] + rng.bytes(4) + part + data[33:-12]


MUTATIONS = {
    "bits flipped": _flip,
    "header changed": _flip_early,
    "cut short": _cut,
    "bytes inserted": _insert,
    "bytes removed": _remove,
    "a piece twice": _repeat,
    "magic swapped": _swap_magic,
    "end of another": _splice,
    "another size": _resize,
    "end first": _end_early,
}


def _file(image: Image.Image, kind: str, **choices) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **choices)
    return file.getvalue()
