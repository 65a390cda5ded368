"""Finding pairs of images in one folder or two, and reading them."""

import cv2
import numpy as np
import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.images import stretch_to_uint8, write_image
from tcmoa_runtime.pairs import PairPaths, find_pairs, read_frame_pair, read_pair


@pytest.fixture
def folder(tmp_path):
    """Function that makes a folder of empty files: finding pairs does not open them."""

    def make(name, *files):
        made = tmp_path / name
        made.mkdir()
        for file in files:
            (made / file).touch()
        return made

    return make


def found(x, y=None):
    return [(p.name, p.x.name, p.y.name) for p in find_pairs(x, y)]


def test_one_folder_holds_both_sources_with_x_and_y_at_the_end(folder):
    both = folder("both", "b_y.jpg", "b_x.png", "a_x.PNG", "a_y.tif")
    expected = [("a", "a_x.PNG", "a_y.tif"), ("b", "b_x.png", "b_y.jpg")]
    assert found(both) == found(both, both) == expected


def test_one_folder_may_hold_other_images(folder):
    assert found(folder("both", "a_x.png", "a_y.png", "fused.png")) == [("a", "a_x.png", "a_y.png")]


def test_two_paths_of_one_folder_are_one_folder(folder):
    both = folder("both", "a_x.png", "a_y.png")
    assert found(both, both / ".." / "both") == [("a", "a_x.png", "a_y.png")]


def test_two_folders_hold_equal_names_in_any_format(folder):
    x, y = folder("x", "b.png", "a.png"), folder("y", "a.jpg", "b.webp")
    assert found(x, y) == [("a", "a.png", "a.jpg"), ("b", "b.png", "b.webp")]


def test_two_folders_may_end_their_names_in_x_and_y(folder):
    assert found(folder("x", "a_x.png"), folder("y", "a_y.png")) == [("a", "a_x.png", "a_y.png")]
    assert found(folder("x2", "a_x.png"), folder("y2", "a.png")) == [("a", "a_x.png", "a.png")]


def test_two_folders_may_end_some_of_their_names_in_x_and_y(folder):
    """No image may be skipped without an error."""
    x, y = folder("x", "a.png", "b_x.png"), folder("y", "a.png", "b_y.png")
    assert found(x, y) == [("a", "a.png", "a.png"), ("b", "b_x.png", "b_y.png")]


def test_equal_names_are_a_pair_even_if_both_end_in_x(folder):
    x, y = folder("x", "axis_x.png"), folder("y", "axis_x.png")
    assert found(x, y) == [("axis_x", "axis_x.png", "axis_x.png")]


def test_hidden_files_and_other_formats_are_ignored(folder):
    x = folder("x", "a.png", ".a.png.x1y2", "._b.png", "notes.txt", "movie.mp4")
    assert found(x, folder("y", "a.png", ".DS_Store")) == [("a", "a.png", "a.png")]


@pytest.mark.parametrize(
    ("x_files", "y_files", "words"),
    [
        ([], [], ["no pair", "same names in both"]),
        (["a.png"], ["b.png"], ["no pair", "same names in both"]),
        (["a.png", "b.png"], ["a.png"], ["no partner for b"]),
        (["a.png"], ["a.png", "b.png"], ["no partner for b"]),
        (["a.png", *(f"{c}.png" for c in "fedcb")], ["a.png"], ["no partner for b, c, d and 2 more"]),
        (["a.png", "a.jpg"], ["a.png"], ["a.jpg and a.png belong to the same pair"]),
        (["a.png", "a_x.png"], ["a.png"], ["a.png and a_x.png belong to the same pair"]),
    ],
)
def test_two_folders_that_do_not_match_are_refused(folder, x_files, y_files, words):
    with pytest.raises(InputError) as caught:
        find_pairs(folder("x", *x_files), folder("y", *y_files))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("files", "word"),
    [
        (["a.png", "b.png"], "no pair of images; expected NAME_x.EXT and NAME_y.EXT"),
        (["a_x.png"], "no pair of images"),
        (["a_x.png", "a_y.png", "b_y.png"], "no partner for b"),
        (["a_x.png", "a_x.tif", "a_y.png"], "belong to the same pair"),
    ],
)
def test_one_folder_that_does_not_match_is_refused(folder, files, word):
    with pytest.raises(InputError, match=word):
        find_pairs(folder("both", *files))


def test_a_missing_folder_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_pairs(folder("x", "a.png"), tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(folder):
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(folder("x", "a.png") / "a.png")


@pytest.fixture
def pair_files(tmp_path, pair):
    """Function that writes x.png, in color, and y.png, 16-bit gray, and returns them as `PairPaths` and arrays."""

    def make(cut=0):
        paths = PairPaths("night", tmp_path / "x.png", tmp_path / "y.png")
        x, y = pair[0], pair[1][cut:, :, 0].astype(np.uint16) * 31
        write_image(paths.x, x)
        cv2.imwrite(str(paths.y), y)
        return paths, x, y

    return make


def test_a_pair_is_read_without_conversion(pair_files):
    paths, x, y = pair_files()
    for order, expected in (("rgb", x), ("bgr", x[..., ::-1])):
        for result, image in zip(read_pair(paths, order), (expected, y), strict=True):
            assert result.dtype == image.dtype
            np.testing.assert_array_equal(result, image)
    np.testing.assert_array_equal(read_pair(paths)[0], x)


def test_a_pair_of_frames_is_rgb_with_8_bits(pair_files):
    paths, x, y = pair_files()
    for frame, image in zip(read_frame_pair(paths), (x, np.dstack([stretch_to_uint8(y)] * 3)), strict=True):
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, image)


@pytest.mark.parametrize("read", [read_pair, read_frame_pair])
def test_a_pair_of_two_sizes_is_refused_in_one_line(read, pair_files):
    paths, *_ = pair_files(cut=1)
    with pytest.raises(InputError) as caught:
        read(paths)
    sizes = f"x is 130x100 and y ({paths.y}) 130x99"
    assert str(caught.value) == f"{paths.x}: {sizes}; expected two registered images of one size"


@pytest.mark.parametrize("read", [read_pair, read_frame_pair])
def test_a_pair_with_an_unreadable_file_names_the_file(read, pair_files):
    paths, *_ = pair_files()
    paths.y.write_bytes(b"text")
    with pytest.raises(InputError, match="not a readable image") as caught:
        read(paths)
    assert caught.value.subject == str(paths.y)
