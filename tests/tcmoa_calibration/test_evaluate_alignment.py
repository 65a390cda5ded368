"""Evaluating a bundle that aligns its sources: all methods are measured on the aligned sources."""

import numpy as np
import pytest

from evaluation_pieces import SIZE, scene, write
from micro_model import scrambled
from tcmoa_calibration.evaluate import Method, evaluate_pairs
from tcmoa_calibration.evaluate.measure import read_sources
from tcmoa_calibration.evaluate.registration import find_registration
from tcmoa_export import export_bundle
from tcmoa_runtime import Fuser, InputError
from tcmoa_runtime.alignment import Alignment
from tcmoa_runtime.bundle_write import derive_bundle
from tcmoa_runtime.images import read_image, resize_frame, write_image
from tcmoa_runtime.options.evaluate import EvaluateOptions
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.pairs import PairPaths, find_pairs

OPTIONS = EvaluateOptions(metrics=("Qabf", "PSNR"), baselines=("average",), jobs=1)


def alignment(shift):
    rows = ((1.0, 0.0, shift), (0.0, 1.0, 2.0), (0.0, 0.0, 1.0))
    return {"alignment": Alignment("y", rows, "translation", 0.1, 0.1, 0.2, 4, 0).to_json()}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Paths of a bundle without alignment, and of two with different ones."""
    folder = tmp_path_factory.mktemp("bundles")
    plain = export_bundle(scrambled(), ExportOptions(task="vif", size=SIZE), folder / "plain")
    for shift in (3.0, 5.0):
        derive_bundle(plain, folder / f"moved {shift:g}", alignment(shift))
    return folder


@pytest.fixture
def pairs(tmp_path):
    """Folder of two pairs whose y has half the size of x."""
    for number in range(2):
        x, y = scene(number)
        write(tmp_path / "pairs" / f"{number}_x.png", x)
        write(tmp_path / "pairs" / f"{number}_y.png", resize_frame(y, (32, 40)))
    return tmp_path / "pairs"


def test_sources_of_two_sizes_are_evaluated_as_the_bundle_aligns_them(bundles, pairs, tmp_path):
    aligned = Method.bundle(bundles / "moved 3", "aligned")
    result = evaluate_pairs(pairs, [aligned], OPTIONS, out=tmp_path / "report")
    assert not result.failures
    registration = find_registration([aligned])
    fused = tmp_path / "fused"
    fused.mkdir()
    with Fuser.load(bundles / "moved 3", "onnxruntime", threads=1) as fuser:
        for pair in find_pairs(pairs):
            x, y = read_image(pair.x), read_image(pair.y)
            write_image(fused / f"{pair.name}.png", fuser(x, y))
            expected = fuser.aligned(resize_frame(y, SIZE)[..., None], "y")[..., 0]
            np.testing.assert_array_equal(read_sources(pair, registration).y, expected)
    again = evaluate_pairs(pairs, [aligned, Method.folder(fused)], OPTIONS, out=tmp_path / "report")
    assert (again.num_reused, again.num_measured) == (4, 2)
    assert again.methods[0].images == again.methods[1].images


def test_without_an_alignment_two_sizes_are_refused_pair_by_pair(bundles, pairs):
    result = evaluate_pairs(pairs, [Method.bundle(bundles / "plain")], OPTIONS)
    assert [failure.name for failure in result.failures] == ["0", "1"]
    assert "expected two registered images of one size" in str(result.failures[0].error)


def test_bundles_of_two_alignments_are_refused(bundles, pairs):
    methods = [Method.bundle(bundles / f"moved {shift}") for shift in (3, 5)]
    with pytest.raises(InputError) as caught:
        evaluate_pairs(pairs, methods, OPTIONS)
    assert str(caught.value) == (
        f"{bundles}/moved 5: aligns the sources otherwise than {bundles}/moved 3; expected one alignment "
        "in an evaluation. Evaluate the two bundles one after the other."
    )


def test_names_that_begin_like_formulas_are_text_in_the_table(tmp_path):
    x, y = scene(0)
    names = ["=1+1", "@SUM(A1)", "-2", "+3", "plain"]
    found = [
        PairPaths(name, write(tmp_path / f"{number}x.png", x), write(tmp_path / f"{number}y.png", y))
        for number, name in enumerate(names)
    ]
    evaluate_pairs(
        found, [], EvaluateOptions(metrics=("SD",), baselines=("average",), jobs=1), out=tmp_path / "out"
    )
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["'=1+1", "'@SUM(A1)", "'-2", "'+3", "plain"]
