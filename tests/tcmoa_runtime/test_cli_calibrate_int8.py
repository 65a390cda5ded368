"""`tcmoa calibrate int8` and `fp8`: what they print and write, and how they end."""

import cv2
import pytest

from calibration_pieces import export_micro, write_pairs
from tcmoa_runtime import Bundle


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return export_micro(tmp_path_factory.mktemp("cli") / "micro").path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("cli") / "pairs", 5)


FAST = ("--smoothing", "0.5", "--ranges", "max", "--min-psnr", "10")


def test_the_result_is_printed(tcmoa, micro, pairs, tmp_path):
    done = tcmoa("calibrate", "int8", micro, "--pairs", pairs, "--out", tmp_path / "out", *FAST)
    assert done.code == 0, done.err
    assert f"{tmp_path / 'out'}, 0." in done.out
    assert "60 linear layers, 20 of 20 half blocks\n" in done.out
    assert "smoothing 0.5, ranges max" in done.out
    assert " dB (worst pair " in done.out
    assert "3 for the ranges, 2 held out" in done.out
    assert Bundle.open(tmp_path / "out").precision == "int8"
    shown = tcmoa("inspect", tmp_path / "out")
    assert shown.code == 0
    assert "60 linear layers, smoothing 0.5, ranges max; " in shown.out
    assert " dB to float32 on 2 pairs" in shown.out


def test_json_and_the_curve(tcmoa, micro, pairs, tmp_path):
    done = tcmoa(
        "calibrate", "fp8", micro, "--pairs", pairs, "--out", tmp_path / "out", "--curve", tmp_path / "c.png",
        "--json", *FAST,
    )  # fmt: skip
    assert done.code == 0, done.err
    figures = done.json
    assert figures["psnr_db"] > 10
    assert figures["kept_float32"] == []
    assert len(figures["sensitivity"]) == figures["groups"]
    assert figures["curve"][0]["share"] == 1
    assert 0 < figures["size_ratio"] < 1
    assert cv2.imread(str(tmp_path / "c.png")).shape == (420, 680, 3)
    assert Bundle.open(tmp_path / "out").precision == "fp8"


def test_two_folders_of_sources(tcmoa, micro, pairs, tmp_path):
    for side in "xy":
        (tmp_path / side).mkdir()
        for path in pairs.glob(f"*_{side}.png"):
            (tmp_path / side / path.name.replace(f"_{side}", "")).write_bytes(path.read_bytes())
    done = tcmoa(
        "calibrate",
        "int8",
        micro,
        "--x",
        tmp_path / "x",
        "--y",
        tmp_path / "y",
        "--out",
        tmp_path / "new" / "out",  # in a folder that does not exist yet
        *FAST,
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (),
            [
                "source pairs: none given; expected a folder, a CSV file or two folders. Set --pairs, or --x and --y."
            ],
        ),
        (
            ("--x", "x"),
            [
                "source pairs: 1 of three options given; expected one folder",
                "Set --pairs, or --x and --y, instead of --x.",
            ],
        ),
        (("--pairs", "PAIRS", "--x", "x", "--y", "y"), ["3 of three options given; expected one folder"]),
        (("--pairs", "nowhere"), ["nowhere: no such folder of images"]),
        (("--pairs", "PAIRS", "--smoothing", "much"), ["--smoothing: 'much'", "or auto"]),
        (("--pairs", "PAIRS", "--smoothing", "1"), ["--smoothing: 1; expected from 0 (none) to below 1"]),
        (("--pairs", "PAIRS", "--smoothing", "nan"), ["--smoothing: 'nan'", "expected a number from 0"]),
        (("--pairs", "PAIRS", "--ranges", "best"), ["'best' is not one of 'auto', 'max'"]),
        (("--pairs", "PAIRS", "--max-pairs", "3"), ["--max-pairs: 3; expected 4 or more"]),
        (("--pairs", "PAIRS", "--curve", "c.jpg"), ["--curve: c.jpg", ".png"]),
        (("--pairs", "PAIRS", "--curve", "no/such/c.png"), ["no/such"]),
        (
            ("--pairs", "PAIRS", *FAST[:-1], "200"),
            ["expected at least 200 dB", "Relax --min-psnr. No bundle was written."],
        ),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(tcmoa, micro, pairs, tmp_path, arguments, words, tree):
    arguments = [pairs if a == "PAIRS" else a for a in arguments]
    done = tcmoa("calibrate", "int8", micro, "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert line.startswith("tcmoa: error: ")
    for word in words:
        assert word in line
    assert done.out == ""
    assert not (tmp_path / "out").exists()


def test_an_impossible_output_path_is_refused_first(tcmoa, micro, pairs, tmp_path):
    (tmp_path / "file").write_text("")
    done = tcmoa("calibrate", "int8", micro, "--pairs", pairs, "--out", tmp_path / "file" / "out")
    done.assert_error(2, "cannot be written", "file is a file; expected a folder")


def test_a_folder_without_a_bundle(tcmoa, pairs, tmp_path):
    tcmoa("calibrate", "int8", tmp_path, "--pairs", pairs, "--out", tmp_path / "o").assert_error(
        2, "not a bundle; expected a bundle.json in it"
    )


def test_the_help_lists_the_commands(tcmoa):
    done = tcmoa("calibrate", "--help")
    assert done.code == 0
    for name in ("int8", "fp8", "prompt", "align"):
        assert name in done.out
