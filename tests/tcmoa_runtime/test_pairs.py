"""Finding pairs of images in one folder or two, and reading them."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.images import stretch_to_uint8, write_image
from tcmoa_runtime.options.pairs import PairOptions
from tcmoa_runtime.pairs import PairPaths, find_pairs, find_source_pairs, read_frame_pair, read_pair
from tcmoa_runtime.size_errors import SourceSizesError


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


TWO = "the same names in both folders, or NAME_x.EXT and NAME_y.EXT"
SAY = (
    "Say how they are named, e.g. x_pattern='{}' y_pattern='{}', or list them in a CSV file with the columns x,y "
    "and give it as pairs."
)
DEFAULT = SAY.format("VIS{id}.png", "IR{id}.png")


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        find_pairs(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("x_files", "y_files", "held", "remedy"),
    [
        ([], [], "x holds no images, and y no images", DEFAULT),
        (["a.png"], [], "x holds a.png, and y no images", DEFAULT),
        (["a.png"], ["b.png"], "x holds a.png, and y b.png; the nearest names are a.png and b.png", DEFAULT),
        (
            ["VIS1.png", "VIS2.png", "VIS3.png", "VIS10.png"],
            ["IR1.jpg", "IR2.jpg", "IR3.jpg", "IR10.jpg"],
            "x holds VIS1.png, VIS10.png, VIS2.png and 1 more, and y IR1.jpg, IR10.jpg, IR2.jpg and 1 more; "
            "the nearest names are VIS10.png and IR10.jpg",
            SAY.format("VIS{id}.png", "IR{id}.jpg"),
        ),
        (
            ["010_visible.png", "011_visible.png"],
            ["010_thermal.png", "011_thermal.png"],
            "x holds 010_visible.png, 011_visible.png, and y 010_thermal.png, 011_thermal.png; "
            "the nearest names are 010_visible.png and 010_thermal.png",
            SAY.format("{id}_visible.png", "{id}_thermal.png"),
        ),
    ],
)
def test_two_folders_without_a_pair_say_what_they_hold(x_files, y_files, held, remedy, folder):
    x, y = folder("x", *x_files), folder("y", *y_files)
    held = held.replace("x holds", f"{x} holds", 1).replace("and y ", f"and {y} ", 1)
    assert refused(x, y) == f"{x} and {y}: no pair of images; expected {TWO}, but {held}. {remedy}"


RENAME = "Rename the files of one source, so that equal names are spelled equally."


@pytest.mark.parametrize(
    ("x_file", "y_file", "reason"),
    [
        ("caf\u00e9.png", "cafe\u0301.png", "Unicode normalization (NFC and NFD)"),
        ("cafe\u0301.png", "caf\u00e9.png", "Unicode normalization (NFD and NFC)"),
        ("Night.png", "night.png", "upper and lower case"),
    ],
)
@pytest.mark.parametrize("others", [(), ("a.png",)], ids=["no pair", "one pair"])
def test_names_that_differ_in_normalization_or_case_only_are_told_apart(
    x_file, y_file, reason, others, folder
):
    x, y = folder("x", x_file, *others), folder("y", y_file, *others)
    problem = (
        f"no partner for {', '.join(sorted((x_file[:-4], y_file[:-4])))}" if others else "no pair of images"
    )
    differ = f"{x_file} of x and {y_file} of y differ only in {reason}"
    assert refused(x, y) == f"{x} and {y}: {problem}; expected {TWO}, but {differ}. {RENAME}"


@pytest.mark.parametrize(
    ("x_files", "y_files", "problem"),
    [
        (
            ["a.png", "b.png"],
            ["a.png"],
            f"no partner for b; expected {TWO}; the name nearest to b.png is a.png",
        ),
        (
            ["a.png"],
            ["a.png", "b.png"],
            f"no partner for b; expected {TWO}; the name nearest to b.png is a.png",
        ),
        (
            ["a.png", *(f"{c}.png" for c in "fedcb")],
            ["a.png"],
            f"no partner for b, c, d and 2 more; expected {TWO}; the name nearest to b.png is a.png",
        ),
        (
            ["a.png", "a.jpg"],
            ["a.png"],
            "a.jpg and a.png belong to the same pair; expected one image of each name. Keep one of them.",
        ),
        (
            ["a.png", "a_x.png"],
            ["a.png"],
            "a.png and a_x.png belong to the same pair; expected one image of each name",
        ),
    ],
)
def test_two_folders_that_do_not_match_are_refused(folder, x_files, y_files, problem):
    message = refused(folder("x", *x_files), folder("y", *y_files))
    assert "\n" not in message
    assert f": {problem}" in message


def test_names_of_one_folder_that_differ_in_normalization_or_case_are_pairs_of_their_own(folder):
    names = ["caf\u00e9.png", "cafe\u0301.png", "Cafe\u0301.png"]
    assert len(found(folder("x", *names), folder("y", *names))) == 3


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            ["a.png", "b.png"],
            "no pair of images; expected NAME_x.EXT and NAME_y.EXT, but it holds a.png, b.png; "
            f"the nearest names are a.png and b.png. {DEFAULT}",
        ),
        (["a_x.png"], "no pair of images; expected NAME_x.EXT and NAME_y.EXT, but it holds a_x.png. "),
        (
            ["a_x.png", "a_y.png", "b_y.png"],
            "no partner for b; expected NAME_x.EXT and NAME_y.EXT; the name nearest to",
        ),
        (["a_x.png", "a_x.tif", "a_y.png"], "a_x.png and a_x.tif belong to the same pair"),
    ],
)
def test_one_folder_that_does_not_match_is_refused(folder, files, problem):
    both = folder("both", *files)
    assert refused(both).startswith(f"{both}: {problem}")


@pytest.mark.parametrize(
    ("x_pattern", "y_pattern", "files", "names"),
    [
        ("VIS{id}.png", "IR{id}.png", ["VIS1.png", "IR1.png", "VIS2.png", "IR2.png", "VISn.jpg"], ["1", "2"]),
        ("VIS{id}", "IR{id}", ["VIS1.png", "IR1.jpg"], ["1"]),
        (
            "{id}/VIS.*",
            "{id}/IR.*",
            ["bunker/VIS.png", "bunker/IR.bmp", "tree/VIS.png", "tree/IR.png"],
            ["bunker", "tree"],
        ),
        (
            "{id}/{id}_A.jpg",
            "{id}/{id}_B.jpg",
            ["arno/arno_A.jpg", "arno/arno_B.jpg", "arno/x_A.jpg"],
            ["arno"],
        ),
        (
            "{set}/visible/{id}.jpg",
            "{set}/lwir/{id}.jpg",
            ["set00/visible/I1.jpg", "set00/lwir/I1.jpg", "set01/visible/I1.jpg", "set01/lwir/I1.jpg"],
            ["I1-set00", "I1-set01"],
        ),
        ("*_{id}_vis.png", "*_{id}_ir.png", ["cam1_7_vis.png", "cam2_7_ir.png"], ["7"]),
        ("a+({id}).png", "[b]{id}.png", ["a+(1).png", "[b]1.png"], ["1"]),
    ],
)
def test_patterns_pair_the_names_of_real_data_sets(x_pattern, y_pattern, files, names, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    pairs = find_pairs(tmp_path, x_pattern=x_pattern, y_pattern=y_pattern)
    assert [pair.name for pair in pairs] == names
    assert {path.relative_to(tmp_path).as_posix() for pair in pairs for path in (pair.x, pair.y)} <= set(
        files
    )


def test_patterns_match_in_a_folder_each(folder):
    x, y = folder("x", "VIS1.png"), folder("y", "IR1.png")
    (pair,) = find_pairs(x, y, x_pattern="VIS{id}.png", y_pattern="IR{id}.png")
    assert pair == PairPaths("1", x / "VIS1.png", y / "IR1.png")


@pytest.mark.parametrize(
    ("x_pattern", "y_pattern", "message"),
    [
        (
            "VIS{id}.png",
            None,
            "x_pattern: given alone; expected a pattern for each of the two sources. Set y_pattern too.",
        ),
        (
            None,
            "IR{id}.png",
            "y_pattern: given alone; expected a pattern for each of the two sources. Set x_pattern too.",
        ),
        ("VIS.png", "IR{id}.png", "x_pattern: 'VIS.png'; expected a file name with {id}, e.g. 'VIS{id}.png'"),
        (
            "VIS{id}.png",
            "IR{}.png",
            "y_pattern: 'IR{}.png'; expected a file name with {id}, e.g. 'VIS{id}.png'",
        ),
        (
            "VIS{id}.png",
            "{set}/{id}.png",
            "y_pattern: '{set}/{id}.png'; expected the fields of the other pattern, {id}",
        ),
        (
            "../{id}.png",
            "b{id}.png",
            "x_pattern: '../{id}.png'; expected a path below the folder of the images, without . and ..",
        ),
        (
            "/{id}.png",
            "b{id}.png",
            "x_pattern: '/{id}.png'; expected a path below the folder of the images, without . and ..",
        ),
        (
            "a{id}.png",
            "b{id}.png",
            "{folder}: no pair of images; expected files that match 'a{id}.png' and 'b{id}.png', "
            "but it holds VIS1.png, IR1.png",
        ),
        (
            "*{id}.png",
            "IR{id}.png",
            "{folder}: IR1.png and VIS1.png belong to the same pair; expected one image of each name",
        ),
    ],
)
def test_wrong_patterns_are_refused(x_pattern, y_pattern, message, folder):
    both = folder("both", "VIS1.png", "IR1.png")
    expected = message.replace("{folder}", str(both)).replace("VIS1.png, IR1.png", "IR1.png, VIS1.png")
    assert refused(both, x_pattern=x_pattern, y_pattern=y_pattern).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y\na.png,b.png\n", [("a", "a.png", "b.png")]),
        ("a.png,b.png\n\nc_x.png,d.png\n", [("a", "a.png", "b.png"), ("c", "c_x.png", "d.png")]),
        ("\ufeffname,Y,X\nnight,ir/1.png,vis/1.png\n", [("night", "vis/1.png", "ir/1.png")]),
        ("a.png;b.png;n\n", [("n", "a.png", "b.png")]),
        ("x\ty\na.png\tb.png\n", [("a", "a.png", "b.png")]),
        ('"a,1.png","b ""1"".png"\r\n', [("a,1", "a,1.png", 'b "1".png')]),
        (
            "one/VIS.png,one/IR.png\ntwo/VIS.png,two/IR.png",
            [("one-VIS", "one/VIS.png", "one/IR.png"), ("two-VIS", "two/VIS.png", "two/IR.png")],
        ),
        ("x,y,split\n1.png,2.png,train\n", [("1", "1.png", "2.png")]),
    ],
)
def test_a_table_lists_pairs_relative_to_itself(text, expected, tmp_path):
    (tmp_path / "pairs.csv").write_bytes(text.encode())
    pairs = [
        (p.name, p.x.relative_to(tmp_path).as_posix(), p.y.relative_to(tmp_path).as_posix())
        for p in find_pairs(tmp_path / "pairs.csv")
    ]
    assert pairs == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": no pairs; expected rows of x,y or x,y,name"),
        (b"x,y\n", ": no pairs; expected rows of x,y or x,y,name"),
        (b"a.png\n", ", line 1: 1 columns; expected x,y or x,y,name"),
        (b"x,y\na.png,b.png,c,d\n", ", line 2: 4 columns; expected x,y or x,y,name"),
        (b"a.png,\n", ", line 1: no path for y; expected two paths"),
        (
            b"a.png,b.png,../../up\n",
            ", line 1: the name '../../up'; expected a file name without an extension",
        ),
        (b"a.png,b.png," + b"n" * 201, ", line 1: a name of 201 characters; expected at most 200 bytes"),
        (
            b"a.png,b.png,n\nc.png,d.png,n\n",
            ", line 2: the name 'n' is that of line 1 too; expected another one. Give each pair "
            "a name in a third column.",
        ),
        (b"a\xff.png,b.png", ": no UTF-8 text at byte 1; expected a CSV file"),
        (b'"a.png,b.png', ", line 1: unexpected end of data; expected a row of x,y or x,y,name"),
        (b"a\0.png,b.png", ", line 1: a path with a NUL character; expected two paths"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(content, message, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_bytes(content)
    assert refused(table) == f"{table}{message}"


def test_a_table_that_is_missing_or_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert refused(tmp_path / "none.csv") == f"{tmp_path}/none.csv: cannot be read: No such file or directory"
    assert (
        refused(tmp_path / "pipe.csv")
        == f"{tmp_path}/pipe.csv: cannot be read: a named pipe; expected a regular file"
    )
    assert "none.csv: a table of pairs; expected a folder where patterns are given. Leave" in refused(
        tmp_path / "none.csv", x_pattern="a{id}", y_pattern="b{id}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "source pairs: none given; expected a folder, a CSV file or two folders. Set pairs, or x and y.",
        ),
        (
            {"x": Path("x")},
            "source pairs: 1 of three options given; expected one folder or CSV file, or two folders. Set pairs, "
            "or x and y, instead of x.",
        ),
        (
            {"pairs": Path("p"), "x": Path("x"), "y": Path("y")},
            "source pairs: 3 of three options given; expected one folder or CSV file, or two folders. Set pairs, "
            "or x and y, instead of pairs and x and y.",
        ),
        (
            {"pairs": Path("p"), "x_pattern": "a{id}"},
            "x_pattern: given alone; expected a pattern for each of the two sources. Set y_pattern too.",
        ),
    ],
)
def test_options_that_do_not_name_pairs_in_one_way_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        find_source_pairs(PairOptions(**options))
    assert str(caught.value) == message


def test_options_name_a_folder_two_folders_or_patterns(folder):
    x, y = folder("x", "V1.png"), folder("y", "I1.png")
    both = folder("both", "a_x.png", "a_y.png")
    assert not PairOptions().has_pairs
    assert find_source_pairs(PairOptions(pairs=both)) == find_pairs(both)
    patterns = {"x_pattern": "V{id}.png", "y_pattern": "I{id}.png"}
    assert find_source_pairs(PairOptions(x=x, y=y, **patterns)) == [
        PairPaths("1", x / "V1.png", y / "I1.png")
    ]


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
    with pytest.raises(SourceSizesError) as caught:
        read(paths)
    assert (caught.value.x_size, caught.value.y_size) == ((100, 130), (99, 130))
    sizes = f"x is 130x100 and y ({paths.y}) 130x99"
    assert str(caught.value) == f"{paths.x}: {sizes}; expected two registered images of one size"


@pytest.mark.parametrize("read", [read_pair, read_frame_pair])
def test_a_pair_with_an_unreadable_file_names_the_file(read, pair_files):
    paths, *_ = pair_files()
    paths.y.write_bytes(b"text")
    with pytest.raises(InputError, match="not a readable image") as caught:
        read(paths)
    assert caught.value.subject == str(paths.y)
