"""Finding pairs of images in one folder or two."""

import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.pairs import find_pairs


@pytest.fixture
def folder(tmp_path):
    """Make a folder of empty files; finding pairs opens none."""

    def make(name, *files):
        made = tmp_path / name
        made.mkdir()
        for file in files:
            (made / file).touch()
        return made

    return make


def found(x, y=None):
    return [(p.name, p.x.name, p.y.name) for p in find_pairs(x, y)]


def test_one_folder_holds_x_and_y_by_their_ending(folder):
    both = folder("both", "b_y.jpg", "b_x.png", "a_x.PNG", "a_y.tif")
    expected = [("a", "a_x.PNG", "a_y.tif"), ("b", "b_x.png", "b_y.jpg")]
    assert found(both) == found(both, both) == expected


def test_one_folder_may_hold_other_images(folder):
    assert found(folder("both", "a_x.png", "a_y.png", "fused.png")) == [("a", "a_x.png", "a_y.png")]


def test_one_folder_by_two_paths_is_still_one(folder):
    both = folder("both", "a_x.png", "a_y.png")
    assert found(both, both / ".." / "both") == [("a", "a_x.png", "a_y.png")]


def test_two_folders_hold_equal_names_whatever_the_format(folder):
    x, y = folder("x", "b.png", "a.png"), folder("y", "a.jpg", "b.webp")
    assert found(x, y) == [("a", "a.png", "a.jpg"), ("b", "b.png", "b.webp")]


def test_two_folders_may_end_their_names_in_x_and_y(folder):
    assert found(folder("x", "a_x.png"), folder("y", "a_y.png")) == [("a", "a_x.png", "a_y.png")]
    assert found(folder("x2", "a_x.png"), folder("y2", "a.png")) == [("a", "a_x.png", "a.png")]


def test_two_folders_may_end_some_of_their_names_in_x_and_y(folder):
    """None is left out in silence."""
    x, y = folder("x", "a.png", "b_x.png"), folder("y", "a.png", "b_y.png")
    assert found(x, y) == [("a", "a.png", "a.png"), ("b", "b_x.png", "b_y.png")]


def test_equal_names_are_a_pair_even_where_they_end_in_x(folder):
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


def test_missing_folder_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_pairs(folder("x", "a.png"), tmp_path / "nowhere")


def test_file_instead_of_folder_is_refused(folder):
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(folder("x", "a.png") / "a.png")
