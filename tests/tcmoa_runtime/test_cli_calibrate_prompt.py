"""`tcmoa calibrate prompt`: what it prints and writes, and how it ends."""

import json
import shutil

import pytest

from evaluation_pieces import scene, write, write_pairs
from tcmoa_runtime import Bundle
from tcmoa_runtime.images import read_image
from tcmoa_runtime.install import install_command

FEW = ("--grid", 3, "--rounds", 0, "--threads", 1)
"""Fewer prompts than by default."""
GAINS = ("--objective", "SD")
"""An objective of which the micro model's fused images have more towards y, on all scenes."""


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs", "abcdef")


@pytest.fixture
def calibrate(tcmoa, vif, pairs, tmp_path):
    """Run the command on six pairs; the new bundle is `new`."""
    return lambda *arguments: tcmoa(
        *("calibrate", "prompt", vif, "--pairs", pairs, "--out", tmp_path / "new", *FEW, *arguments)
    )


def test_one_line_reports_the_prompt_that_the_bundle_has(calibrate, tcmoa, tmp_path, vif):
    outcome = calibrate(*GAINS)
    assert outcome.code == 0
    (line,) = outcome.out.splitlines()
    assert line.startswith(f"{tmp_path / 'new'}: alpha 0.5, beta -0.5 instead of alpha 1, beta 0; SD ")
    assert " on 2 held-out pairs, difference +" in line
    assert " ± " in line
    notes = outcome.err.splitlines()
    assert all(note.startswith("tcmoa: note: ") for note in notes)
    assert [word in outcome.err for word in ("--scale-range", "--shift-range", "not significant")] == [
        True
    ] * 3
    assert len(notes) == 3
    new = Bundle.open(tmp_path / "new")
    assert new.default_prompt == (0.5, -0.5)
    assert new.graph_name == Bundle.open(vif).graph_name
    shown = tcmoa("inspect", tmp_path / "new")
    assert (shown.code, shown.err) == (0, "")
    assert "alpha 0.5, beta -0.5 by default" in shown.out
    report = tcmoa("inspect", tmp_path / "new", "--json").json
    assert report["prompt_calibration"]["objective"] == "SD"


def test_fuse_uses_the_new_default(calibrate, tcmoa, vif, sources, tmp_path):
    assert calibrate(*GAINS).code == 0
    for bundle, name, options in (
        (tmp_path / "new", "new", ()),
        (vif, "asked", ("--prompt-scale", 0.5, "--prompt-shift", -0.5)),
        (vif, "old", ()),
    ):
        assert tcmoa("fuse", bundle, *sources, "-o", tmp_path / f"{name}.png", *options).code == 0
    new, asked, old = ((tmp_path / f"{name}.png").read_bytes() for name in ("new", "asked", "old"))
    assert new == asked
    assert new != old


def test_json_is_exactly_one_object(calibrate, tmp_path):
    report = calibrate(*GAINS, "--json", "--seed", 5, "--max-pairs", 5).json
    assert report["bundle"] == str(tmp_path / "new")
    assert report["skipped"] == []
    manifest = json.loads((tmp_path / "new" / "bundle.json").read_text())
    assert report["prompt_calibration"] == manifest["prompt_calibration"]
    assert report["prompt_default"] == manifest["prompt_default"]
    record = report["prompt_calibration"]
    assert (record["seed"], record["tried"]) == (5, 9)
    assert [len(record[kind]["pairs"]) for kind in ("fit", "held_out")] == [3, 2]
    assert len(report["surface"]) == 9
    best = max(report["surface"], key=lambda point: point["mean"])
    assert {"scale": best["scale"], "shift": best["shift"]} == report["prompt_default"]


def test_no_gain_is_one_line_and_no_bundle(calibrate, tcmoa, pairs, tmp_path):
    assert calibrate(*GAINS).code == 0
    picture = tmp_path / "surface.png"
    command = ("calibrate", "prompt", tmp_path / "new", "--pairs", pairs, "--out", tmp_path / "newer", *FEW)
    tcmoa(*command, *GAINS, "--surface", picture).assert_error(
        *(2, "the default prompt, alpha 0.5, beta -0.5, is the best of 9 on 4 pairs"),
        *("No bundle was written", f"{picture} shows the search"),
    )
    assert not (tmp_path / "newer").exists()
    assert read_image(picture).shape == (700, 920, 3)


def test_the_search_stays_in_the_ranges_and_the_picture_is_drawn(calibrate, tmp_path):
    outcome = calibrate(
        *GAINS,
        *("--scale-range", "0:1", "--shift-range=-0.2:0.3", "--rounds", 1, "--json"),
        *("--surface", tmp_path / "surface.png"),
    )
    assert outcome.code == 0
    points = outcome.json["surface"]
    assert {p["scale"] for p in points} >= {0, 0.5, 1}
    assert all(0 <= p["scale"] <= 1 and -0.2 <= p["shift"] <= 0.3 for p in points)
    assert (tmp_path / "surface.png").is_file()


def test_two_folders_are_accepted_and_unusable_pairs_are_skipped(tcmoa, vif, tmp_path):
    for number, name in enumerate("abcdef"):
        for which, image in zip("xy", scene(number), strict=True):
            write(tmp_path / which / f"{name}.png", image)
    (tmp_path / "x" / "c.png").write_bytes(b"no image")
    outcome = tcmoa(
        *("calibrate", "prompt", vif, "--x", tmp_path / "x", "--y", tmp_path / "y"),
        *("--out", tmp_path / "new", *FEW, *GAINS, "--json"),
    )
    assert outcome.code == 0
    record = outcome.json["prompt_calibration"]
    # The pairs are smaller than the bundle, so that each is one tile.
    used = [f"{name} at 0,0" for name in "abdef"]
    assert sorted(record["fit"]["pairs"] + record["held_out"]["pairs"]) == used
    assert len(outcome.json["skipped"]) == 1
    assert "tcmoa: note: skipped c: " in outcome.err


def test_an_existing_bundle_is_replaced_only_with_overwrite(calibrate, vif, tmp_path):
    shutil.copytree(vif, tmp_path / "new")
    calibrate(*GAINS).assert_error(2, "holds a bundle already", "--overwrite")
    assert Bundle.open(tmp_path / "new").manifest == Bundle.open(vif).manifest
    assert calibrate(*GAINS, "--overwrite").code == 0
    assert Bundle.open(tmp_path / "new").default_prompt == (0.5, -0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--objective", "Qxyz"], ["Qxyz", "expected some of SD"]),
        (["--objective", "Qabf;SSIM"], ["Qabf;SSIM", "a sum such as Qabf+0.5*SSIM"]),
        (["--scale-range", "1.5:0.5"], ["--scale-range: 1.5:0.5", "reversed"]),
        (["--scale-range", "0.5"], ["--scale-range: '0.5'", "LOW:HIGH"]),
        (["--scale-range", "0:1:2"], ["--scale-range: '0:1:2'", "LOW:HIGH"]),
        (["--shift-range", "a:b"], ["--shift-range: 'a'", "a number"]),
        (["--shift-range", ":1"], ["--shift-range: ''", "a number"]),
        (["--shift-range", "nan:1"], ["--shift-range: nan", "finite"]),
        (["--shift-range=-17:0"], ["--shift-range: -17:0", "-16:16"]),
        (["--grid", "1"], ["--grid: 1; expected 2 to 33"]),
        (["--rounds", "9"], ["--rounds: 9"]),
        (["--max-pairs", "3"], ["--max-pairs: 3", "4 or more"]),
        (["--seed", "-1"], ["--seed: -1"]),
        (["--backend", "magic"], ["magic", "onnxruntime"]),
        (["--threads", "0"], ["--threads: 0"]),
        (["--surface", "picture.txt"], ["--surface: picture.txt", ".png"]),
        (["--surface", "nowhere/picture.png"], ["nowhere does not exist"]),
        (
            ["--x", "."],
            [
                "2 of three options given; expected one folder or CSV file, or two folders. Set --pairs, or --x and --y"
            ],
        ),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(arguments, words, calibrate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calibrate(*arguments).assert_error(2, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


def test_too_few_pairs_no_pairs_and_no_bundle(tcmoa, vif, tmp_path):
    few = write_pairs(tmp_path / "few", "abc")
    command = ("calibrate", "prompt", vif, "--out", tmp_path / "new")
    tcmoa(*command, "--pairs", few).assert_error(2, "3 of 3 are usable", "at least 4")
    tcmoa(*command, "--pairs", tmp_path / "nowhere").assert_error(2, "nowhere: no such folder")
    tcmoa(*command).assert_error(2, "source pairs: none given; expected a folder, a CSV file or two folders.")
    below_a_file = (*command[:-1], few / "a_x.png" / "new")
    tcmoa(*below_a_file, "--pairs", few).assert_error(2, "a_x.png is a file; expected a folder")
    tcmoa("calibrate", "prompt", few, "--pairs", few, "--out", tmp_path / "new").assert_error(
        2, "not a bundle; expected a bundle.json in it"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_a_damaged_graph_is_one_line(tcmoa, broken, pairs, tmp_path):
    with (broken / "fusion.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    command = ("calibrate", "prompt", broken, "--pairs", pairs, "--out", tmp_path / "new")
    tcmoa(*command).assert_error(2, "fusion.onnx", "SHA-256")
    assert not (tmp_path / "new").exists()


def test_a_missing_package_is_named_with_its_extra(fresh_python, vif, pairs, tmp_path):
    arguments = ["calibrate", "prompt", str(vif), "--pairs", str(pairs), "--out", str(tmp_path / "new")]
    code = f"from tcmoa_runtime.cli import run\nsys.exit(run({arguments!r}))"
    fresh_python(code, blocked={"scipy"}).assert_error(3, "scipy", install_command("calibration"))


def test_no_torch_or_onnx_is_needed(fresh_python, vif, pairs, tmp_path):
    options = [*map(str, FEW), *GAINS, "--json"]
    arguments = [
        "calibrate",
        "prompt",
        str(vif),
        "--pairs",
        str(pairs),
        "--out",
        str(tmp_path / "new"),
        *options,
    ]
    code = f"from tcmoa_runtime.cli import run\nsys.exit(run({arguments!r}))"
    outcome = fresh_python(code, blocked={"torch", "onnx", "tcmoa", "skimage"})
    assert outcome.code == 0
    assert outcome.json["prompt_default"] == {"scale": 0.5, "shift": -0.5}
