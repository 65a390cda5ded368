"""Image files in and out."""

import errno
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tcmoa_runtime import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, check_writable, read_frame, read_image, write_bytes, write_image

LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".webp")


@pytest.fixture
def colour():
    """Random pixels, RGB."""
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def smooth():
    """Something that JPEG keeps well: left red, right blue."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24, 0] = picture[:, 24:, 2] = 200
    return picture


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, rows):
    """A PNG file of 8-bit RGB with any size in its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_rgb_comes_back_as_it_was_written(suffix, colour, tmp_path):
    write_image(tmp_path / f"a{suffix}", colour)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), colour)


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".PNG", ".Tif"])
def test_grey_comes_back_as_it_was_written(suffix, colour, tmp_path):
    path = tmp_path / f"a{suffix}"
    for grey in (colour[..., 0], colour[..., :1]):
        write_image(path, grey)
        np.testing.assert_array_equal(read_frame(path, 1)[..., 0], colour[..., 0])


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_red_stays_red_in_files_of_other_software(suffix, smooth, tmp_path):
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
    write_image(ours, smooth)
    Image.fromarray(smooth).save(theirs, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(ours) as opened:
        shown = np.asarray(opened.convert("RGB")).astype(int)
    for picture in (shown, read_image(theirs).astype(int)):
        assert np.abs(picture[:, :20] - [200, 0, 0]).max() < 12
        assert np.abs(picture[:, 28:] - [0, 0, 200]).max() < 12


def test_jpeg_is_written_in_high_quality(colour, tmp_path):
    soft = cv2.GaussianBlur(colour, (0, 0), 4)
    write_image(tmp_path / "a.jpg", soft)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - soft).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_16_bits(suffix, colour, tmp_path):
    deep = colour.astype(np.uint16) * 257 - 3
    for name, image in (("grey", deep[..., 0]), ("rgb", deep)):
        cv2.imwrite(str(tmp_path / f"{name}{suffix}"), image[..., ::-1] if image.ndim == 3 else image)
        result = read_image(tmp_path / f"{name}{suffix}")
        assert result.dtype == np.uint16
        np.testing.assert_array_equal(result, image)


def test_16_bit_files_become_frames_by_the_stretch_asked_for(tmp_path):
    ramp = np.linspace(10_000, 12_000, 600).reshape(20, 30).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    wide, narrow = (read_frame(tmp_path / "a.png", percentiles=p) for p in ((0, 100), (25, 75)))
    assert (wide.min(), wide.max(), wide[10, 0, 0]) == (0, 255, 128)
    assert (narrow == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert (narrow == 255).mean() == pytest.approx(0.25, abs=0.01)


def test_alpha_of_a_file_is_dropped(colour, tmp_path):
    with_alpha = np.dstack([colour, colour[..., 0]])
    Image.fromarray(with_alpha, "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colour)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK"])
def test_every_common_kind_of_image_becomes_a_colour_frame(mode, smooth, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture = Image.fromarray(smooth).convert(mode)
    picture.save(path)
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(read_frame(path) - expected)[:, [*range(20), *range(28, 48)]].max() < 20


@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_tag_is_applied(tag, tmp_path):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95, exif=exif)
    corner, shape = {
        1: ((0, 0), (32, 64)),
        2: ((0, -1), (32, 64)),
        3: ((-1, -1), (32, 64)),
        4: ((-1, 0), (32, 64)),
        5: ((0, 0), (64, 32)),
        6: ((0, -1), (64, 32)),
        7: ((-1, -1), (64, 32)),
        8: ((-1, 0), (64, 32)),
    }[tag]
    result = read_image(tmp_path / "a.jpg")
    assert result.shape[:2] == shape
    assert result[corner].min() > 200
    assert sum(result[r, c].min() > 200 for r in (0, -1) for c in (0, -1)) == 1


def damaged_files(folder):
    """Files that are no readable images, by what is wrong with them."""
    png = png_of(30, 20, np.random.default_rng(0).bytes(20 * 91))
    contents = {
        "empty": (b"", "an empty file; expected an image"),
        "text": (b"not an image", "not a readable image"),
        "signature only": (png[:8], "not a readable image"),
        "half a PNG": (png[: len(png) // 2], "not a readable image"),
        "100000x100000 PNG": (png_of(100_000, 100_000, b"\0" * 100), "not a readable image"),
        "2147483647x2147483647 PNG": (png_of(2**31 - 1, 2**31 - 1, b"\0" * 100), "not a readable image"),
        "0x0 PNG": (png_of(0, 0, b""), "not a readable image"),
    }
    for name, (content, words) in contents.items():
        (folder / f"{name}.png").write_bytes(content)
        yield f"{name}.png", words
    (folder / "folder.png").mkdir()
    yield "folder.png", "cannot be read: Is a directory"
    yield "missing.png", "no such image file"
    cv2.imwrite(str(folder / "float.tif"), np.zeros((4, 5), np.float32))
    yield "float.tif", "holds float32; expected 8 or 16 bits"


def test_what_is_no_readable_image_is_refused_in_one_line(tmp_path):
    cases = list(damaged_files(tmp_path))
    assert len(cases) == 10
    for name, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_a_whole_file_made_as_the_damaged_ones_is_readable(tmp_path):
    """Or those would be refused for another reason."""
    rows = b"".join(b"\0" + bytes(range(90)) for _ in range(20))
    (tmp_path / "a.png").write_bytes(png_of(30, 20, rows))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0].ravel(), np.arange(90))


def test_more_pixels_than_opencv_decodes_are_named_as_the_cause(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of(100_000, 100_000, b"\0" * 100))
    with pytest.raises(InputError, match="more pixels than can be decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gif", "image format '.gif'; expected"),
        ("a", "image format ''; expected"),
        ("nowhere/a.png", "the folder .*nowhere does not exist"),
        ("folder.png", "a folder; expected a file name"),
    ],
)
def test_a_place_where_no_image_can_go_is_refused_beforehand(name, words, colour, tmp_path):
    (tmp_path / "folder.png").mkdir()
    for call in (lambda: check_writable(tmp_path / name), lambda: write_image(tmp_path / name, colour)):
        with pytest.raises(InputError, match=words):
            call()
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_an_image_too_large_for_the_format_is_refused(tmp_path, tree):
    with pytest.raises(InputError, match=r"a.webp: 16400x2 pixels (do not fit|could not be encoded)"):
        write_image(tmp_path / "a.webp", np.zeros((2, 16_400, 3), np.uint8))
    assert not tree(tmp_path)


def fail_to_encode(monkeypatch):
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))


def fail_to_write(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdopen", full)


def fail_to_rename(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "replace", refuse)


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (fail_to_encode, "could not be encoded"),
        (fail_to_write, "cannot be written: No space left"),
        (fail_to_rename, "cannot be written: Permission denied"),
    ],
)
def test_a_failed_write_leaves_all_as_it_was(fail, words, there, colour, tmp_path, tree, monkeypatch):
    if there:
        write_image(tmp_path / "a.png", colour[::-1])
    before = tree(tmp_path)
    fail(monkeypatch)
    with pytest.raises(InputError, match=words):
        write_image(tmp_path / "a.png", colour)
    assert tree(tmp_path) == before


def test_an_interrupted_write_leaves_nothing(tmp_path, tree, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.png", b"data")
    assert not tree(tmp_path)


def test_the_file_is_whole_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    rename = Path.replace

    def watch(partial, target):
        seen.append((partial.read_bytes(), partial.parent, target.exists()))
        return rename(partial, target)

    monkeypatch.setattr(Path, "replace", watch)
    write_bytes(tmp_path / "a.png", b"data")
    assert seen == [(b"data", tmp_path, False)]
    assert (tmp_path / "a.png").read_bytes() == b"data"


def test_written_files_have_the_usual_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a.png", b"data")
    finally:
        os.umask(old)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640
