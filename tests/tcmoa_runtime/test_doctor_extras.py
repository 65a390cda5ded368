"""Which extras for NVIDIA GPUs `tcmoa doctor` advises, for drivers, GPUs and packages that are made up."""

import ctypes
import tomllib
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tcmoa_runtime import install
from tcmoa_runtime.cli import doctor_extras
from tcmoa_runtime.cli.doctor_extras import GPU_EXTRAS, RTX_CAPABILITIES, describe_extras, examine_extras
from tcmoa_runtime.gpu.driver_probe import Driver, probe_driver

GEFORCE = Driver((13, 0), (("NVIDIA GeForce RTX 4090", "8.9"),))
HOPPER = Driver((13, 1), (("NVIDIA H100 80GB HBM3", "9.0"),))
GPU_ALONE = " && pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"


@pytest.fixture
def packages(monkeypatch):
    """Versions of the installed packages, none at first; the project is a wheel."""
    versions = {}
    for module in (doctor_extras, install):
        monkeypatch.setattr(module, "package_version", versions.get)
    monkeypatch.setattr(install, "_find_checkout", lambda: (None, False))
    return versions


def lines_of(driver):
    return describe_extras(driver, examine_extras(driver))


def line_of(name, driver):
    (line,) = (line for line in lines_of(driver) if line.startswith(f"extra {name} ("))
    return line


def test_without_a_driver_one_line_says_so(packages):
    (line,) = lines_of(None)
    assert line == (
        "extras for NVIDIA GPUs (rtx, tensorrt, gpu, tensorrt10, onnxruntime-rtx): no NVIDIA driver. Engines for other "
        "machines need rtx alone"
    )


def test_each_extra_that_fits_comes_with_its_command(packages):
    assert lines_of(GEFORCE) == [
        "extra rtx (engines for GeForce and RTX): fits. Run `pip install 'tcmoa[rtx]'`",
        "extra tensorrt (engines for data centers and workstations): fits. Run `pip install 'tcmoa[tensorrt]'`",
        f"extra gpu (the backend onnxruntime-cuda): fits. Run `pip install 'tcmoa[gpu]'{GPU_ALONE}`",
        "extra tensorrt10 (the backend onnxruntime-tensorrt): fits. Run `pip install 'tcmoa[gpu,tensorrt10]'"
        f"{GPU_ALONE}`",
        "extra onnxruntime-rtx (the backend onnxruntime-rtx): fits. Run `pip install 'tcmoa[onnxruntime-rtx]'`",
    ]


@pytest.mark.parametrize(
    ("name", "driver", "why"),
    [
        (
            "rtx",
            HOPPER,
            "NVIDIA H100 80GB HBM3 has compute capability 9.0; expected 8.0, 8.6, 8.9, 12.0, 12.1",
        ),
        (
            "tensorrt",
            Driver((13, 0), (("P", "6.1"),)),
            "P has compute capability 6.1; expected 7.5 or higher",
        ),
        ("gpu", Driver((13, 0), ()), "no GPU"),
        (
            "tensorrt",
            Driver((12, 4), GEFORCE.gpus),
            "the driver supports CUDA 12.4; expected 13.0. Install driver R580 or newer",
        ),
    ],
)
def test_an_extra_that_does_not_fit_says_why(name, driver, why, packages):
    assert line_of(name, driver).endswith(f"does not fit: {why}")


def test_one_gpu_of_several_is_enough(packages):
    assert "fits. Run" in line_of("rtx", Driver((13, 0), HOPPER.gpus + GEFORCE.gpus))


def test_what_is_installed_is_told_by_its_version(packages):
    packages.update({"tensorrt-cu13": "11.4.0.106", "cuda-bindings": "13.5.0", "onnxruntime-gpu": "1.31.1"})
    assert (
        line_of("tensorrt", HOPPER) == "extra tensorrt (engines for data centers and workstations): installed"
    )
    assert line_of("gpu", HOPPER).endswith(": installed")
    assert line_of("tensorrt10", HOPPER) == (
        "extra tensorrt10 (the backend onnxruntime-tensorrt): fits, but not together with tensorrt-cu13 11.4.0.106. In "
        f"another environment, run `pip install 'tcmoa[gpu,tensorrt10]'{GPU_ALONE}`"
    )
    packages["tensorrt-cu13"] = "10.16.1.11"
    assert line_of("tensorrt10", HOPPER).endswith(": installed")
    assert "fits, but not together with tensorrt-cu13 10.16.1.11." in line_of("tensorrt", HOPPER)
    assert "fits, but not together with onnxruntime-gpu 1.31.1." in line_of("onnxruntime-rtx", GEFORCE)


def test_json_has_the_same_facts(packages):
    (report,) = (r.to_json() for r in examine_extras(HOPPER) if r.extra.name == "rtx")
    assert report == {
        "purpose": "engines for GeForce and RTX",
        "fits": False,
        "why_not": "NVIDIA H100 80GB HBM3 has compute capability 9.0; expected 8.0, 8.6, 8.9, 12.0, 12.1",
        "installed": False,
        "conflicts": [],
        "command": "pip install 'tcmoa[rtx]'",
    }


def test_jetson_is_told_to_use_what_jetpack_brings(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_extras, "_JETSON", tmp_path)
    assert line_of("tensorrt", Driver((12, 6), (("Orin", "8.7"),))).endswith("of a Jetson come with JetPack")


def test_the_capabilities_are_those_of_the_installed_tensorrt_rtx():
    rtx = pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    known = {name for name in rtx.ComputeCapability.__members__ if name.startswith("SM")}
    assert {f"SM{capability.replace('.', '')}" for capability in RTX_CAPABILITIES} == known - {"SM75"}


def test_every_extra_is_one_of_the_project():
    assert {name for extra in GPU_EXTRAS for name in extra.extras} == {extra.name for extra in GPU_EXTRAS}


def test_the_two_versions_of_tensorrt_exclude_each_other():
    """Without a requirement of the same package in both, pip would let one overwrite the other's files."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    required = [
        next(
            Requirement(text).specifier
            for text in project["optional-dependencies"][extra]
            if Requirement(text).name == "tensorrt-cu13"
        )
        for extra in ("tensorrt", "tensorrt10")
    ]
    for version in ("10.13.2.6", "10.16.1.11", "11.0.0.114", "11.4.0.106"):
        assert sum(version in specifier for specifier in required) == 1


# --- the driver ---------------------------------------------------------------------------------------------------


def driver_library(*, version=13010, init=0, names=(b"GPU 0", b"GPU 1"), refuse=()):
    """Return a simulated libcuda."""

    def function(name, work):
        def call(*arguments):
            if name in refuse:
                return 999
            work(*arguments)
            return 0

        return call

    def set_(value):
        return lambda pointer, *_: setattr(pointer._obj, "value", value)

    library = types.SimpleNamespace(
        cuInit=lambda _: init,
        cuDriverGetVersion=function("cuDriverGetVersion", set_(version)),
        cuDeviceGetCount=function("cuDeviceGetCount", set_(len(names))),
        cuDeviceGet=function("cuDeviceGet", lambda pointer, index: setattr(pointer._obj, "value", index)),
        cuDeviceGetName=function(
            "cuDeviceGetName", lambda buffer, size, device: setattr(buffer, "value", names[device.value])
        ),
        cuDeviceGetAttribute=function(
            "cuDeviceGetAttribute",
            lambda pointer, number, _: setattr(pointer._obj, "value", {75: 12, 76: 1}[number]),
        ),
    )
    return lambda name: {"libcuda.so.1": library}[name]


def missing(name):
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (missing, None),
        (driver_library(refuse=("cuDriverGetVersion",)), None),
        (driver_library(), Driver((13, 1), (("GPU 0", "12.1"), ("GPU 1", "12.1")))),
        (driver_library(init=100), Driver((13, 1), ())),
        (driver_library(version=12040, refuse=("cuDeviceGetName",)), Driver((12, 4), ())),
    ],
    ids=["no library", "refuses", "two GPUs", "no GPU", "an odd GPU"],
)
def test_the_driver_is_asked_without_cuda_bindings(load, expected):
    assert probe_driver(load) == expected


def test_a_real_libcuda_has_these_functions():
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("no NVIDIA driver")
    for name in vars(driver_library()("libcuda.so.1")):
        assert getattr(library, name)
