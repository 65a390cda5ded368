"""Images in bytes: decoded with the checks and messages of files, and encoded to the bytes that a file gets."""

import tracemalloc

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from image_pieces import COLOR_8, COLOR_16, GRAY_8, GRAY_16, STORED, UNREAD, bomb, damaged_files
from tcmoa_runtime import InputError
from tcmoa_runtime.images import (
    IMAGE_FORMATS,
    MAX_PIXELS,
    decode_frame,
    decode_image,
    encode_image,
    read_frame,
    read_image,
    write_image,
)

KINDS = [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8).data]
SUFFIXES = sorted(IMAGE_FORMATS)


def outcome(decode, *arguments, **options):
    """Return the image, or the parts of the error."""
    try:
        image = decode(*arguments, **options)
    except InputError as error:
        return error.subject, error.problem, error.remedy
    return image.dtype, image.shape, image.tobytes()


def assert_like_the_file(path, **options):
    data = path.read_bytes()
    from_file = outcome(read_image, path, **options)
    for kind in KINDS:
        assert outcome(decode_image, kind(data), str(path), **options) == from_file
    return from_file


def test_damaged_bytes_are_refused_as_their_file_is(tmp_path):
    refused = 0
    for name, words in damaged_files(tmp_path):
        if (tmp_path / name).is_file():
            subject, problem, _ = assert_like_the_file(tmp_path / name)
            assert subject == str(tmp_path / name)
            assert words in problem
            refused += 1
    assert refused == 8


@pytest.mark.parametrize("case", [*STORED, *UNREAD])
def test_a_tiff_file_in_bytes_is_read_or_refused_as_the_file_is(case, tmp_path):
    stored, *_ = pieces = (STORED | UNREAD)[case]
    tifffile.imwrite(tmp_path / "a.tif", stored, **next(p for p in pieces if isinstance(p, dict)))
    before = (tmp_path / "a.tif").read_bytes()
    data = bytearray(before)
    assert_like_the_file(tmp_path / "a.tif")
    outcome(decode_image, data, "a.tif")
    assert data == before  # the caller's buffer, also where alpha is declared as multiplied


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@settings(max_examples=40)
@given(data=st.data())
def test_mutated_bytes_have_the_outcome_of_their_file(suffix, data, tmp_path_factory):
    image = data.draw(
        st.sampled_from([COLOR_8, GRAY_8, *([COLOR_16, GRAY_16] if suffix in ".png.tif" else [])])
    )
    changed = bytearray(cv2.imencode(suffix, image)[1].tobytes())
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at : at + 4] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.getbasetemp() / f"mutated{suffix}"
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)))])
    assert_like_the_file(path, max_pixels=1 << 20)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_the_callers_limit_refuses_by_the_header(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bomb(3000, 2000, suffix) + bytes(5_000_000 if suffix == ".bmp" else 0))
    tracemalloc.start()
    try:
        assert assert_like_the_file(path, max_pixels=5_999_999) == (
            str(path),
            "not a readable image (3000x2000, more pixels than can be decoded); expected at most 5999999 pixels",
            None,
        )
        assert tracemalloc.get_traced_memory()[1] < 12_000_000  # the file and a copy by this test
    finally:
        tracemalloc.stop()


def test_a_limit_counts_pixels_and_does_not_raise_that_of_files(tmp_path):
    write_image(tmp_path / "a.png", COLOR_8)
    assert assert_like_the_file(tmp_path / "a.png", max_pixels=600)[1] == (20, 30, 3)
    assert "at most 599 pixels" in assert_like_the_file(tmp_path / "a.png", max_pixels=599)[1]
    (tmp_path / "b.png").write_bytes(bomb(30_000, 30_000, ".png"))
    assert f"at most {MAX_PIXELS} pixels" in assert_like_the_file(tmp_path / "b.png", max_pixels=1 << 40)[1]


def test_decoding_does_not_copy_the_encoded_bytes():
    data = encode_image(np.zeros((1000, 1000, 3), np.uint8), "BMP")  # 3 MB, as its image
    view = memoryview(bytes(1) + data)[1:]
    tracemalloc.start()
    try:
        assert decode_image(view, "x").shape == (1000, 1000, 3)
        assert tracemalloc.get_traced_memory()[1] < 6_200_000  # the image as BGR and as RGB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "kind"),
    [("a.png", "str"), (None, "NoneType"), ([1, 2], "list"), (memoryview(bytes(20))[::2], "memoryview")],
)
def test_what_is_no_bytes_is_refused(data, kind):
    with pytest.raises(InputError) as caught:
        decode_image(data, "x")
    assert str(caught.value) == f"x: a {kind}; expected the bytes of an image file, contiguous"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [COLOR_16, GRAY_16, COLOR_8], ids=["rgb16", "gray16", "rgb8"])
def test_a_frame_of_bytes_is_that_of_the_file(channels, stored, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb" if stored.ndim == 3 else "minisblack")
    data = (tmp_path / "a.tif").read_bytes()
    frame = decode_frame(data, "x", channels, percentiles=(5, 90), max_pixels=600)
    np.testing.assert_array_equal(frame, read_frame(tmp_path / "a.tif", channels, percentiles=(5, 90)))
    for call in (
        lambda: decode_frame(data, "x", max_pixels=9),
        lambda: read_frame(tmp_path / "a.tif", max_pixels=9),
    ):
        with pytest.raises(InputError, match="at most 9 pixels"):
            call()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
@pytest.mark.parametrize("image", [COLOR_8, GRAY_8, GRAY_8[..., None]], ids=["rgb", "gray", "gray channel"])
def test_encoded_bytes_are_those_of_the_file(suffix, image, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_image(path, image)
    assert encode_image(image, IMAGE_FORMATS[suffix.lower()]) == path.read_bytes()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WebP"])
@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    seed=st.integers(0, 1 << 32),
)
def test_what_is_encoded_is_decoded_again(image_format, shape, seed):
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    data = encode_image(image, image_format)
    np.testing.assert_array_equal(decode_frame(data, "x", shape[2]), image)


def test_what_a_format_cannot_hold_is_refused_by_name():
    with pytest.raises(
        InputError, match=r"^fused: 16400x2 pixels (do not fit this format|could not be encoded)$"
    ):
        encode_image(np.zeros((2, 16_400, 3), np.uint8), "WebP", "fused")
