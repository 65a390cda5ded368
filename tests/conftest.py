"""Fixtures that several test folders share."""

import gc
import logging
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline, because timing on a busy machine proves nothing. Fixtures that property tests use are read-only. CI tries
# the same examples in every run, so that a failure comes from the commit; other machines try new ones.
settings.register_profile(
    "tcmoa",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tcmoa")

# Caches, picks and records of built engines go to folders of this process, not to the user's.
_user_folders = tempfile.TemporaryDirectory(prefix="tcmoa-tests-")
os.environ["XDG_CACHE_HOME"] = str(Path(_user_folders.name) / "cache")
os.environ["XDG_DATA_HOME"] = str(Path(_user_folders.name) / "data")


@pytest.fixture(scope="module", autouse=True)
def _user_folders_of_the_file(tmp_path_factory):
    """Give each file user folders of its own: a backend picked in one must not run in another."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("cache", "data"):
            patch.setenv(f"XDG_{kind.upper()}_HOME", str(folder / kind))
        yield


@pytest.fixture(scope="module", autouse=True)
def _log_of_the_file():
    """Remove what a file adds to the log: a worker of a command, run in process, shows it on stderr for good."""
    log = logging.getLogger("tcmoa")
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


# One thread for PyTorch and NumPy, also in commands that tests start: with small models and busy cores, more threads
# take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Imports of PyTorch and tracing make millions of objects, and thousands of tests stay to the end: searching them for
# cycles after each 700 new ones takes a tenth of the run. Tests that count objects collect themselves.
gc.set_threshold(20_000)

# A shell that runs the tests in the background makes them and the commands that they start ignore SIGINT; nohup does
# the same with SIGHUP.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "test_documents.py",
    "test_growing.py",
    "test_bulk_cluster.py",
    "test_service_ray.py",
    "test_fleet_cluster.py",
    "test_ray_session.py",
    "test_speed.py",
    "test_cli_stream.py",
    "test_base_install.py",
    "test_build.py",
    "test_precision.py",
    "test_cli_stream_errors.py",
    "test_page_browser.py",
    "test_evaluate.py",
    "test_align.py",
    "test_build_tensorrt.py",
    "test_processes.py",
    "test_train.py",
    "test_build_up_to_date.py",
    "test_tensorrt_backend.py",
    "test_fuser.py",
    "test_cli_fuse.py",
    "test_your_own_network.py",
    "test_network.py",
    "test_quantize.py",
)
"""Files that take longest, longest first: all tests of a file run in one worker process, so these must not be last."""


def pytest_collection_finish() -> None:
    """Search the tests themselves no more for cycles."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the authors' reference outputs; skips the test if it is absent."""
    folder = SHARED / "reference" / "golden"
    if not folder.is_dir():
        pytest.skip("../shared/reference/golden is absent; place the project beside it to run this")
    return folder


@pytest.fixture(scope="session")
def val_pairs() -> Path:
    """Folder of real pairs by task (vif, mef, mff); skips the test if it is absent."""
    folder = SHARED / "data" / "val"
    if not folder.is_dir():
        pytest.skip("../shared/data/val is absent; place the project beside it to run this")
    return folder
