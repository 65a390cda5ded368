"""Which images of two folders belong together."""

from pathlib import Path

import numpy as np
import pytest

from stream_pieces import ListSink, copying_fuser, number_of, numbered
from tcmoa_runtime import InputError, Stream
from tcmoa_runtime.images import write_image
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.sources.matching import ListedImages, match_images, natural_key, numbers_in_names


def listed(name, stems):
    paths = [Path(name, f"{stem}.png") for stem in sorted(stems, key=natural_key)]
    return ListedImages(name, paths, numbers_in_names(paths))


def matched(x, y):
    matching = match_images(listed("x", x), listed("y", y))
    return None if matching is None else (list(matching.x), list(matching.y), matching.message)


def test_numbers_in_names():
    for stems, numbers in {
        ("f_1", "f_2", "f_10"): [1, 2, 10],
        ("2024_1", "2024_3"): [1, 3],
        ("7",): [7],
        ("a1", "b2"): None,
        ("1_5", "2_6"): None,
        ("1", "01"): None,
        ("a", "b"): None,
        ("a",): None,
    }.items():
        assert numbers_in_names([Path(f"{stem}.png") for stem in stems]) == numbers


def test_equal_names_belong_together():
    assert matched(["a", "b", "c"], ["a", "b", "c"]) == ([0, 1, 2], [0, 1, 2], None)
    assert matched(["a", "b", "c", "d"], ["a", "c", "d"]) == (
        [0, 1, 2, 3],
        [0, 2, 3],
        "paired by name; 1 image has no partner, the first is x/b.png",
    )


def test_equal_numbers_belong_together_if_more_are_equal_than_names():
    x, y = [f"vis_{i:03d}" for i in (1, 2, 3, 500)], [f"ir{i}" for i in (1, 3, 500, 501)]
    assert matched(x, y) == (
        [0, 1, 2, 3],
        [0, 2, 3, 4],
        "paired by number; 2 images have no partner, the first is x/vis_002.png",
    )
    assert matched([f"{i:03d}" for i in range(90, 101)], [str(i) for i in range(90, 101)])[2] is None


def test_equally_many_without_anything_in_common_are_left_in_their_order():
    assert matched(["a", "b"], ["c", "d"]) is None


@pytest.mark.parametrize(
    ("x", "y", "problem"),
    [
        (["a", "b"], ["c"], "2 and 1 images without a common name or number"),
        (["0", "1", "2"], ["1", "2", "3"], "images 0 to 2 and 1 to 3"),
        (["f_0", "f_1", "f_2"], ["g_1", "g_2", "g_3"], "images 0 to 2 and 1 to 3"),
    ],
)
def test_what_is_not_clear_is_refused(x, y, problem):
    with pytest.raises(InputError) as caught:
        match_images(listed("x", x), listed("y", y))
    remedy = "Rename them, or set images_by='place' to pair them in their order."
    assert str(caught.value) == f"x and y: {problem}; expected images of equal names or numbers. {remedy}"


def test_two_images_of_one_name_are_refused():
    doubled = ListedImages("x", [Path("x/a.jpg"), Path("x/a.png")], None)
    with pytest.raises(InputError, match="x: 2 images of the name a; expected one"):
        match_images(doubled, listed("y", ["a"]))


def folder(path, numbers, pattern="{:03d}"):
    path.mkdir()
    for number in numbers:
        write_image(path / f"{pattern.format(number)}.png", numbered(number))
    return path


def pairs_of(bundle, x, y, **options):
    sink = ListSink()
    Stream(copying_fuser(bundle), x, y, StreamOptions(**options), sinks=[sink]).run()
    return [
        (frame.pts, frame.status, number_of(frame.x.image), number_of(frame.y.image)) for frame in sink.frames
    ]


def test_after_a_missing_image_the_others_keep_their_partners(bundle, tmp_path, caplog):
    x = folder(tmp_path / "x", range(1, 7))
    y = folder(tmp_path / "y", [1, 2, 4, 5, 6])
    assert pairs_of(bundle, x, y) == [
        (0, "fused", 1, 1),
        (1, "fused", 2, 2),
        (2, "held-y", 3, 2),
        (3, "fused", 4, 4),
        (4, "fused", 5, 5),
        (5, "fused", 6, 6),
    ]
    assert [record.message for record in caplog.records] == [
        f"{x} and {y}: paired by name; 1 image has no partner, the first is {x}/003.png"
    ]
    assert [pair[2:] for pair in pairs_of(bundle, x, y, images_by="place", on_loss="hold")][2:4] == [
        (3, 4),
        (4, 5),
    ]


def test_folders_that_start_with_different_numbers_and_patterns_are_paired_by_number(bundle, tmp_path):
    x = folder(tmp_path / "x", [3, 4, 7, 900])
    y = folder(tmp_path / "y", [2, 3, 4, 900], "ir{}")
    expected = [(1, "fused", 3, 3), (2, "fused", 4, 4), (4, "fused", 900, 900)]
    for first, second in ((x, y), (f"{x}/%03d.png", f"{y}/ir%d.png"), (x, f"{y}/ir%d.png")):
        assert [pair for pair in pairs_of(bundle, first, second) if pair[1] == "fused"] == expected


def test_names_without_anything_in_common_are_paired_in_their_order_and_that_is_said(
    bundle, tmp_path, caplog
):
    x, y = folder(tmp_path / "x", [0, 1]), folder(tmp_path / "y", [20, 21])
    assert [pair[2:] for pair in pairs_of(bundle, x, y)] == [(0, 20), (1, 21)]
    assert f"{x} and {y} have no common names or numbers; paired in their order" in caplog.messages


def test_a_single_image_is_a_source_whatever_its_name(bundle, tmp_path):
    path = tmp_path / "my%20d 10:30.png"
    write_image(path, np.full((100, 130, 3), 7, np.uint8))
    assert len(pairs_of(bundle, path, path)) == 1
