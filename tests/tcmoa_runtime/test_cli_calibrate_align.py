"""`tcmoa calibrate align`: what it prints and writes, and how it ends."""

import re

import cv2
import numpy as np
import pytest

from tcmoa_export.photographs import PHOTOGRAPHS, make_pair
from tcmoa_runtime import Bundle
from tcmoa_runtime.images import read_image, write_image
from tcmoa_runtime.install import install_command

SIZE = (100, 130)
SHIFT = (6, -4)
"""Pixels right and down at which y has what x has."""


@pytest.fixture(autouse=True)
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def write_pairs(folder, right=0, down=0):
    folder.mkdir()
    h, w = SIZE
    for number in range(5):
        pair = make_pair("vif", PHOTOGRAPHS[number % 3], (h + 40, w + 40))
        x, y = (frame[:, ::-1] if number >= 3 else frame for frame in (pair.x, pair.y))
        write_image(folder / f"{number}_x.png", x[20 : 20 + h, 20 : 20 + w])
        write_image(folder / f"{number}_y.png", y[20 - down : 20 - down + h, 20 - right : 20 - right + w])
    return folder


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("shifted") / "pairs", *SHIFT)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("straight") / "pairs")


@pytest.fixture
def align(tcmoa, vif, tmp_path):
    """Run the command; the new bundle is `new`."""
    return lambda pairs, *arguments, bundle=vif: tcmoa(
        *("calibrate", "align", bundle, "--pairs", pairs, "--out", tmp_path / "new", *arguments)
    )


def test_json_reports_the_alignment_that_the_bundle_has(align, shifted, tmp_path, vif, tcmoa, sources):
    preview = tmp_path / "preview.png"
    outcome = align(shifted, "--json", "--preview", preview)
    assert outcome.code == 0
    result = outcome.json
    assert result["bundle"] == str(tmp_path / "new")
    assert (result["source"], result["model"], result["pairs"], result["seed"]) == ("y", "translation", 5, 0)
    np.testing.assert_allclose(result["matrix"], [[1, 0, SHIFT[0]], [0, 1, SHIFT[1]], [0, 0, 1]], atol=0.15)
    assert result["shift_px"] == pytest.approx(np.hypot(*SHIFT), abs=0.15)
    assert result["residual_px"] < 0.5
    assert result["score_after"] > result["score_before"] + 0.1
    assert (result["already_aligned"], result["skipped"]) == (False, [])
    assert {"identity", "homography"} < set(result["scores"])
    assert outcome.err.startswith("align: reading pairs\n")
    new = Bundle.open(tmp_path / "new")
    assert new.alignment.to_json() == {k: result[k] for k in new.alignment.to_json()}
    assert new.files == Bundle.open(vif).files
    assert read_image(preview).shape == (200, 264, 3)
    assert tcmoa("fuse", tmp_path / "new", *sources, "-o", tmp_path / "fused.png").code == 0


def test_the_table_reports_the_alignment(align, shifted, tmp_path):
    outcome = align(shifted, "--model", "translation", "--move", "x", "--max-pairs", 4, "--seed", 3)
    assert outcome.code == 0
    labels = [line.split("  ")[0] for line in outcome.out.splitlines()]
    assert labels == ["bundle", "moves", "uncertainty", "correlation", "models", "pairs"]
    assert re.search(r"moves        x by 7\.[12]\d px on average, translation\n", outcome.out)
    found = Bundle.open(tmp_path / "new").alignment
    assert (found.source, found.pairs, found.seed) == ("x", 4, 3)
    np.testing.assert_allclose(found.matrix[:2, 2], np.negative(SHIFT), atol=0.15)


def test_aligned_pairs_are_accepted_and_reported(align, straight, tmp_path):
    outcome = align(straight)
    assert outcome.code == 0
    assert "nothing: the pairs are aligned already" in outcome.out
    found = Bundle.open(tmp_path / "new").alignment
    assert found.model == "identity"
    np.testing.assert_array_equal(found.matrix, np.eye(3))


def test_two_folders_are_accepted_and_unusable_pairs_are_skipped(align, shifted, tcmoa, vif, tmp_path):
    for side in "xy":
        (tmp_path / side).mkdir()
        for number in range(5):
            data = (shifted / f"{number}_{side}.png").read_bytes()
            (tmp_path / side / f"{number}.png").write_bytes(data)
    write_image(tmp_path / "y" / "2.png", np.full((*SIZE, 3), 9, np.uint8))
    outcome = tcmoa(
        *("calibrate", "align", vif, "--x", tmp_path / "x", "--y", tmp_path / "y"),
        *("--model", "translation", "--out", tmp_path / "new"),
    )
    assert outcome.code == 0
    assert "4, 1 skipped" in outcome.out
    assert "tcmoa: note: skipped 2: y shows a single color" in outcome.err


def test_an_alignment_is_replaced_only_with_replace(align, shifted, straight, tmp_path, tcmoa):
    assert align(shifted, "--model", "translation").code == 0
    command = ("calibrate", "align", tmp_path / "new", "--pairs", straight, "--out", tmp_path / "newer")
    tcmoa(*command).assert_error(
        2, "the bundle has an alignment of y", "Replace the alignment with --replace, or"
    )
    assert not (tmp_path / "newer").exists()
    assert tcmoa(*command, "--replace", "--model", "translation").code == 0
    matrix = Bundle.open(tmp_path / "newer").alignment.matrix
    np.testing.assert_allclose(matrix, np.eye(3), atol=0.15)  # not composed with the alignment before


def test_noise_is_refused_and_nothing_is_written(align, tmp_path, tree):
    folder = tmp_path / "noise"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        for side in "xy":
            noise = cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 2)
            write_image(folder / f"{number}_{side}.png", noise)
    before = tree(tmp_path)
    outcome = align(folder, "--model", "translation", "--preview", tmp_path / "preview.png")
    assert (outcome.code, outcome.out) == (2, "")
    assert "tcmoa: error: pairs: gradient correlation of held-out pairs is" in outcome.err
    assert tree(tmp_path) == before


FAULTS = {
    "out": ((), "or replace the bundle with --overwrite"),
    "model": (("--model", "rigid"), "'rigid' is not one of 'auto', 'identity', 'translation', 'similarity'"),
    "move": (("--move", "z"), "'z' is not one of 'x', 'y'"),
    "preview": (("--preview", "picture.jpg"), "--preview: picture.jpg; expected the name of a .png file"),
    "preview folder": (("--preview", "nowhere/p.png"), "the folder nowhere does not exist"),
    "max pairs": (("--max-pairs", 3), "--max-pairs: 3; expected 4 or more"),
    "seed": (("--seed", -1), "--seed: -1; expected 0 or more"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_end_in_one_line(fault, align, shifted, vif, tmp_path, tree, tcmoa):
    arguments, words = FAULTS[fault]
    if fault == "out":
        arguments = ("--out", vif)
    before = tree(tmp_path)
    outcome = align(shifted, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (error,) = [line for line in outcome.err.splitlines() if line.startswith("tcmoa: error: ")]
    assert words in error
    assert tree(tmp_path) == before


def test_missing_folders_bundles_and_too_few_pairs(align, shifted, tcmoa, vif, tmp_path):
    align(tmp_path / "nowhere").assert_error(2, "nowhere: no such folder of images")
    outcome = align(shifted, bundle=tmp_path / "none")
    outcome.assert_error(2, "none: no such bundle")
    tcmoa("calibrate", "align", vif, "--out", tmp_path / "new").assert_error(
        2,
        "source pairs: none given; expected a folder, a CSV file or two folders. Set --pairs, or --x and --y.",
    )
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        for side in "xy":
            (few / f"{number}_{side}.png").write_bytes((shifted / f"{number}_{side}.png").read_bytes())
    outcome = align(few)
    assert (outcome.code, outcome.out) == (2, "")
    assert "pairs: 3 of 3 are usable; expected at least 4. Provide more pairs; 16 or more are" in outcome.err
    assert not (tmp_path / "new").exists()


def test_without_scipy_the_error_names_the_extra(fresh_python, vif, shifted, tmp_path):
    code = f"""
from tcmoa_runtime.cli import run
sys.exit(run(["calibrate", "align", {str(vif)!r}, "--pairs", {str(shifted)!r}, "--out", {str(tmp_path / "new")!r}]))
"""
    outcome = fresh_python(code, blocked=("scipy",))
    outcome.assert_error(
        3, "tcmoa calibrate align: the package scipy is not installed", install_command("calibration")
    )
