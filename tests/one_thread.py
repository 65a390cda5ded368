"""ONNX Runtime with one thread per session, unless a test asks for more.

Two test processes keep both cores busy, and threads that wait for each other then take several times as long:
tests/tcmoa_calibration/test_quantize.py took 47 s by default and 15 s with one thread.
"""

import onnxruntime
import pytest


class OneThread(onnxruntime.SessionOptions):
    """Options of a session with one thread."""

    def __init__(self):
        super().__init__()
        self.intra_op_num_threads = 1


@pytest.fixture(scope="module", autouse=True)
def one_thread_per_session():
    """Create sessions of one thread in the tests of a file; a conftest.py that imports this fixture uses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", OneThread)
        yield
