"""Reading and writing image files."""

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from image_pieces import damaged_files, png
from tcmoa_runtime import InputError
from tcmoa_runtime.images import (
    IMAGE_SUFFIXES,
    check_writable,
    format_size,
    in_order,
    read_frame,
    read_image,
    write_bytes,
    write_image,
)

LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".webp")


@pytest.fixture
def color():
    """Random pixels, RGB."""
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def smooth():
    """An image with little loss in JPEG: the left half red, the right half blue."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24, 0] = picture[:, 24:, 2] = 200
    return picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bgr_reverses_the_channels_and_rgb_does_not(dtype, color):
    image = color.astype(dtype)
    assert in_order(image, "rgb") is image
    bgr = in_order(image, "bgr")
    assert (bgr.dtype, bgr.flags.c_contiguous) == (dtype, True)
    np.testing.assert_array_equal(bgr, image[..., [2, 1, 0]])
    np.testing.assert_array_equal(in_order(bgr, "bgr"), image)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_gray_image_has_no_channel_order(order, shape, color):
    gray = color[..., 0].reshape(shape)
    np.testing.assert_array_equal(in_order(gray, order), gray)


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 3), (480, 640, 1)])
def test_a_size_is_formatted_as_width_x_height(shape):
    assert format_size(shape) == "640x480"


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_written_rgb_is_read_back(suffix, color, tmp_path):
    write_image(tmp_path / f"a{suffix}", color)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), color)


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".PNG", ".Tif"])
def test_written_gray_is_read_back(suffix, color, tmp_path):
    path = tmp_path / f"a{suffix}"
    for gray in (color[..., 0], color[..., :1]):
        write_image(path, gray)
        np.testing.assert_array_equal(read_frame(path, 1)[..., 0], color[..., 0])


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_red_stays_red_in_exchange_with_pillow(suffix, smooth, tmp_path):
    written, foreign = tmp_path / f"written{suffix}", tmp_path / f"pillow{suffix}"
    write_image(written, smooth)
    Image.fromarray(smooth).save(foreign, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(written) as opened:
        shown = np.asarray(opened.convert("RGB")).astype(int)
    for picture in (shown, read_image(foreign).astype(int)):
        assert np.abs(picture[:, :20] - [200, 0, 0]).max() < 12
        assert np.abs(picture[:, 28:] - [0, 0, 200]).max() < 12


def test_jpeg_is_written_with_high_quality(color, tmp_path):
    soft = cv2.GaussianBlur(color, (0, 0), 4)
    write_image(tmp_path / "a.jpg", soft)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - soft).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_16_bits(suffix, color, tmp_path):
    deep = color.astype(np.uint16) * 257 - 3
    for name, image in (("gray", deep[..., 0]), ("rgb", deep)):
        cv2.imwrite(str(tmp_path / f"{name}{suffix}"), image[..., ::-1] if image.ndim == 3 else image)
        result = read_image(tmp_path / f"{name}{suffix}")
        assert result.dtype == np.uint16
        np.testing.assert_array_equal(result, image)


def test_16_bit_files_are_stretched_between_the_given_percentiles(tmp_path):
    ramp = np.linspace(10_000, 12_000, 600).reshape(20, 30).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    wide, narrow = (read_frame(tmp_path / "a.png", percentiles=p) for p in ((0, 100), (25, 75)))
    assert (wide.min(), wide.max(), wide[10, 0, 0]) == (0, 255, 128)
    assert (narrow == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert (narrow == 255).mean() == pytest.approx(0.25, abs=0.01)


def test_alpha_of_a_file_is_dropped(color, tmp_path):
    with_alpha = np.dstack([color, color[..., 0]])
    Image.fromarray(with_alpha, "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), color)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK"])
def test_every_common_color_mode_is_read_as_a_color_frame(mode, smooth, tmp_path):
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


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    cases = list(damaged_files(tmp_path))
    assert len(cases) == 10
    for name, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_an_undamaged_file_of_the_same_kind_is_readable(tmp_path):
    """Otherwise the damaged files could be refused for another reason."""
    rows = b"".join(b"\0" + bytes(range(90)) for _ in range(20))
    (tmp_path / "a.png").write_bytes(png(30, 20, rows))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0].ravel(), np.arange(90))


def test_an_image_with_more_pixels_than_opencv_decodes_is_refused_for_its_size(tmp_path):
    (tmp_path / "a.png").write_bytes(png(100_000, 100_000, b"\0" * 100))
    with pytest.raises(InputError, match="more pixels than can be decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gif", "image format '.gif'; expected"),
        ("a", "image format ''; expected"),
        ("nowhere/a.png", "the folder .*nowhere does not exist"),
        ("folder.png", "a folder; expected an image file"),
    ],
)
def test_a_path_where_no_image_can_be_written_is_refused(name, words, color, tmp_path):
    (tmp_path / "folder.png").mkdir()
    for call in (lambda: check_writable(tmp_path / name), lambda: write_image(tmp_path / name, color)):
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
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)


def fail_to_rename(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "replace", refuse)


@pytest.mark.parametrize("exists", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (fail_to_encode, "could not be encoded"),
        (fail_to_write, "cannot be written: No space left"),
        (fail_to_rename, "cannot be written: Permission denied"),
    ],
)
def test_a_failed_write_changes_no_file(fail, words, exists, color, tmp_path, tree, monkeypatch):
    if exists:
        write_image(tmp_path / "a.png", color[::-1])
    before = tree(tmp_path)
    fail(monkeypatch)
    with pytest.raises(InputError, match=words):
        write_image(tmp_path / "a.png", color)
    assert tree(tmp_path) == before


def test_an_interrupted_write_leaves_no_file(tmp_path, tree, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.png", b"data")
    assert not tree(tmp_path)


def test_a_file_is_complete_before_it_gets_its_name(tmp_path, monkeypatch):
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
