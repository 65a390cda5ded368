"""Builds that are refused before or after the builder ran: nothing is written."""

import sys

import cv2
import onnx
import pytest

import engine_pieces
from build_pieces import VERSION, assert_one_line, build_with, flip, names_in, rtx, truncate
from micro_model import frames
from tcmoa_export import BuildError, ParityError, parity
from tcmoa_export.engines import lowering
from tcmoa_export.engines.build import build_engine
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_export.engines.plan import plan_build
from tcmoa_runtime import BundleError, InputError, MissingError
from tcmoa_runtime.install import install_command
from tcmoa_runtime.options.build import BuildOptions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flavor": "trt"}, "flavor: 'trt'; expected one of tensorrt, rtx"),
        ({"precision": "int4"}, "precision: 'int4'; expected one of fp32, fp16, bf16"),
        ({"workspace_mb": 0}, "workspace_mb: 0; expected 1 or more"),
        ({"workspace_mb": -5}, "workspace_mb: -5; expected 1 or more"),
        ({"hardware_compatibility": "all"}, "hardware_compatibility: 'all'; expected one of none"),
        (
            {"hardware_compatibility": "ampere_plus"},
            "hardware_compatibility: 'ampere_plus'; expected none with flavor rtx",
        ),
        ({"flavor": "tensorrt", "targets": ("sm86",)}, "targets: sm86; expected none with flavor tensorrt"),
        ({"targets": ("sm75",)}, "targets: 'sm75'; expected sm80 or later"),
        (
            {"targets": ("sm86", "sm99")},
            f"targets: 'sm99'; expected targets of TensorRT-RTX {VERSION}: sm80, sm86, sm89, sm120",
        ),
        ({"targets": ("junk",)}, "targets: 'junk'"),
        ({"targets": ("",)}, "targets: ''"),
        ({"targets": ("none",)}, "targets: 'none'"),
        ({"targets": ("current",)}, "targets: 'current'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_is_written(bundle, no_build, options, words):
    with pytest.raises(InputError) as error:
        build_with(bundle, **options)
    assert_one_line(error, words)
    assert names_in(bundle) == []


def test_a_level_that_a_version_of_tensorrt_lacks_is_refused(bundle, monkeypatch):
    module, _ = engine_pieces.tensorrt_from(rtx, "10.7.0")
    del module.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(InputError) as error:
        build_with(bundle, flavor="tensorrt", hardware_compatibility="same_compute_capability")
    assert_one_line(
        error,
        "hardware_compatibility: 'same_compute_capability'; expected one of those of TensorRT 10.7.0: none, "
        "ampere_plus. Install a newer TensorRT, or choose one of these.",
    )
    assert names_in(bundle) == []


def test_a_workspace_that_is_too_small(bundle):
    with pytest.raises(BuildError) as error:
        build_with(bundle, precision="fp32", allow_unfused=True, workspace_mb=1)
    assert_one_line(error, f"tensorrt_rtx_bindings {VERSION} did not build the engine")
    assert_one_line(error, "Nothing was written. Allow more than workspace_mb=1")
    assert names_in(bundle) == []


def test_a_graph_that_the_parser_cannot_read(bundle):
    model = onnx.load(bundle.graph_path)
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(BuildError) as error:
        EngineBuilder(plan_build(BuildOptions(), "fp32")).build(model, "fusion.onnx")
    assert_one_line(error, "fusion.onnx: tensorrt_rtx_bindings", "cannot read the graph (")


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_bundle_is_refused_before_it_is_built(bundle, no_build, damage):
    damage(bundle.graph_path)
    with pytest.raises(BundleError, match=r"fusion\.onnx"):
        build_engine(bundle.path)
    assert names_in(bundle) == []


def test_without_the_package(bundle, monkeypatch):
    for name, flavor in (("tensorrt_rtx_bindings", "rtx"), ("tensorrt", "tensorrt")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingError) as error:
            build_with(bundle, flavor=flavor)
        assert_one_line(error, f"{name} cannot be imported", install_command(flavor))
    assert names_in(bundle) == []


def test_stripping_needs_a_gpu(bundle, no_gpu, no_build):
    with pytest.raises(MissingError) as error:
        build_with(bundle, strip=True)
    assert_one_line(error, "stripping weights needs a GPU", "no CUDA driver", "build without strip")
    assert names_in(bundle) == []


def test_a_lowered_graph_that_is_too_far_from_float32_is_not_built(bundle, monkeypatch, no_build):
    monkeypatch.setitem(parity.MIN_PSNR_DB, "fp16", 200.0)
    with pytest.raises(ParityError) as error:
        build_engine(bundle)
    assert_one_line(error, "the fp16 graph: PSNR to the model is", "expected at least 200 dB")
    assert names_in(bundle) == []


def test_own_pairs_replace_the_shipped_ones(bundle, tmp_path, monkeypatch):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for side, frame in zip("xy", frames(90, 80, 2), strict=True):
        cv2.imwrite(str(folder / f"night_{side}.png"), frame)
    pictures = []

    def recorded(*args):
        pictures.append(check_lowered(*args).pictures)

    check_lowered = lowering.check_lowered
    monkeypatch.setattr(lowering, "check_lowered", recorded)
    build_with(bundle, pairs=folder)
    build_with(bundle, rebuild=True)
    assert pictures[0] == ["night"]
    assert pictures[1] == ["astronaut"]
    with pytest.raises(InputError, match="no such"):
        build_with(bundle, pairs=tmp_path / "nowhere", rebuild=True)
