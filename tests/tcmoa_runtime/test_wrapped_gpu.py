"""Wrapped networks on a simulated GPU: the bytes of ONNX Runtime, on the host and in GPU memory."""

from contextlib import closing

import numpy as np
import pytest

from micro_model import frames
from simulated.cases import OnGpu, add_engine, read
from tcmoa_runtime import Fuser
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import NoPromptError
from wrapped_pieces import HEIGHT, WIDTH, write_two_layers

pytest_plugins = ["simulated.fixtures"]


@pytest.mark.parametrize("stretches", [0, 1])
def test_frames_equal_those_of_onnxruntime(stretches, library, device, tmp_path):
    bundle = Bundle.open(write_two_layers(tmp_path / "b", stretches=stretches))
    add_engine(bundle)
    x, y = frames(HEIGHT, WIDTH, 2, seed=9)
    with (
        Fuser.load(bundle.path, "onnxruntime", threads=1) as reference,
        closing(TensorRTBackend(bundle)) as backend,
    ):
        fuser, expected = Fuser(bundle, backend), reference(x, y)
        np.testing.assert_array_equal(fuser(x, y), expected)
        there = OnGpu(device, x), OnGpu(device, y)
        fused = fuser(*there)
        np.testing.assert_array_equal(read(device, fused), expected)
        with pytest.raises(NoPromptError, match=r"^prompt_shift: this network has no prompt; "):
            fuser(*there, shift=0.2)
        del fused
        for array in there:
            array.free()
