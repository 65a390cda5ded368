"""libtcmoa compared with the Python runtime: the same bytes on OpenVINO, and errors for the same faults."""

import ctypes
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from c_library import LIBRARY, CFuser, Frame, Options, Stats
from calibration_pieces import export_micro, write_pairs
from tcmoa import load_weights
from tcmoa_calibration.quantize import quantize_bundle
from tcmoa_export import export_bundle
from tcmoa_runtime import Bundle, BundleError, Fuser, TcmoaError
from tcmoa_runtime.alignment import Alignment
from tcmoa_runtime.images import read_frame, resize_frame
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import find_pairs

pytest.importorskip("openvino", reason="openvino is not installed; `pip install 'tcmoa[openvino]'` runs this")
pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built; `make cpp` builds it, and this runs"
)


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported("vif"), tmp_path / "vif"))


def frames(bundle):
    height, width = Bundle.open(bundle).contract.height, Bundle.open(bundle).contract.width
    rng = np.random.default_rng(3)
    return (
        rng.integers(0, 256, (height, width, 3), np.uint8),
        rng.integers(0, 256, (height, width), np.uint8),
        rng.integers(7000, 9000, (height, width)).astype(np.uint16),
    )


def test_structures_have_the_sizes_of_the_header():
    assert (ctypes.sizeof(Frame), ctypes.sizeof(Options), ctypes.sizeof(Stats)) == (112, 176, 72)


def test_color_gray_and_16_bit_frames_give_the_bytes_of_python(bundle):
    color, gray, wide = frames(bundle)
    with Fuser.load(bundle, "openvino", threads=1) as fuser, CFuser(bundle, threads=1) as c_fuser:
        for x, y in ((color, gray), (gray, wide), (wide, color)):
            for prompt in ({"scale": 1.0, "shift": 0.0}, {"scale": 1.7, "shift": -0.4}):
                np.testing.assert_array_equal(c_fuser(x, y, **prompt), fuser(x, y, **prompt))
        assert c_fuser.stats.frames == 6


def test_weights_in_a_separate_file_are_found_and_verified(external_data_bundle, tmp_path):
    bundle = Path(shutil.copytree(external_data_bundle, tmp_path / "two"))
    color, gray, _ = frames(bundle)
    with Fuser.load(bundle, "openvino", threads=1) as fuser, CFuser(bundle, threads=1) as c_fuser:
        np.testing.assert_array_equal(c_fuser(color, gray), fuser(color, gray))
    data = bytearray((bundle / "fusion.data").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "fusion.data").write_bytes(data)
    with pytest.raises(TcmoaError, match=r"fusion\.data: SHA-256 is"):
        CFuser(bundle)


CLOSED_IN_ORDER = """
import signal, sys
sys.path.insert(0, {tests!r})
from c_library import CFuser
from raised_signals import has_signal_stack

signal.signal(signal.SIGINT, lambda *_: print("handled"))
first, second = CFuser({bundle!r}, threads=1), CFuser({bundle!r}, threads=1)
for fuser in (first, second):
    with fuser:
        pass
assert has_signal_stack()
signal.raise_signal(signal.SIGINT)
"""


def test_handlers_of_signals_run_after_handles_have_closed_in_order(bundle, fresh_python):
    """OpenVINO gives signal handlers a stack on CPUs with AMX; on others this cannot fail."""
    code = CLOSED_IN_ORDER.format(tests=str(Path(__file__).parents[1]), bundle=str(bundle))
    outcome = fresh_python(code)
    assert (outcome.code, outcome.out, outcome.err) == (0, "handled\n", "")


@pytest.mark.parametrize("task", ["vif", "mff"])
def test_a_ready_bundle_gives_the_bytes_of_python(task):
    """C takes the folder that `tcmoa models` prints; its large weights are stored in float16."""
    bundle = Bundle.open(f"nano-{task}")
    color, gray, _ = frames(bundle.path)
    with Fuser.load(bundle.path, "openvino", threads=1) as fuser, CFuser(bundle.path, threads=1) as c_fuser:
        np.testing.assert_array_equal(c_fuser(color, gray), fuser(color, gray))


def test_a_bundle_in_int8_gives_the_bytes_of_python(tmp_path):
    source = export_micro(tmp_path / "micro", weight_storage="fp16")
    found = find_pairs(write_pairs(tmp_path / "pairs", 4))
    options = QuantizeOptions(min_psnr=0, smoothing=0.5, ranges="max")
    bundle = quantize_bundle(source, found, tmp_path / "int8", options).bundle.path
    x, y = read_frame(found[0].x), read_frame(found[0].y)
    with Fuser.load(bundle, "openvino", threads=1) as fuser, CFuser(bundle, threads=1) as c_fuser:
        np.testing.assert_array_equal(c_fuser(x, y), fuser(x, y))


def test_a_bundle_that_aligns_its_sources_is_refused(bundle, rehash):
    entry = Alignment("y", ((1, 0, 2), (0, 1, 0), (0, 0, 1)), "translation", 0.1, 0.1, 0.2, 4, 0)
    rehash(bundle, lambda manifest: manifest.update(alignment=entry.to_json()))
    Bundle.open(bundle)
    with pytest.raises(TcmoaError, match=r"aligns its sources .* and libtcmoa does not warp"):
        CFuser(bundle)


def mutations(manifest):
    """Yield manifests with a wrong value each."""
    yield {**manifest, "format": "other"}
    yield {**manifest, "format_version": 9}
    yield {**manifest, "format_version": "1"}
    yield {**manifest, "task": "xyz"}
    yield {**manifest, "token_pixels": 3}
    yield {**manifest, "frame": {**manifest["frame"], "width": -1}}
    yield {**manifest, "frame": {**manifest["frame"], "grid": [1, 1]}}
    yield {**manifest, "files": {}}
    yield {**manifest, "files": {**manifest["files"], "é\n": {"sha256": "", "bytes": 1}}}
    yield {**manifest, "contract": {}}
    yield {key: value for key, value in manifest.items() if key != "prompt_default"}


def test_manifests_are_accepted_and_refused_as_in_python(bundle):
    path = bundle / "bundle.json"
    good = json.loads(path.read_text())

    def write(manifest):
        rest = {key: value for key, value in manifest.items() if key != SELF_HASH}
        path.write_text(json.dumps({**rest, SELF_HASH: manifest_sha256(rest)}, indent=1))

    # Numbers that JSON libraries write differently, and characters beyond ASCII: the hash is over the text of Python.
    write(
        {
            **good,
            "note": [
                1e-05,
                1e16,
                1e22,
                0.1 + 0.2,
                -0.0,
                5e-324,
                1.7976931348623157e308,
                2**63 - 1,
                "é\u2028😀\x7f",
            ],
        }
    )
    Bundle.open(bundle)
    with CFuser(bundle, threads=1) as fuser:
        assert fuser.stats.frames == 0
    for wrong in mutations(good):
        write(wrong)
        with pytest.raises(BundleError):
            Bundle.open(bundle)
        with pytest.raises(TcmoaError, match=str(path.name)):
            CFuser(bundle)


def test_a_missing_openvino_is_reported_with_a_remedy(bundle, monkeypatch):
    # The library is loaded once per process, so the test needs another process.
    import subprocess

    monkeypatch.setenv("TCMOA_OPENVINO_LIBRARY", "/nowhere/libopenvino_c.so")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    code = f"from c_library import CFuser; CFuser({str(bundle)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "libopenvino_c.so: cannot be loaded (/nowhere/libopenvino_c.so" in last
    assert "set TCMOA_OPENVINO_LIBRARY" in last


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_val_pairs_give_the_bytes_of_python_and_nearly_those_of_onnx_runtime(task, val_pairs, tmp_path):
    size = (144, 192)
    export_bundle(load_weights("tiny"), ExportOptions(task=task, size=size), tmp_path / task)
    pairs = find_pairs(val_pairs / task)[:1]  # benchmarks/c_library.py has all of them
    assert pairs
    with (
        Fuser.load(tmp_path / task, "openvino") as python,
        Fuser.load(tmp_path / task, "onnxruntime") as other,
        CFuser(tmp_path / task) as c_fuser,
    ):
        for pair in pairs:
            x, y = (resize_frame(read_frame(path), size) for path in (pair.x, pair.y))
            fused = c_fuser(x, y)
            np.testing.assert_array_equal(fused, python(x, y))
            # A near tie of a router may be decided differently in a token, as between any two backends.
            assert (np.abs(fused.astype(int) - other(x, y)) > 1).mean() <= 1e-4
