"""Fixtures of the tests of streams; one of them fails a test that leaves a thread running."""

import threading
import time

import pytest

from tcmoa_runtime import Bundle
from video_pieces import gradient, write


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = [t.name for t in threading.enumerate() if t.name.startswith("tcmoa-")]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail(f"threads left: {left}")


@pytest.fixture(scope="session")
def bundle(exported):
    """A micro bundle of 130x100 with prompts."""
    return Bundle.open(exported("vif"))


@pytest.fixture(scope="session")
def plain_bundle(exported):
    """A micro bundle of 130x100 without prompts."""
    return Bundle.open(exported("plain"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A video of 130x100 with 12 frames at 25 frames per second, Matroska."""
    pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
    path = tmp_path_factory.mktemp("clip") / "s.mkv"
    return write(path, [gradient(i, 100, 130) for i in range(12)])
