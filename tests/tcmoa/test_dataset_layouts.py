"""Published data sets: the files of their pairs, their order, and the one-line message about other folders."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tcmoa.config import read_config
from tcmoa.data import read_pairs
from tcmoa.dataset_layouts import LAYOUTS, PairSource, find_dataset_pairs, find_layout
from tcmoa_runtime.errors import InputError


def image(path, level=100, size=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


def llvip(root):
    for split, names in (("train", ("010001", "010002")), ("test", ("190001",))):
        for name in names:
            image(root / "visible" / split / f"{name}.jpg", 200)
            image(root / "infrared" / split / f"{name}.jpg", 50)
    (root / "Annotations").mkdir()


def sice(root):
    for part, scene, levels in (
        ("Dataset_Part1", "2", (10, 90, 240)),
        ("Dataset_Part1", "10", (20, 60, 100, 250)),
    ):
        for number, level in enumerate(levels, 1):
            image(root / part / scene / f"{number}.JPG", level)
        image(root / part / "Label" / f"{scene}.JPG")
    for number in range(1, 11):
        image(root / "Dataset_Part2" / "126" / f"{number}.PNG", 20 * number)


def real_mff(root):
    for name in ("001", "002"):
        for side, level in (("A", 200), ("B", 50)):
            image(root / f"image{side}" / f"{name}_{side}.png", level)
        image(root / "Fusion" / f"{name}_F.png")


def mfi_whu(root):
    for name in ("1", "2"):
        for number, level in ((1, 200), (2, 50)):
            image(root / f"source_{number}" / f"{name}.jpg", level)
        image(root / "full_clear" / f"{name}.jpg")


def plain(root):
    for side, level in (("x", 200), ("y", 50)):
        image(root / f"a_{side}.png", level)


MAKERS = {"pairs": plain, "llvip": llvip, "sice": sice, "realmff": real_mff, "mfi-whu": mfi_whu}


def test_every_layout_has_a_maker_in_this_test():
    assert MAKERS.keys() == LAYOUTS.keys()


@pytest.fixture(params=MAKERS)
def made(request, tmp_path):
    """A small tree of a layout, and the layout's name."""
    MAKERS[request.param](tmp_path)
    return tmp_path, request.param


def test_a_layout_is_recognized(made):
    root, name = made
    assert find_layout(root) == name
    assert find_dataset_pairs(PairSource(root)) == find_dataset_pairs(PairSource(root, layout=name))


def test_x_is_the_first_role_of_its_task(made):
    """The trees hold bright x and dark y."""
    root, _ = made
    for pair in read_pairs(root):
        assert pair.x.mean() > pair.y.mean()


def test_swap_exchanges_the_sources(made):
    root, name = made
    straight, swapped = find_dataset_pairs(PairSource(root)), find_dataset_pairs(PairSource(root, swap=True))
    assert [(p.x, p.y) for p in swapped] == [(p.y, p.x) for p in straight]
    assert all(
        pair.x.mean() < pair.y.mean() for pair in read_pairs((PairSource(root, layout=name, swap=True),))
    )


def test_llvip_has_two_splits(tmp_path):
    llvip(tmp_path)
    assert [pair.name for pair in find_dataset_pairs(PairSource(tmp_path))] == ["010001", "010002"]
    (pair,) = find_dataset_pairs(PairSource(tmp_path, split="test"))
    assert pair.x == tmp_path / "visible" / "test" / "190001.jpg"
    assert pair.y == tmp_path / "infrared" / "test" / "190001.jpg"


def test_sice_takes_the_longest_against_the_shortest_exposure_of_each_scene(tmp_path):
    sice(tmp_path)
    pairs = {pair.name: (pair.x.name, pair.y.name) for pair in find_dataset_pairs(PairSource(tmp_path))}
    assert pairs == {
        "Dataset_Part1/2": ("3.JPG", "1.JPG"),
        "Dataset_Part1/10": ("4.JPG", "1.JPG"),
        "Dataset_Part2/126": ("10.PNG", "1.PNG"),  # numbers, not names, are compared
    }
    part = find_dataset_pairs(PairSource(tmp_path / "Dataset_Part1"))
    assert [pair.name for pair in part] == ["Dataset_Part1/2", "Dataset_Part1/10"]


def test_sice_unpacked_into_a_folder_of_its_own_name(tmp_path):
    sice(tmp_path / "Dataset_Part1")
    assert len(find_dataset_pairs(PairSource(tmp_path))) == 3


def test_in_sice_the_brighter_image_is_x_whatever_its_number(tmp_path):
    for number, level in ((1, 250), (2, 120), (3, 10)):
        image(tmp_path / "Dataset_Part1" / "1" / f"{number}.JPG", level)
    (pair,) = read_pairs(tmp_path)
    assert pair.x.mean() > pair.y.mean()


def test_a_sequence_of_one_image_is_refused(tmp_path):
    image(tmp_path / "Dataset_Part1" / "7" / "1.JPG")
    with pytest.raises(
        InputError, match=r"7: 1 numbered images; expected an exposure sequence of two or more"
    ):
        find_dataset_pairs(PairSource(tmp_path))


def test_two_folders_of_equal_names(tmp_path):
    image(tmp_path / "far" / "a.png", 200)
    image(tmp_path / "near" / "a.jpg", 50)
    (pair,) = read_pairs((PairSource(tmp_path / "far", y=tmp_path / "near"),))
    assert (pair.name, pair.x.mean() > pair.y.mean()) == ("a", True)


def test_several_sources_form_one_set(tmp_path):
    real_mff(tmp_path / "one")
    mfi_whu(tmp_path / "other")
    pairs = read_pairs((PairSource(tmp_path / "one"), PairSource(tmp_path / "other")))
    assert [pair.name for pair in pairs] == ["001", "002", "1", "2"]


def refusal(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_error_about_an_unknown_layout_lists_the_content_and_all_layouts(tmp_path):
    for name in "abcdefg":
        image(tmp_path / f"{name}.png")
    message = refusal(find_layout, tmp_path)
    assert message.startswith(
        f"{tmp_path}: no known layout of pairs, found a.png, b.png, c.png, d.png, e.png and 2 more;"
    )
    for name in LAYOUTS:
        assert f"({name})" in message
    (tmp_path / "empty").mkdir()
    assert "found nothing" in refusal(find_layout, tmp_path / "empty")
    assert refusal(find_layout, tmp_path / "none") == f"{tmp_path / 'none'}: no such folder of images"
    assert "no such folder of images" in refusal(
        find_dataset_pairs, PairSource(tmp_path / "none", layout="sice")
    )


@pytest.mark.parametrize("name", ["llvip", "sice", "realmff", "mfi-whu"])
def test_a_folder_of_another_layout_is_refused(tmp_path, name):
    plain(tmp_path)
    assert "no such folder of images" in (
        message := refusal(find_dataset_pairs, PairSource(tmp_path, layout=name))
    ) or ("no exposure sequences; expected Dataset_Part1/SCENE/1.JPG" in message)


@pytest.mark.parametrize(
    ("make", "gone", "message"),
    [
        (llvip, "infrared/train/010002.jpg", "no partner for 010002; expected equal names in"),
        (
            real_mff,
            "imageB/001_B.png",
            "no partner for 001; expected imageA/NAME_A.EXT and imageB/NAME_B.EXT",
        ),
        (mfi_whu, "source_1/2.jpg", "no partner for 2; expected source_1 and source_2 of equal names"),
    ],
)
def test_an_image_without_a_partner_is_named(tmp_path, make, gone, message):
    make(tmp_path)
    (tmp_path / gone).unlink()
    assert message in refusal(find_dataset_pairs, PairSource(tmp_path))


def configured(tmp_path, pairs):
    path = tmp_path / "run.toml"
    path.write_text(f"[pairs]\n{pairs}\n")
    return path


def test_pairs_of_a_configuration(tmp_path):
    config = read_config(
        configured(
            tmp_path,
            """
            vif = { layout = "llvip", path = "LLVIP", split = "test" }
            mef = { x = "over", y = "/data/under" }
            mff = [{ path = "RealMFF", swap = true }, "more"]
            """,
        )
    )
    assert config.pairs == {
        "vif": (PairSource(tmp_path / "LLVIP", layout="llvip", split="test"),),
        "mef": (PairSource(tmp_path / "over", y=Path("/data/under")),),
        "mff": (PairSource(tmp_path / "RealMFF", swap=True), PairSource(tmp_path / "more")),
    }
    assert config.to_dict()["pairs"]["mef"][0]["y"] == "/data/under"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ('vif = { layout = "lvip", path = "a" }', "layout is 'lvip'; expected one of auto, pairs, llvip"),
        ('vif = { layout = "llvip" }', "expected either 'path', or 'x' and 'y'"),
        ('vif = { x = "a" }', "expected either 'path', or 'x' and 'y'"),
        ('vif = { path = "a", x = "a", y = "b" }', "expected either 'path', or 'x' and 'y'"),
        ('vif = { path = "a", y = "b" }', "expected either 'path', or 'x' and 'y'"),
        ('vif = { x = "a", y = "b", layout = "llvip" }', "without 'layout'"),
        ('vif = { folder = "a" }', "unknown key 'folder'; expected one of layout, path, split, swap, x, y"),
        ("vif = { path = 3 }", "'path' is 3"),
        ('vif = { path = "a", swap = "yes" }', "'swap' is 'yes'"),
        ("vif = [3]", "3 is neither a folder nor a table"),
        ("vif = []", "[pairs] of vif is an empty list"),
    ],
)
def test_an_invalid_source_is_named(tmp_path, pairs, message):
    path = configured(tmp_path, pairs)
    found = refusal(read_config, path)
    assert found.startswith(str(path))
    assert message in found
    assert "vif" in found
