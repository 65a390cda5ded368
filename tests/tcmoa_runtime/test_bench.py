"""`tcmoa bench`: what it measures, and how `auto` uses the recorded pick. No time is asserted."""

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcmoa_runtime import Bundle, Fuser
from tcmoa_runtime.backends import pick as backends
from tcmoa_runtime.backends.pick import load_backend, read_pick, write_pick
from tcmoa_runtime.bench import measure as module
from tcmoa_runtime.bench.compare import BundleFacts
from tcmoa_runtime.bench.exactness import EQUAL_PSNR_DB, min_psnr_db
from tcmoa_runtime.bench.measure import BackendSpeed, BenchResult, measure_backends
from tcmoa_runtime.bundle_write import derive_bundle
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.machine import machine_id
from tcmoa_runtime.options.bench import BenchOptions

pytestmark = pytest.mark.usefixtures("no_openvino")


def speed(p50, spread=1.0):
    return BackendSpeed(10.0, 5.0, p50, p50 * 2, 100.0, 20, spread)


@pytest.fixture
def bundle(broken):
    """A writable copy of a bundle."""
    return Bundle.open(broken)


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tcmoa"


def test_peak_memory_does_not_include_the_parent_process():
    child = "from tcmoa_runtime.bench.worker import peak_mb; print(peak_mb())"
    parent = (
        "import subprocess, sys; held = bytearray(b'1') * 700_000_000; "
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True, close_fds=False)"
    )
    done = subprocess.run([sys.executable, "-c", parent, child], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 600


def test_every_backend_is_measured_in_its_own_process(bundle):
    ticks = []
    options = BenchOptions(backends=("onnxruntime", "tensorrt"), frames=7, threads=1)
    found = measure_backends(bundle, options, on_progress=lambda *t: ticks.append(t))
    figures = found.speeds["onnxruntime"]
    assert figures.frames == 7
    assert 0 < figures.p50_ms <= figures.p99_ms
    assert figures.first_ms > 0
    assert figures.load_ms > 10  # includes imports
    assert 20 < figures.peak_mb < 4000
    assert figures.spread >= 1
    assert ticks == [(i, 5) for i in range(1, 6)]
    assert list(found.failed) == ["tensorrt"]
    assert str(found.failed["tensorrt"]).startswith("tensorrt: ")
    assert found.fastest == "onnxruntime"
    json.dumps(found.to_json(), allow_nan=False)


def test_no_running_backend_and_wrong_options_are_errors(bundle):
    with pytest.raises(TcmoaError, match=r"no backend runs .*: tensorrt: "):
        measure_backends(bundle, BenchOptions(backends=("tensorrt",), frames=1))
    with pytest.raises(InputError, match="backends: 'nonsense'; expected one of onnxruntime"):
        BenchOptions(backends=("nonsense",), frames=1)
    with pytest.raises(InputError, match="frames: 0; expected 1 to"):
        BenchOptions(frames=0)
    with pytest.raises(InputError, match="min_psnr: 101 dB; expected 0 to 100 dB"):
        BenchOptions(min_psnr=101)


def test_a_process_that_dies_is_reported(bundle, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(TcmoaError, match="onnxruntime: its process ended"):
        measure_backends(bundle, BenchOptions(backends=("onnxruntime",), frames=1))


def test_only_exact_backends_count_as_fastest():
    found = BenchResult({"openvino-bf16": speed(1.0), "openvino": speed(3.0), "onnxruntime": speed(2.0)}, {})
    assert found.fastest == "onnxruntime"
    assert BenchResult({"openvino-bf16": speed(1.0)}, {}).fastest is None
    assert not speed(1.0, spread=1.5).is_steady


def test_a_backend_that_is_close_enough_to_float32_may_be_the_fastest(bundle):
    speeds = {"openvino-bf16": speed(1.0), "openvino": speed(3.0)}
    found = BenchResult(speeds, {}, {"openvino-bf16": 48.8}, min_psnr=45)
    assert (found.fastest, found.to_json()["psnr_db"]) == ("openvino-bf16", {"openvino-bf16": 48.8})
    assert BenchResult(speeds, {}, {"openvino-bf16": 44.9}, min_psnr=45).fastest == "openvino"
    assert BenchResult(speeds, {}, {"openvino-bf16": 99.0}).fastest == "openvino"
    path = write_pick(bundle, found.p50_ms, found.close_enough)
    assert read_pick(bundle) == "openvino-bf16"
    entry = json.loads(path.read_bytes())
    for psnr_db in ({}, None, 3, ["openvino-bf16 was not measured"]):
        path.write_text(json.dumps({**entry, "psnr_db": psnr_db}))
        assert read_pick(bundle) is None, psnr_db


def test_exactness_is_measured_only_where_it_is_needed(bundle, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "min_psnr_db", lambda *_, **__: asked.append(1) or 51.234)
    with_bf16, without = (BenchResult({name: speed(1.0)}, {}) for name in ("openvino-bf16", "openvino"))
    assert module.with_exactness(with_bf16, bundle, BenchOptions()) is with_bf16
    assert module.with_exactness(without, bundle, BenchOptions(min_psnr=45)) is without
    assert asked == []
    found = module.with_exactness(with_bf16, bundle, BenchOptions(min_psnr=45))
    assert (found.psnr_db, found.min_psnr, found.fastest) == ({"openvino-bf16": 51.23}, 45, "openvino-bf16")

    def fail(*_, **__):
        raise TcmoaError("no float32 here")

    monkeypatch.setattr(module, "min_psnr_db", fail)
    assert module.with_exactness(with_bf16, bundle, BenchOptions(min_psnr=45)).fastest is None


def test_exactness_is_the_lowest_psnr_over_the_shipped_pairs(bundle):
    assert min_psnr_db(bundle, "onnxruntime", "onnxruntime", threads=1) == EQUAL_PSNR_DB
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'tcmoa[openvino]'")
    from tcmoa_runtime.backends.openvino import _process_core  # one core in a process, see there

    assert min_psnr_db(bundle, "openvino", "onnxruntime", threads=1) > 50
    if "BF16" in _process_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert 20 < min_psnr_db(bundle, "openvino-bf16", threads=1) < EQUAL_PSNR_DB


def test_auto_takes_the_pick_for_this_machine_and_bundle(bundle):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'tcmoa[openvino]'")
    assert read_pick(bundle) is None
    with Fuser.load(bundle.path) as fuser:
        assert fuser.backend.name == "onnxruntime (CPU)"
    path = write_pick(bundle, BenchResult({"openvino": speed(1.0), "onnxruntime": speed(2.0)}, {}).p50_ms)
    assert read_pick(bundle) == "openvino"
    assert load_backend(bundle).name == "openvino (CPU)"
    assert load_backend(bundle, "onnxruntime").name == "onnxruntime (CPU)"
    entry = json.loads(path.read_bytes())
    for change in (
        {"machine": {**machine_id(), "cpu": "another"}},
        {"machine": {**machine_id(), "versions": {}}},
        {"graph": "0" * 64},
        {"backend": "openvino-bf16"},
        {"backend": 3},
    ):
        path.write_text(json.dumps({**entry, **change}))
        assert read_pick(bundle) is None, change
        assert load_backend(bundle).name == "onnxruntime (CPU)"
    for text in ("", "[]", "{", "null"):
        path.write_text(text)
        assert read_pick(bundle) is None


def test_a_pick_takes_precedence_over_engines_and_holds_for_derived_bundles(bundle, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(backends, "find_engines", lambda _: asked.append("engines") or [])
    write_pick(bundle, BenchResult({"onnxruntime": speed(1.0), "tensorrt": speed(2.0)}, {}).p50_ms)
    assert load_backend(bundle).name == "onnxruntime (CPU)"
    assert asked == []
    derived = derive_bundle(bundle, tmp_path / "derived", {"prompt_default": {"scale": 1.0, "shift": 0.5}})
    assert read_pick(derived) == "onnxruntime"


def test_auto_falls_back_when_the_picked_backend_is_missing(bundle, monkeypatch):
    path = write_pick(bundle, BenchResult({"tensorrt": speed(1.0)}, {}).p50_ms)
    assert read_pick(bundle) == "tensorrt"
    assert load_backend(bundle).name == "onnxruntime (CPU)"
    assert path.exists()


def test_a_pick_needs_an_exact_backend_and_a_private_folder(bundle, user_cache):
    with pytest.raises(TcmoaError, match="no backend to pick"):
        write_pick(bundle, BenchResult({"openvino-bf16": speed(1.0)}, {}).p50_ms)
    path = write_pick(bundle, {"onnxruntime": 1.0})
    assert path.parent == user_cache / "picks"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (bundle.path / "engines").exists()
    path.parent.chmod(0o770)
    problem = (
        f"{path.parent}: {{}}has mode 0770, so that others can write to it; expected a folder of your own that only "
        "you can write to"
    )
    with pytest.raises(InputError) as caught:
        write_pick(bundle, {"onnxruntime": 1.0})
    assert str(caught.value) == problem.format("cannot be written: ")
    with pytest.warns(RuntimeWarning) as warned:
        assert read_pick(bundle) is None
    assert [str(w.message) for w in warned] == [f"{problem.format('')}; picks in it are not used"]


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "link"])
def test_what_is_no_pick_is_ignored_and_not_waited_for(bundle, kind, tmp_path):
    path = write_pick(bundle, {"onnxruntime": 1.0})
    text = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(30 << 30)
    else:
        (tmp_path / "elsewhere").write_bytes(text)
        path.symlink_to(tmp_path / "elsewhere")
    assert read_pick(bundle) is None
    write_pick(bundle, {"onnxruntime": 1.0})
    assert read_pick(bundle) == "onnxruntime"


def test_a_pick_in_the_bundle_does_not_count(bundle):
    """Issue: a stranger's bundle chose the backend, and a named pipe there made loading wait for ever."""
    path = write_pick(bundle, {"openvino": 1.0})
    (bundle.path / "engines").mkdir()
    path.rename(bundle.path / "engines" / "pick.json")
    assert read_pick(bundle) is None


def test_workers_do_not_import_from_the_current_folder(bundle, tmp_path, monkeypatch):
    for name in ("hashlib.py", "random.py", "tcmoa_runtime.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert list(measure_backends(bundle, BenchOptions(backends=("onnxruntime",), frames=1)).speeds)
    assert not (tmp_path / "ran").exists()


def test_every_python_that_the_packages_start_ignores_the_current_folder():
    root = Path(__file__).parents[2]
    started = [
        line
        for folder in ("runtime", "calibration", "export", "tcmoa", "benchmarks")
        for path in (root / folder).rglob("*.py")
        for line in re.findall(r"\[\s*sys\.executable,.*", path.read_text(encoding="utf-8"))
    ]
    assert len(started) >= 4
    pip_and_pytest = [line for line in started if '"-P"' not in line]
    assert all('"pip"' in line or '"pytest"' in line for line in pip_and_pytest), pip_and_pytest


def test_the_command_prints_a_table_and_json(tcmoa, bundle):
    done = tcmoa(
        "bench", bundle.path, "--backend", "onnxruntime", "--frames", "3", "--threads", "1", "--pick"
    )
    assert done.code == 0, done.err
    header, row, picked = done.out.splitlines()
    assert header.split() == ["backend", "load", "first", "p50", "p99", "memory"]
    assert row.split()[0] == "onnxruntime"
    assert picked.startswith("picked: onnxruntime, for --backend auto on this machine")
    figures = tcmoa("bench", bundle.path, "--backend", "onnxruntime,tensorrt", "--frames", "2", "--json").json
    assert {"first_ms", "p50_ms", "p99_ms", "peak_mb"} <= figures["backends"]["onnxruntime"].keys()
    assert "tensorrt" in figures["failed"]
    assert figures["picked"] is None


def test_several_bundles_are_in_one_table_and_one_json_object(tcmoa, bundle, exported):
    names = (bundle.path, exported("narrow"))
    few = ("--frames", "2", "--threads", "1")
    done = tcmoa("bench", *names, "--backend", "onnxruntime,tensorrt", *few, "--pick")
    assert done.code == 0, done.err
    header, *lines = done.out.splitlines()
    assert header.split() == ["backend", "bundle", "frame", "load", "first", "p50", "p99", "memory", "graph"]
    rows = [line.split() for line in lines[:2]]
    assert {row[1]: row[2] for row in rows} == {str(bundle.path): "130x100", str(names[1]): "40x7"}
    assert [float(row[5].removesuffix("ms")) for row in rows] == sorted(
        float(row[5].removesuffix("ms")) for row in rows
    )
    assert all(row[0] == "onnxruntime" and row[-1] == "operators" and int(row[-2]) > 100 for row in rows)
    assert [line.split(":")[1:3] for line in lines[2:4]] == [[" not run", " tensorrt"]] * 2
    assert lines[4].startswith("The bundles have frames of different sizes")
    assert lines[5:] == [
        f"picked: onnxruntime for {name}, for --backend auto on this machine" for name in names
    ]
    found = tcmoa("bench", *names, "--backend", "onnxruntime", "--frames", "1", "--json").json["bundles"]
    assert list(found) == [str(name) for name in names]
    for of_bundle in found.values():
        assert of_bundle["backends"]["onnxruntime"]["frames"] == 1
        assert of_bundle["operators"] > 100
        assert (of_bundle["task"], of_bundle["kernels"], of_bundle["picked"]) == ("vif", None, None)


def test_the_kernels_of_an_engine_are_beside_its_times():
    facts = BundleFacts(task="vif", size="640x480", precision="fp16", operators=597, kernels=41)
    assert facts.describe_work("tensorrt") == "41 kernels"
    assert facts.describe_work("openvino") == "597 operators"
    assert replace(facts, operators=None).describe_work("onnxruntime") == "-"


def test_wrong_bundles_are_refused_before_one_is_measured(tcmoa, bundle, vif, tmp_path, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")  # nothing can be measured
    again = tmp_path / "link"
    again.symlink_to(bundle.path)
    done = tcmoa("bench", bundle.path, vif, again)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"tcmoa: error: {again}: the same bundle as {bundle.path}; expected each bundle once\n"
    )
    tcmoa("bench", vif, tmp_path).assert_error(2, f"{tmp_path}: ", "not a bundle")
    bundle.graph_path.write_bytes(bundle.graph_path.read_bytes()[:1000])
    tcmoa("bench", vif, bundle.path).assert_error(2, "fusion.onnx: 1000 bytes, truncated or another file")


def test_no_backend_for_any_bundle_is_an_error(tcmoa, bundle, vif):
    done = tcmoa("bench", bundle.path, vif, "--backend", "tensorrt", "--frames", 1)
    done.assert_error(3, f"{bundle.path}: no backend runs the bundle: tensorrt: ")


def test_wrong_input_is_one_line(tcmoa, bundle, tmp_path):
    tcmoa("bench", tmp_path).assert_error(2, "not a bundle")
    tcmoa("bench", bundle.path, "--backend", "tensorrt").assert_error(3, "no backend runs", "tensorrt: ")
    tcmoa("bench", bundle.path, "--frames", "0").assert_error(2, "--frames: 0; expected 1 to")
    tcmoa("bench", bundle.path, "--backend", "cuda").assert_error(2, "--backend: 'cuda'", "expected one of")
    bundle.graph_path.write_bytes(bundle.graph_path.read_bytes()[:1000])
    tcmoa("bench", bundle.path).assert_error(
        2, "fusion.onnx: 1000 bytes, truncated or another file; expected"
    )


def test_synthetic_frames_are_flat_squares_with_little_noise():
    frames = module._synthetic_frames(np.random.default_rng(0), (2, 50, 70, 3))
    assert (frames.shape, frames.dtype) == ((2, 50, 70, 3), np.uint8)
    assert np.ptp(frames[0, :16, :16, 0]) <= 16
    assert (
        np.ptp(frames[0, :, :, 0]) > 100
    )  # and no value wrapped around, or the first range would be as large
    assert frames.flags.c_contiguous
