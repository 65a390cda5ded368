"""Image files for tests: rare ways of storing samples, headers that lie, and damaged files."""

import struct
import zlib

import cv2
import numpy as np

RNG = np.random.default_rng(0)
GRAY_8, GRAY_16 = RNG.integers(0, 256, (20, 30), np.uint8), RNG.integers(0, 65536, (20, 30), np.uint16)
COLOR_8, COLOR_16 = (
    RNG.integers(0, 256, (20, 30, 3), np.uint8),
    RNG.integers(0, 65536, (20, 30, 3), np.uint16),
)
ALPHA_8, ALPHA_16 = GRAY_8[::-1, :, None], GRAY_16[::-1, :, None]


def chunk(kind, data):
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows=b"", bits=8, color=2):
    """Return a PNG file with any size in its header."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


STORED = {
    "16 bits, 0 is white": (GRAY_16, 65535 - GRAY_16, {"photometric": "miniswhite"}),
    "16 bits, 0 is white, big endian": (
        GRAY_16,
        65535 - GRAY_16,
        {"photometric": "miniswhite", "byteorder": ">"},
    ),
    "16 bits, 0 is white, BigTIFF": (
        GRAY_16,
        65535 - GRAY_16,
        {"photometric": "miniswhite", "bigtiff": True},
    ),
    "16 bits, 0 is white, deflated": (
        GRAY_16,
        65535 - GRAY_16,
        {"photometric": "miniswhite", "compression": "zlib"},
    ),
    "8 bits, 0 is white": (GRAY_8, 255 - GRAY_8, {"photometric": "miniswhite"}),
    "16 bits": (GRAY_16, GRAY_16, {"photometric": "minisblack"}),
    "color and alpha": (
        np.dstack([COLOR_8, ALPHA_8]),
        COLOR_8,
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "color and alpha, big endian": (
        np.dstack([COLOR_8, ALPHA_8]),
        COLOR_8,
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "byteorder": ">"},
    ),
    "color and alpha in planes": (
        np.dstack([COLOR_8, ALPHA_8]).transpose(2, 0, 1),
        COLOR_8,
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "planarconfig": "separate"},
    ),
    "color multiplied by alpha": (
        np.dstack([COLOR_8, ALPHA_8]),
        COLOR_8,
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
    ),
    "color and an unspecified sample": (
        np.dstack([COLOR_8, ALPHA_8]),
        COLOR_8,
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
    ),
    "color and alpha of 16 bits": (
        np.dstack([COLOR_16, ALPHA_16]),
        COLOR_16,
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "gray and alpha": (
        np.dstack([GRAY_8, ALPHA_8]),
        GRAY_8,
        {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
    ),
    "color in planes": (
        COLOR_8.transpose(2, 0, 1),
        COLOR_8,
        {"photometric": "rgb", "planarconfig": "separate"},
    ),
    "two pages": (np.stack([GRAY_8, 255 - GRAY_8]), GRAY_8, {"photometric": "minisblack"}),
}


TWO = "16 bits with 2 samples per pixel"
UNREAD = {
    "gray and alpha of 16 bits": (
        np.dstack([GRAY_16, ALPHA_16]),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
        TWO,
    ),
    "color of 16 bits in planes": (
        COLOR_16.transpose(2, 0, 1),
        {"photometric": "rgb", "planarconfig": "separate"},
        "16 bits with each channel stored by itself",
    ),
    "CIELab of 16 bits": (COLOR_16, {"photometric": "cielab"}, "16 bits in another color space than RGB"),
    "CMYK of 16 bits": (
        np.dstack([COLOR_16, ALPHA_16]),
        {"photometric": "separated"},
        "16 bits in another color space than RGB",
    ),
}


def bomb(width, height, suffix):
    """Return a file of another size in its header, almost without pixels."""
    if suffix == ".png":
        return png(width, height, b"\0" * 1000)
    small = cv2.imencode(suffix, COLOR_8)[1].tobytes()
    if suffix == ".jpg":
        at = small.index(b"\xff\xc0") + 5
        return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]
    if suffix == ".bmp":
        return small[:18] + struct.pack("<ii", width, height) + small[26:]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, width), (257, height)))
    return b"II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)


def damaged_files(folder):
    """Write files that are not readable images; yield their names and the expected messages."""
    valid = png(30, 20, np.random.default_rng(0).bytes(20 * 91))
    contents = {
        "empty": (b"", "an empty file; expected an image"),
        "text": (b"not an image", "not a readable image"),
        "signature only": (valid[:8], "not a readable image"),
        "half a PNG": (valid[: len(valid) // 2], "not a readable image"),
        "100000x100000 PNG": (png(100_000, 100_000, b"\0" * 100), "not a readable image"),
        "2147483647x2147483647 PNG": (png(2**31 - 1, 2**31 - 1, b"\0" * 100), "not a readable image"),
        "0x0 PNG": (png(0, 0, b""), "not a readable image"),
    }
    for name, (content, words) in contents.items():
        (folder / f"{name}.png").write_bytes(content)
        yield f"{name}.png", words
    (folder / "folder.png").mkdir()
    yield "folder.png", "cannot be read: a folder; expected a regular file"
    yield "missing.png", "no such image file"
    cv2.imwrite(str(folder / "float.tif"), np.zeros((4, 5), np.float32))
    yield "float.tif", "holds float32; expected 8 or 16 bits"
