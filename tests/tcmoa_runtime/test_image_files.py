"""Image files that lie, unpack to any size, are no files, or store their samples in a rare way."""

import os
import tracemalloc

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from image_pieces import (
    ALPHA_8,
    COLOR_8,
    COLOR_16,
    GRAY_8,
    GRAY_16,
    STORED,
    UNREAD,
    bomb,
    png,
)
from tcmoa_runtime import InputError
from tcmoa_runtime.image_header import read_header
from tcmoa_runtime.images import MAX_FILE_BYTES, MAX_PIXELS, read_image


def message(path):
    with pytest.raises(InputError) as caught:
        read_image(path)
    return str(caught.value)


@pytest.mark.parametrize("case", STORED)
def test_a_tiff_file_is_read_as_it_is_stored(case, tmp_path):
    stored, expected, options = STORED[case]
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    result = read_image(tmp_path / "a.tif")
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("case", UNREAD)
def test_a_tiff_file_that_would_be_read_wrongly_is_refused(case, tmp_path):
    stored, options, problem = UNREAD[case]
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    assert message(tmp_path / "a.tif") == (
        f"{tmp_path}/a.tif: {problem}; expected an image that can be decoded as it is stored. "
        "Convert it to a PNG file of 8 or 16 bits per channel."
    )


def test_what_the_decoder_returns_is_compared_with_the_header(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(30, 20, b"".join(b"\0" + row.tobytes() for row in COLOR_8)))
    for wrong in (COLOR_8[:10], COLOR_16):
        monkeypatch.setattr(cv2, "imdecode", lambda *_, wrong=wrong: wrong)
        assert "30x20 with 8 bits per channel, but decoded to 30x" in message(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "stored", [COLOR_8, COLOR_16, GRAY_8, GRAY_16], ids=["rgb8", "rgb16", "gray8", "gray16"]
)
def test_the_orientation_of_a_tiff_file_is_applied(orientation, stored, tmp_path):
    tag = [(274, "H", 1, orientation, True)]
    photometric = "rgb" if stored.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, extratags=tag)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), oriented(stored, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_the_orientation_of_exif_is_applied(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(COLOR_8).save(tmp_path / f"a{suffix}", exif=exif, lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), oriented(COLOR_8, orientation))


def oriented(image, orientation):
    """Return an image as it is shown: 2, 4, 5 and 7 are mirrored."""
    turned = np.swapaxes(image, 0, 1) if orientation >= 5 else image
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return turned[rows, columns]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_of_other_formats_does_not_change_the_color(suffix, tmp_path):
    rgba = Image.fromarray(np.dstack([COLOR_8, ALPHA_8]), "RGBA")
    rgba.save(tmp_path / f"a{suffix}", lossless=True, exact=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), COLOR_8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_an_image_that_would_unpack_to_too_much_is_refused_by_its_header(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bomb(30_000, 30_000, suffix))
    tracemalloc.start()
    try:
        assert message(path) == (
            f"{path}: not a readable image (30000x30000, more pixels than can be decoded); expected at most "
            f"{MAX_PIXELS} pixels"
        )
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_sparse_file_is_refused_by_its_size(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(png(30, 20))
        file.truncate(30 << 30)
    assert message(tmp_path / "a.png") == (
        f"{tmp_path}/a.png: cannot be read: {30 << 30} bytes; expected at most {MAX_FILE_BYTES}"
    )


def test_a_large_file_that_is_no_image_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert message(tmp_path / "a.png").endswith(
            "not a readable image; expected PNG, JPEG, TIFF, BMP or WebP"
        )
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def make_pipe(path):
    os.mkfifo(path)


def make_link_to(target):
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (make_pipe, "a named pipe; expected a regular file"),
        (make_link_to("/dev/zero"), "a device; expected a regular file"),
        (make_link_to("/dev/full"), "a device; expected a regular file"),
        (make_link_to("a.png"), "Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "a folder; expected a regular file"),
    ],
    ids=["pipe", "endless", "full", "link to itself", "folder"],
)
def test_what_is_no_regular_file_is_refused_at_once(make, problem, tmp_path, tcmoa, vif, sources):
    make(tmp_path / "a.png")
    line = f"{tmp_path}/a.png: cannot be read: {problem}"
    assert message(tmp_path / "a.png") == line
    outcome = tcmoa("fuse", vif, sources[0], tmp_path / "a.png", "-o", tmp_path / "out.png")
    outcome.assert_error(2, "a.png")


def test_a_link_to_an_image_is_followed(tmp_path):
    (tmp_path / "a.png").write_bytes(png(30, 20, b"".join(b"\0" + row.tobytes() for row in COLOR_8)))
    (tmp_path / "b.png").symlink_to("a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), COLOR_8)


@pytest.mark.parametrize(
    "name",
    [
        "10:30.png",
        "my%20drone.png",
        "10\u00b220.png",
        "%d.png",
        "[a]*?.png",
        "-x.png",
        "{id}.png",
        "a\nb.png",
        "~.png",
    ],
)
def test_the_name_of_a_file_is_no_syntax(name, tmp_path, tcmoa, vif, sources, monkeypatch):
    monkeypatch.chdir(sources[0].parent)
    sources[0].rename(sources[0].with_name(name))
    out = tmp_path / f"out {name}"
    outcome = tcmoa("fuse", vif, "--backend", "onnxruntime", "-o", out, "--", name, "y.png")
    assert outcome.code == 0, outcome.err
    assert read_image(out).shape == (100, 130, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@given(data=st.data())
def test_a_damaged_header_is_read_or_refused_but_never_a_fault(suffix, data):
    valid = cv2.imencode(suffix, COLOR_8)[1].tobytes()
    at = data.draw(st.integers(0, min(len(valid), 300) - 1))
    changed = bytearray(valid)
    changed[at : at + 4] = data.draw(st.binary(max_size=4))
    length = data.draw(st.integers(0, len(changed)))
    read_header(bytes(changed[:length]))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_the_header_of_each_format_has_its_size(suffix):
    header = read_header(cv2.imencode(suffix, COLOR_8)[1].tobytes())
    assert (header.width, header.height, header.bits) == (30, 20, 8)
