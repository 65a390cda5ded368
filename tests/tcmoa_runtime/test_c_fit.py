"""libtcmoa fits frames of any size to a bundle with the bytes of the Python runtime."""

import os
from pathlib import Path

import numpy as np
import pytest

from c_library import LIBRARY, CFuser
from micro_model import frames
from tcmoa_runtime import Fuser, TcmoaError

BUNDLES = Path(os.environ.get("TCMOA_TEST_BUNDLES", Path(__file__).parents[2] / "build" / "cpp-bundles"))
"""Bundles for 112x112, with tokens of 16 pixels, that tests/cpp_bundles.py makes."""

SIZES = [(100, 75), (113, 112), (112, 113), (1, 1), (30, 250), (111, 333), (200, 201), (112, 112)]

pytest.importorskip("openvino", reason="openvino is not installed; `pip install 'tcmoa[openvino]'` runs this")
pytestmark = pytest.mark.skipif(
    not (LIBRARY.exists() and BUNDLES.exists()),
    reason=f"{LIBRARY.name} is not built; `make cpp` builds it, and this runs",
)


@pytest.fixture(scope="module")
def load():
    """Return a function that loads a bundle in Python and in C; both are kept for the module."""
    loaded = {}

    def load(name, fit):
        if (name, fit) not in loaded:
            loaded[name, fit] = (
                Fuser.load(BUNDLES / name, "openvino", fit=fit, threads=1),
                CFuser(BUNDLES / name, fit=fit, threads=1),
            )
        return loaded[name, fit]

    yield load
    for python, c_fuser in loaded.values():
        python.close()
        c_fuser.__exit__(None, None, None)


def pair(size, gray=False):
    x, y = frames(*size, count=2, seed=size[0] * 1000 + size[1])
    return x, np.ascontiguousarray(y[..., 0]) if gray else y


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("vif-small", "tile"),
        ("vif-small", "resize"),
        ("vif-gray", "auto"),
        ("vif-gray", "resize"),
        ("vif-batch", "tile"),
    ],
)
def test_frames_of_any_size_give_the_bytes_of_python(load, name, fit):
    python, c_fuser = load(name, fit)
    for size in SIZES:
        x, y = pair(size, gray=name == "vif-gray")
        # The library takes RGB and returns RGB, Python the order of the bundle.
        order = -1 if python.bundle.channel_order == "bgr" else 1
        expected = python(x[..., ::order], y, scale=1.3, shift=-0.2)[..., ::order]
        np.testing.assert_array_equal(c_fuser(x, y, scale=1.3, shift=-0.2), expected, err_msg=f"{size}")


def test_16_bit_frames_are_stretched_before_they_are_cut(load):
    python, c_fuser = load("vif-small", "tile")
    x, _ = pair((150, 130))
    y = np.random.default_rng(1).integers(7000, 9000, (150, 130)).astype(np.uint16)
    np.testing.assert_array_equal(c_fuser(x, y), python(x, y, scale=1.0, shift=0.0))


def test_sources_of_two_sizes_are_resized(load):
    python, c_fuser = load("vif-small", "resize")
    for size_x, size_y in (((112, 112), (64, 200)), ((90, 300), (112, 112)), ((31, 47), (500, 200))):
        x, y = pair(size_x)[0], pair(size_y)[1]
        np.testing.assert_array_equal(c_fuser(x, y), python(x, y, scale=1.0, shift=0.0))


@pytest.mark.parametrize("fit", ["pad", "tile", "resize"])
@pytest.mark.parametrize("size", [(60, 111), (112, 112), (112, 30)])
def test_prompt_maps_and_prompts_are_cut_and_joined_as_in_python(load, fit, size):
    check_prompts(*load("vif-small", fit), size)


@pytest.mark.parametrize("size", [(113, 112), (200, 333)])
def test_prompt_maps_and_prompts_of_larger_frames_are_cut_and_joined_as_in_python(load, size):
    check_prompts(*load("vif-small", "tile"), size)


def check_prompts(python, c_fuser, size):
    grid = python.grid_of(size)
    assert c_fuser.grid(size) == grid
    rng = np.random.default_rng(2)
    scale = rng.uniform(0.5, 1.5, grid).astype(np.float32)
    shift = rng.uniform(-0.5, 0.5, grid).astype(np.float32)
    x, y = pair(size)
    fused, prompts = python.with_prompt(x, y, scale=scale, shift=shift)
    c_fused, c_prompts = c_fuser.with_maps(x, y, scale, shift, prompts.shape[0] * 2)
    np.testing.assert_array_equal(c_fused, fused)
    np.testing.assert_array_equal(c_prompts.reshape(prompts.shape), prompts)


def test_sizes_are_refused_with_the_ways_out(load):
    _, exact = load("vif-small", "exact")
    _, pad = load("vif-small", "pad")
    _, tile = load("vif-small", "tile")
    ways = (
        "Set options.fit to TCMOA_FIT_TILE, TCMOA_FIT_PAD or TCMOA_FIT_RESIZE, or export a bundle for 64x50."
    )
    with pytest.raises(TcmoaError) as error:
        exact(*pair((50, 64)))
    assert str(error.value) == f"x: 64x50; expected 112x112, the bundle's frame size. {ways}"
    with pytest.raises(
        TcmoaError, match=r"^x: 113x100; expected at most 112x112, the bundle's frame size\. "
    ):
        pad(*pair((100, 113)))
    with pytest.raises(TcmoaError) as error:
        tile(pair((50, 64))[0], pair((60, 64))[1])
    assert str(error.value) == (
        "y: 64x60; expected 64x50, the size of x. Register the two frames first, or set options.fit to "
        "TCMOA_FIT_RESIZE."
    )
    with pytest.raises(TcmoaError) as error:
        CFuser(BUNDLES / "vif-batch", fit="resize")
    assert str(error.value).endswith(
        "vif-batch: fuses batches of 2 pairs; expected a batch of 1. Export a bundle with a batch of 1, or set "
        "options.fit to TCMOA_FIT_TILE, which fuses tiles in batches."
    )
