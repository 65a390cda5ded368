"""Images of a request: limits, and decoding of files of one size."""

import numpy as np
import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.images import encode_image
from tcmoa_runtime.request_images import MAX_FRAMES, MAX_SIDE_PX, check_extent, decode_frames


def line_of(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ((MAX_FRAMES + 1, 1, 1, 3), "x: 65 frames; expected at most 64 in a request"),
        ((1, MAX_SIDE_PX + 1), "x: 32769x1; expected sides of at most 32768 pixels"),
        ((2, 50, 60, 3), "x: 6000 pixels; expected at most 5999 in a request"),
    ],
)
def test_too_much_is_refused(shape, line):
    assert line_of(check_extent, np.zeros(shape, np.uint8), "x", 5999) == line


@pytest.mark.parametrize("shape", [(50, 60), (50, 60, 4), (2, 25, 60, 1), (7,), (1, 1, 1, 1, 1)])
def test_other_shapes_are_left_to_the_fuser(shape):
    check_extent(np.zeros(shape, np.uint8), "x", 3000)


def test_files_become_frames_in_the_order_of_the_bundle():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    files = [encode_image(image, "PNG"), encode_image(image[::-1], "PNG")]
    frames = decode_frames(files, "x", "bgr", max_pixels=100)
    np.testing.assert_array_equal(frames, [image[..., ::-1], image[::-1, :, ::-1]])
    gray = decode_frames([encode_image(image[..., 0], "PNG")], "x", "bgr", max_pixels=100)
    np.testing.assert_array_equal(gray, image[None, ..., :1])


def test_wrong_files_are_one_line():
    image = np.zeros((4, 6, 3), np.uint8)
    files = [encode_image(image, "PNG"), encode_image(image[..., 0], "PNG")]
    assert line_of(decode_frames, files, "x", "rgb", max_pixels=100) == (
        "x: images of 6x4 in uint8 and of 6x4 in gray in uint8; expected images of one size and type in a request"
    )
    assert line_of(decode_frames, files, "x", "rgb", max_pixels=40) == (
        "x[0]: not a readable image (6x4, more pixels than can be decoded); expected at most 20 pixels"
    )
    assert (
        line_of(decode_frames, [], "x", "rgb", max_pixels=9)
        == "x: 0 image files; expected 1 to 64 in a request"
    )
