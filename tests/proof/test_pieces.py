"""The other pieces of the proof: libraries that are needed, sources of packages, expectations of errors, the table."""

import shutil
import subprocess
import sys

import pytest

from proof.__main__ import main
from proof.driver_check import non_free_sources, run_expecting
from proof.elf import defined_functions, needed, soname
from proof.extras import allowed, oldest_and_newest, requirement, requirements_of
from proof.load_check import newer_functions
from proof.needed_check import consumers, match_libraries
from proof.report import Row, SkippedError, format_table
from proof.stubs import make_stubs
from proof.wheels import Wheels

TENSORRT_PROVIDER = {
    "libonnxruntime_providers_tensorrt.so": {
        "needed": ["libnvinfer.so.10", "libcudart.so.13", "libcuda.so.1", "libc.so.6"],
        "soname": None,
        "search_path": [],
    }
}
PLUGIN = {
    "libprovider.so": {
        "needed": ["libcudart.so.13"],
        "soname": "libprovider.so",
        "search_path": ["/usr/local"],
    },
    "libcudart.so.13.4.36": {"needed": ["libc.so.6"], "soname": "libcudart.so.13", "search_path": []},
}


def test_a_provider_of_another_major_version_than_is_installed_is_found():
    installed = {"tensorrt-cu13-libs": "11.4.0.106", "nvidia-cuda-runtime": "13.5.37"}
    assert match_libraries(TENSORRT_PROVIDER, installed)[1] == [
        "libonnxruntime_providers_tensorrt.so needs libnvinfer.so.10: tensorrt-cu13-libs 11.4.0.106 is installed; "
        "expected tensorrt-cu13-libs 10"
    ]
    found, missing = match_libraries(TENSORRT_PROVIDER, {**installed, "tensorrt-cu13-libs": "10.16.1.11"})
    assert missing == []
    assert found == [
        "libnvinfer.so.10 from tensorrt-cu13-libs 10.16.1.11",
        "libcudart.so.13 from nvidia-cuda-runtime 13.5.37",
        "libcuda.so.1 from the driver",
    ]


def test_a_library_that_a_package_carries_and_does_not_load_is_found():
    assert match_libraries(PLUGIN, {})[1] == [
        "libprovider.so needs libcudart.so.13: nvidia-cuda-runtime is not installed; expected nvidia-cuda-runtime 13"
    ]
    found, missing = match_libraries(PLUGIN, {}, {"libcudart.so.13"})
    assert (found, missing) == (
        ["libcudart.so.13 from libcudart.so.13.4.36 of the package, loaded first"],
        [],
    )


def test_an_unknown_library_is_found():
    objects = {"lib.so": {"needed": ["libnew.so.1"], "soname": None, "search_path": []}}
    assert match_libraries(objects, {})[1] == ["lib.so needs libnew.so.1: no known package has it"]


def test_the_extras_of_the_consumers_exist():
    for consumer in consumers():
        assert requirements_of(*consumer.extras), consumer


@pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("readelf")),
    reason="cc or readelf is absent; install gcc and binutils to run this",
)
def test_stubs_take_the_place_of_the_libraries_that_a_module_needs(tmp_path):
    real, module = tmp_path / "libnvinfer.so.10", tmp_path / "module.so"
    (tmp_path / "real.c").write_text("void *createInferBuilder_INTERNAL(void) { return 0; }\n")
    (tmp_path / "module.c").write_text(
        "void *createInferBuilder_INTERNAL(void);\nvoid *start(void) { return createInferBuilder_INTERNAL(); }\n"
    )
    shared = ["cc", "-shared", "-fPIC", "-Wl,--no-as-needed"]
    subprocess.run([*shared, f"-Wl,-soname,{real.name}", "-o", real, tmp_path / "real.c"], check=True)
    subprocess.run([*shared, "-o", module, tmp_path / "module.c", real], check=True)
    assert make_stubs(module, tmp_path / "stubs") == [real.name]
    stub = tmp_path / "stubs" / real.name
    assert (soname(stub), soname(module)) == (real.name, None)
    assert "createInferBuilder_INTERNAL" in defined_functions(stub)
    assert real.name in needed(module)
    assert newer_functions([module], stub) == []


def test_versions_of_a_range():
    specifier = requirement("rtx", "cuda-bindings").specifier
    versions = allowed(["14.0", "13.5.0", "13.0.3", "12.9.0"], specifier)
    assert "12.9.0" not in versions
    assert oldest_and_newest(["13.5.0", "13.1.0", "13.0.0"]) == ["13.0.0", "13.5.0"]
    assert oldest_and_newest(["1"]) == ["1"]
    assert oldest_and_newest([]) == []


def test_the_sources_of_packages_become_non_free(tmp_path):
    (tmp_path / "a.sources").write_text(
        "Types: deb\nURIs: http://host/debian\nSuites: x\nComponents: main contrib\n\n"
        "Types: deb\nURIs: http://host/node\nSuites: y\nComponents: main\n"
    )
    assert non_free_sources(tmp_path.glob("*.sources")) == (
        "Types: deb\nURIs: http://host/debian\nSuites: x\nComponents: non-free\n"
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; print('no device', file=sys.stderr); sys.exit(3)", "ok"),
        ("import sys; print('no device', file=sys.stderr); sys.exit(1)", "FAILED"),
        ("import sys; print('no device\\nmore', file=sys.stderr); sys.exit(3)", "FAILED"),
        ("import sys; print('no driver', file=sys.stderr); sys.exit(3)", "FAILED"),
    ],
)
def test_an_error_is_one_line_and_exit_code_3(tmp_path, code, status):
    assert run_expecting("command", [sys.executable, "-c", code], tmp_path, "^no device$").status == status


def test_the_table():
    rows = [Row("calls", "a 1.0", "ok", "3 uses"), Row("driver", "b", "FAILED", "first\nsecond")]
    assert format_table(rows).splitlines() == [
        "ok      calls   a 1.0  3 uses",
        "FAILED  driver  b      first",
        "                       second",
    ]


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("FAILED", 1)])
def test_the_exit_code_is_1_where_something_does_not_fit(tmp_path, monkeypatch, capsys, status, code):
    rows = [Row("calls", "package 1.0", status, "detail")]
    monkeypatch.setattr("proof.__main__.pieces", lambda *_: [("calls", "package", lambda: rows)])
    assert main(["--folder", str(tmp_path)]) == code
    assert f"{status}  calls  package 1.0  detail" in capsys.readouterr().out


def test_what_cannot_be_downloaded_is_skipped_with_the_reason(tmp_path, monkeypatch, capsys):
    def offline(self, package):
        raise SkippedError("no network", "a network")

    monkeypatch.setattr(Wheels, "versions", offline)
    assert main(["--folder", str(tmp_path), "--only", "calls"]) == 0
    output = capsys.readouterr().out
    assert "skipped" in output
    assert "no network; needs a network" in output
    assert "0 ok, 0 FAILED, 6 skipped" in output
    assert main(["--folder", str(tmp_path), "--only", "engines"]) == 0
    assert "no network; needs a network" in capsys.readouterr().out
