"""Wrapped networks in libtcmoa: the bytes of the Python runtime, and the same refusals."""

import json

import numpy as np
import pytest

from c_library import LIBRARY, CFuser
from micro_model import frames
from tcmoa_runtime import Bundle, BundleError, Fuser, TcmoaError
from tcmoa_runtime.bundle_write import write_manifest
from wrapped_pieces import HEIGHT, WIDTH, write_two_layers

pytest.importorskip("openvino", reason="openvino is not installed; `pip install 'tcmoa[openvino]'` runs this")
pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built; `make cpp` builds it, and this runs"
)


@pytest.mark.parametrize(
    ("contract", "fit", "size"),
    [
        ({}, "exact", (HEIGHT, WIDTH)),
        ({"batch": 2}, "tile", (70, 90)),
        ({"y_channels": 1}, "resize", (70, 90)),
        ({"stretches": 1}, "auto", (70, 90)),
    ],
)
def test_frames_give_the_bytes_of_python(contract, fit, size, tmp_path):
    bundle = write_two_layers(tmp_path / "b", **contract)
    x, y = frames(*size, 2, seed=8)
    y = y[..., 0].copy() if contract.get("y_channels") == 1 else y
    with (
        Fuser.load(bundle, "openvino", threads=1, fit=fit) as fuser,
        CFuser(bundle, threads=1, fit=fit) as c_fuser,
    ):
        np.testing.assert_array_equal(c_fuser(x, y, scale=None), fuser(x, y))


def test_a_prompt_is_refused(tmp_path):
    with CFuser(write_two_layers(tmp_path / "b"), threads=1) as fuser, pytest.raises(TcmoaError) as raised:
        fuser(*frames(HEIGHT, WIDTH, 2, seed=8))
    assert str(raised.value) == (
        "scale, shift: this network has no prompt; expected a bundle of `tcmoa export`. Leave it out."
    )


def mutations(manifest):
    """Yield manifests with a wrong value each."""
    network, frame = manifest["network"], manifest["frame"]
    yield {**manifest, "network": {**network, "name": "é"}}
    yield {**manifest, "network": {**network, "name": ""}}
    yield {**manifest, "network": {**network, "name": "a" * 81}}
    yield {**manifest, "network": {**network, "kind": "other"}}
    yield {**manifest, "network": {**network, "sha256": "AB" * 32}}
    yield {**manifest, "network": {**network, "license": 1}}
    yield {**manifest, "network": {**network, "source": []}}
    yield {**manifest, "network": {**network, "conventions": "rgb"}}
    yield {**manifest, "network": []}
    yield {**manifest, "tile_step": 65}
    yield {**manifest, "tile_step": 8.0}
    yield {**manifest, "fit": "crops"}
    yield {**manifest, "frame": {**frame, "stretches": 1}}
    yield {**manifest, "frame": {**frame, "stretches": -1}}
    yield {**manifest, "frame": {**frame, "batch": 0}}
    yield {key: value for key, value in manifest.items() if key != "network"}
    yield {key: value for key, value in manifest.items() if key != "tile_step"}


def test_manifests_are_refused_as_in_python(tmp_path):
    folder = write_two_layers(tmp_path / "b")
    good = json.loads((folder / "bundle.json").read_text())
    for wrong in mutations(good):
        write_manifest(folder, wrong)
        with pytest.raises(BundleError):
            Bundle.open(folder)
        with pytest.raises(TcmoaError, match=r"bundle\.json: "):
            CFuser(folder, threads=1)
